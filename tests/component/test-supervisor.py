#!/usr/bin/env python3
"""The supervisor's whole life without a guest: the `null` back-end with tests/fakes/fake-vmm.py in it."""
import json
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))
import vmtest  # noqa: E402
from nothingstore import make_store  # noqa: E402
from vmtest import equal, true  # noqa: E402

FAKE = HERE.parent / "fakes/fake-vmm.py"


class Case:
    def __init__(self, host):
        self.host = host
        self.n = 0

    def start(self, words="", *options, check=0):
        self.n += 1
        vm = f"s{self.n}"
        self.host.names.append(vm)
        self.host.env["FAKE"] = words
        self.p = self.host.run("run", "-d", "--backend=null", "--name", vm, *options, "nothing", check=check, timeout=30)
        return vm

    def end(self, vm, how, *options):
        """stop, and what the outcome must be."""
        start = time.monotonic()
        text = self.host.out("stop", *options, vm)
        true(f"({how}:" in text, f"{vm}: {text}, want {how}")
        equal(self.host.status(vm)["outcome"], how, vm)
        return time.monotonic() - start

    def ended(self, vm, how, seconds=15):
        self.host.run("wait", f"--timeout={seconds}s", vm, check=0)
        s = self.host.status(vm)
        equal((s["state"], s["outcome"]), ("stopped", how), f"{vm}: {s}")
        return s


def ladder(c):
    c.end(c.start(), "clean")
    c.end(c.start("refuse acpi"), "acpi")
    c.end(c.start("deaf acpi"), "acpi", "--timeout=3s")
    c.end(c.start("slow acpi"), "acpi", "--timeout=3s")
    c.end(c.start("refuse"), "forced", "--timeout=1s")
    c.end(c.start("refuse noquit"), "forced", "--timeout=1s")
    c.end(c.start("deaf noquit"), "forced", "--force")
    c.end(c.start("deaf acpi"), "acpi", "--timeout=1h")	# no DONE within 5 s: the next rung


def ends(c):
    c.ended(c.start("off"), "clean")
    c.ended(c.start("panic"), "panicked")
    true("status 3" in c.ended(c.start("crash"), "crashed")["cause"], "cause")
    c.ended(c.start("hangup"), "crashed")
    c.ended(c.start("babble"), "crashed")
    vm = c.start("mainexit")
    s = c.host.status(vm)
    equal((s["exit_source"], s["exit_code"]), ("cmd", 9), "main exit")
    vm = c.start()
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGKILL)
    c.ended(vm, "crashed", 5)
    vm = c.start()
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGSTOP)
    c.end(vm, "forced", "--timeout=1s")
    vm = c.start()
    os.kill(c.host.status(vm)["supervisor_pid"], signal.SIGTERM)
    c.ended(vm, "clean")


def pause(c):
    """A paused VM refuses what needs its guest, says so, and can be ended and refreshed like any other."""
    vm = c.start()
    renewed = lambda: c.host.out("logs", "--source=vmm", vm).count("renewed: ")
    c.host.run("resume", vm, check=4)
    c.host.run("pause", vm, check=0)
    equal(c.host.status(vm)["state"], "paused", "state")
    equal(renewed(), 0, "renewed before")
    p = c.host.run("exec", vm, "true", check=125)
    true(b"is paused" in p.stderr and b"uvms resume" in p.stderr, p.stderr)
    c.host.run("pause", vm, check=4)
    c.host.run("refresh", vm, check=0)
    equal(c.host.status(vm)["state"], "paused", "state after refresh")
    c.host.run("resume", vm, check=0)
    equal(c.host.status(vm)["state"], "running", "state")
    until(renewed, 2, 5, "clock and entropy")
    c.host.run("pause", vm, check=0)
    c.end(vm, "clean")
    vm = c.start()
    c.host.run("pause", vm, check=0)
    c.host.run("kill", "-q", vm, check=0)
    c.ended(vm, "forced")
    vm = c.start()
    c.host.run("pause", vm, check=0)
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGKILL)
    c.ended(vm, "crashed", 5)
    c.host.run("pause", vm, check=3)


def set_sizes(c):
    """Within what it was started with, and never beyond; a refusal changes nothing."""
    vm = c.start("", "--memory=256M", "--max-memory=300M", "--cpus=2", "--max-cpus=4")
    sizes = lambda: (c.host.status(vm)["memory_bytes"] >> 20, c.host.status(vm)["cpus"])
    equal(sizes(), (256, 2), "at the start")
    c.host.run("set", "--memory=384M", "--cpus=3", vm, check=0)
    equal(sizes(), (384, 3), "set")
    for bad, status in ((["--memory=386M"], 2), (["--memory=254M"], 2), (["--memory=257M"], 2), (["--cpus=5"], 2),
                        (["--cpus=1"], 2), (["--cpus=0"], 2), ([], 2)):
        c.host.run("set", *bad, vm, check=status)
    equal(sizes(), (384, 3), "after refusals")
    c.host.run("refresh", vm, check=0)
    equal(sizes(), (384, 3), "after refresh")
    emulated = c.host.status(vm)["accel"] == "tcg"	# where QEMU does not survive it
    c.host.run("set", "--cpus=2", vm, check=6 if emulated else 0)
    equal(sizes(), (384, 3 if emulated else 2), "fewer CPUs")
    c.host.run("pause", vm, check=0)
    c.host.run("set", "--cpus=4", vm, check=4)
    c.end(vm, "clean")
    c.host.run("set", "--cpus=4", vm, check=3)
    vm = c.start()
    p = c.host.run("set", "--memory=1G", vm, check=2)
    true(b"--max-memory" in p.stderr, p.stderr)
    c.host.run("set", "--cpus=2", vm, check=2)
    c.end(vm, "clean")


def attach(c):
    """Volumes come and go by name, slot and lock; what is refused holds nothing."""
    vm = c.start("", "--hotplug-slots=2")
    other = c.start("", "--hotplug-slots=1")
    attached = lambda v: c.host.status(v).get("attached", [])
    used = lambda: {v["name"]: v["in_use"] for v in json.loads(c.host.out("volume", "ls", "--json"))}
    names = [f"a{os.getpid()}", f"b{os.getpid()}", f"c{os.getpid()}"]
    try:
        for n in names[:2]:
            c.host.run("attach", vm, n + ":16M", check=0)
        equal(attached(vm), names[:2], "attached")
        equal([used()[n] for n in names[:2]], [True, True], "locked")
        c.host.run("attach", vm, names[0], check=4)
        p = c.host.run("attach", vm, names[2] + ":16M", check=6)
        true(b"--hotplug-slots" in p.stderr, p.stderr)
        c.host.run("attach", other, names[1], check=4)
        c.host.run("attach", vm, names[0] + ":1G", check=4)
        c.host.run("attach", vm, "x" * 21 + ":16M", check=2)
        c.host.run("attach", vm, "../up", check=2)
        c.host.run("attach", "nobody", names[2] + "x", check=3)
        true(names[2] + "x" not in used(), "a volume for a VM that is not there")
        c.host.run("detach", vm, names[2], check=3)
        c.host.run("refresh", vm, check=0)
        equal(attached(vm), names[:2], "attached after refresh")
        c.host.run("detach", vm, names[0], check=0)
        equal((attached(vm), used()[names[0]]), ([names[1]], False), "detached")
        c.host.run("attach", other, names[0], check=0)
        c.host.run("kill", "-q", vm, other, check=0)
        c.ended(vm, "forced")
        equal([used()[n] for n in names], [False] * 3, "let go at the end")
    finally:
        c.host.run("volume", "rm", *names, "x" * 21)


def daemons(c):
    """The (fake) virtiofsd of all VMs."""
    return [int(line.split()[0]) for line in c.host.processes() if "fake-virtiofsd" in line and "--version" not in line]


def share(c):
    """With a VMM that connects to virtiofsd once: when that ends the share is lost, and nothing else; no image can be taken away."""
    c.host.env["UVMS_VIRTIOFSD"] = str(pathlib.Path(c.host.env["UVMS_VMM_NULL"]).parent / "fake-virtiofsd")
    states = lambda: [(m["path"], m["state"]) for m in c.host.status(vm).get("mounts", [])]
    log = lambda word: c.host.out("logs", "-s", "vmm", vm).splitlines().count(word)
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        attach = lambda path="/a", **kw: c.host.run("attach", vm, "--share", f"{d}:{path}", **kw)
        detach = lambda path="/a", **kw: c.host.run("detach", vm, "--share", path, **kw)
        vm = c.start("vfs-stays", "--hotplug-slots=3")
        attach(check=0)
        before = open_fds(c.host.status(vm)["supervisor_pid"])
        for _ in range(3):
            attach("/b", check=0)
            detach("/b", check=0)
        until(lambda: open_fds(c.host.status(vm)["supervisor_pid"]), before, 2, "descriptors")
        equal([p.name for p in (c.host.runtime / vm / "current").iterdir() if p.name.startswith(("fs", "share"))], ["share0"],
              "its socket has no name any more")
        attach("/b", check=0)
        equal((log("mount a"), log("mount b"), log("unmount b")), (1, 4, 3), "what the guest was asked")
        first, second = daemons(c)
        p = c.host.run("attach", vm, "--image", "nothing:/c", check=0)
        attach("/d", check=6)
        equal(states(), [("/a", "mounted"), ("/b", "mounted"), ("/c", "mounted")], "three")
        with Bin(c) as programs:
            programs.upgrade("0.2.0")
            true(c.host.out("refresh", vm).endswith("0.2.0)\n"), "refresh")
        equal((len(states()), sorted(daemons(c))), (3, sorted((first, second))), "after a refresh")
        os.kill(min(first, second), signal.SIGUSR1)	# that of /a was the first one
        until(lambda: states()[0][1][:5], "lost:", 3, "lost")
        true("told to end" in c.host.out("logs", "-s", "supervisor", vm), "its last words")
        true("a share is lost" in c.host.out("events", "-a", "-n", vm), "the event")
        p = c.host.run("detach", vm, "--image", "/c", check=6)
        true(b"stays until the VM ends" in p.stderr, f"{p.stderr}")
        detach(check=0)
        until(lambda: log("unmount a"), 1, 3, "after its device it is unmounted")
        equal(states(), [("/b", "mounted"), ("/c", "mounted")], "two")
        attach(check=0)
        pid, = set(daemons(c)) - {second, first}
        for i in range(3):
            os.kill(pid, signal.SIGSTOP)
            if i < 2:
                until(lambda: c.host.status(vm).get("stopped"), "virtiofsd0", 1, "stopped")
                until(lambda: c.host.status(vm).get("stopped"), None, 2, "goes on")
        until(lambda: states()[0][1][:5], "lost:", 3, "stopped again and again")
        detach(check=0)
        c.host.run("snapshot", vm, f"s{os.getpid()}", check=6)
        c.end(vm, "clean")
        equal(daemons(c), [], "virtiofsd ends with the VM")
        for words, status in (("mount-error=19", 1), ("mount-deaf", 5)):	# which cannot be undone for an image
            vm = c.start(words + " vfs-stays", "--hotplug-slots=1")
            attach(check=status)
            equal(states(), [], f"{words}: undone")
            c.end(vm, "clean")
            if words == "mount-deaf":
                continue
            vm = c.start(words, "--hotplug-slots=1")
            p = c.host.run("attach", vm, "--image", "nothing:/a", check=status)
            equal(states(), [("/a", "its kernel has no driver for it")], f"{words}: it stays")
            c.end(vm, "clean")
        vm = c.start("vfs-stays", "--hotplug-slots=1")
        attach(check=0)
        os.kill(c.host.status(vm)["supervisor_pid"], signal.SIGKILL)
        until(lambda: c.host.processes(), [], 3, "processes")


def snapshot(c):
    """What was kept is restored as often as one likes, and never when something differs from then."""
    snapshots = c.host.state / "snapshots"
    name = lambda tag: f"{tag}{os.getpid()}"
    vm = c.start()
    try:
        c.host.run("snapshot", vm, name("a"), check=0)
        equal(c.host.status(vm)["state"], "running", "it goes on")
        kept = snapshots / name("a")
        equal(sorted(p.name for p in kept.iterdir()), ["manifest.json", "secret", "spec.json", "vmm"], "kept")
        equal((kept / "secret").stat().st_mode & 0o777, 0o600, "the secret's mode")
        c.host.run("snapshot", vm, name("a"), check=4)
        c.host.run("snapshot", vm, "../a", check=2)
        p = c.host.run("snapshot", "--", "ls", "x", check=3)
        true(b"there is no VM ls" in p.stderr, "a VM may be called as the verbs are")
        c.host.run("restore", name("a"), check=4)
        c.host.run("snapshot", "--stop", vm, name("b"), check=0)
        c.ended(vm, "forced")
        listed = {s["name"]: s for s in json.loads(c.host.out("snapshot", "ls", "--json"))}
        equal([(listed[name(t)]["vm"], listed[name(t)]["whole"]) for t in "ab"], [(vm, True)] * 2, "listed")
        equal(listed[name("a")]["size_bytes"],
              sum(p.stat().st_size for p in kept.rglob("*") if p.is_file() and p.name != "manifest.json"), "size")
        for _ in range(2):
            c.host.run("restore", name("a"), check=0)
            equal(c.host.status(vm)["state"], "running", "restored")
            s = c.host.status(vm)
            equal((s["snapshot"], s["restored"]), (name("a"), "copied: the back-end cannot read it on demand"), "how")
            true("\nvmm " in (c.host.runtime / vm / "current/trace").read_text(), "trace")
            c.end(vm, "clean")

        def refused(what, *words):
            p = c.host.run("restore", name("a"), check=1)
            true(all(w in p.stderr.decode() for w in words), f"{what}: {p.stderr}")
            equal(c.host.status(vm)["state"], "stopped", what)

        def changed(path, old, new, *words):
            text = path.read_text()
            true(old in text, f"{old} in {path}")
            path.write_text(text.replace(old, new))
            refused(f"{old} -> {new}", *words)
            path.write_text(text)

        manifest = kept / "manifest.json"
        whole = json.loads(manifest.read_text())
        changed(kept / "vmm/memory", "mind", "mint", "memory")
        changed(manifest, whole["kernel"], "sha256:" + "0" * 64, "kernel")
        changed(manifest, whole["modules"], "sha256:" + "0" * 64, "modules")
        changed(manifest, whole["layers"][0], "sha256:" + "0" * 64, "layer 0")
        changed(manifest, whole["vmm"], "another", "VMM", "another")
        changed(manifest, whole["cpu"].split(";")[0], "Z80", "CPU", "Z80")
        changed(manifest, whole["cpu"], whole["cpu"] + " flagless", "flagless")
        changed(manifest, '"version":1', '"version":2', "format 2")
        changed(manifest, vm, "other", "different VMs")
        changed(manifest, "{", "[", "")
        changed(kept / "spec.json", vm, "other", "different VMs")
        (kept / "vmm/more").write_text("x")
        refused("one file more", "more")
        (kept / "vmm/more").unlink()
        (kept / "vmm/link").symlink_to("/etc/passwd")
        refused("a link")
        (kept / "vmm/link").unlink()
        os.mkfifo(kept / "vmm/pipe")
        refused("a FIFO")
        (kept / "vmm/pipe").unlink()
        secret = (kept / "secret").read_text()
        changed(kept / "secret", secret, "short", "secret")
        changed(kept / "spec.json", '"cpus":1', '"cpus":2', "spec.json")
        c.host.run("restore", name("a"), check=0)
        c.end(vm, "clean")
        manifest.unlink()
        c.host.run("restore", name("a"), check=3)
        c.host.run("restore", "nothing", check=3)
        row = next(l for l in c.host.out("snapshot", "ls").splitlines() if l.startswith(name("a") + " "))
        true("not whole" in row, row)
        c.host.run("snapshot", "rm", name("b"), check=0)
        c.host.run("snapshot", "rm", "nothing", "../vms", name("b"), name("a"), check=3)
        equal([p for p in snapshots.iterdir() if name("a") in p.name or name("b") in p.name], [], "left")
    finally:
        shutil.rmtree(snapshots / name("a"), ignore_errors=True)
        shutil.rmtree(snapshots / name("b"), ignore_errors=True)


def snapshot_parts(c):
    """What belongs to a VM beside its memory is what it was then, and nothing that is there now is written over."""
    name, volume = f"p{os.getpid()}", f"v{os.getpid()}"
    kept, disk = c.host.state / "snapshots" / name, c.host.state / "volumes" / volume / "disk"
    other = c.host.state / "volumes" / f"{volume}.{name}" / "disk"

    def write(path, at, data):
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(data)

    with tempfile.NamedTemporaryFile() as secret:
        secret.write(b"open sesame")
        secret.flush()
        vm = c.start("", f"--volume={volume}:/data:64M", f"--credential=key={secret.name}")
    try:
        write(disk, 40 << 20, b"then")
        c.host.run("snapshot", vm, name, check=0)
        write(disk, 40 << 20, b"now!")
        true((kept / "volumes" / volume).stat().st_blocks * 512 < 32 << 20, "a copy without the holes")
        for path in (kept / "volumes" / volume, kept / "credentials/key"):
            equal(path.stat().st_mode & 0o077, 0, str(path))
        equal((kept / "credentials/key").read_bytes(), b"open sesame", "the credential")
        c.end(vm, "clean")
        c.host.run("restore", name, check=0)
        equal(other.read_bytes()[40 << 20:][:4], b"then", "the volume of the restored VM")
        equal(disk.read_bytes()[40 << 20:][:4], b"now!", "the volume of the one before")
        equal(json.loads((c.host.state / "vms" / vm / "spec.json").read_text())["volumes"],
              [f"{volume}.{name}:/data:64M"], "its name")
        c.end(vm, "clean")
        c.host.run("restore", name, check=0)	# with nothing written since
        c.end(vm, "clean")
        write(other, 0, b"something of the restored one")
        p = c.host.run("restore", name, check=4)
        true(b"volume rm" in p.stderr, f"{p.stderr}")
        c.host.run("rm", vm, check=0)	# credentials and all
        c.host.run("volume", "rm", f"{volume}.{name}", check=0)
        c.host.run("restore", name, check=0)
        equal((c.host.state / "vms" / vm / "credentials/key").read_bytes(), b"open sesame", "the credential")
        c.end(vm, "clean")
        write(kept / "volumes" / volume, 50 << 20, b"tampered")
        p = c.host.run("restore", name, check=1)
        true(f"volumes/{volume}" in p.stderr.decode(), f"{p.stderr}")
    finally:
        shutil.rmtree(kept, ignore_errors=True)
        c.host.run("volume", "rm", volume, f"{volume}.{name}")


def snapshot_owner(c):
    """What a VMM wrote is not its user's any more when it is kept, and only lent to whoever starts from it."""
    if os.getuid() != 0:
        raise vmtest.Skip("users of VMs are root's to make")
    name = f"o{os.getpid()}"
    kept = c.host.state / "snapshots" / name / "vmm"
    paths = lambda: [kept, *kept.iterdir()]
    owners = lambda: {(p.stat().st_uid, p.stat().st_gid, p.stat().st_mode & 0o077) for p in paths()}
    vm = c.start()
    try:
        uid = c.host.status(vm)["uid"]
        c.host.run("snapshot", vm, name, check=0)
        equal(owners(), {(0, 0, 0)}, "kept")
        c.end(vm, "clean")
        for path in paths():	# as an earlier uvms left it, for a user that is another VM's by now
            os.chown(path, uid + 1, uid + 1)
        c.host.env["FAKE"] = "mute"
        p = c.host.popen("restore", name)
        end = time.monotonic() + 20
        while time.monotonic() < end and {o[:2] for o in owners()} != {(0, uid)}:
            time.sleep(0.02)
        equal({o[:2] for o in owners()}, {(0, uid)}, "while it starts")
        equal(kept.stat().st_mode & 0o777, 0o750, "the directory's mode")
        equal((kept / "memory").stat().st_mode & 0o777, 0o440, "the file's mode")
        c.host.run("kill", vm)
        p.wait(timeout=30)
        equal(owners(), {(0, 0, 0)}, "after a start that failed")
        c.host.env["FAKE"] = ""
        c.host.run("restore", name, check=0)
        equal(owners(), {(0, 0, 0)}, "while it runs")
        c.end(vm, "clean")
    finally:
        shutil.rmtree(kept.parent, ignore_errors=True)


def snapshot_alone(c):
    """Nobody starts a VM that is being restored, and would run with what is changed below it."""
    if not shutil.which("strace"):
        raise vmtest.Skip("strace is not installed")
    name, volume = f"a{os.getpid()}", f"w{os.getpid()}"
    vm = c.start("", f"--volume={volume}:/data:64M")
    try:
        c.host.run("snapshot", vm, name, check=0)
        c.end(vm, "clean")
        p = subprocess.Popen(["strace", "-qqq", "-o", "/dev/null", "-e", "trace=fsync", "-e",
                              "inject=fsync:delay_enter=5000000", *vmtest.command("restore", name)],
                             env=c.host.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        end = time.monotonic() + 20
        while time.monotonic() < end and not any((c.host.state / "volumes").glob(f"{volume}.{name}/*")):
            time.sleep(0.02)
        c.host.run("start", vm, check=4)
        said = p.communicate(timeout=60)
        equal(p.returncode, 0, f"{said}")
        true("restored" in c.host.status(vm), "it was restored")
        c.end(vm, "clean")
    finally:
        shutil.rmtree(c.host.state / "snapshots" / name, ignore_errors=True)
        c.host.run("volume", "rm", volume, f"{volume}.{name}")


def snapshot_durable(c):
    """When it has its name all of it is on disk, and then its name is, too."""
    if not shutil.which("strace"):
        raise vmtest.Skip("strace is not installed")
    name = f"d{os.getpid()}"
    snapshots = c.host.state / "snapshots"
    vm = c.start()
    try:
        with tempfile.NamedTemporaryFile("r") as trace:
            p = subprocess.run(["strace", "-y", "-o", trace.name, "-e", "trace=fsync,renameat2",
                                *vmtest.command("snapshot", vm, name)], env=c.host.env, capture_output=True, timeout=60)
            equal(p.returncode, 0, f"{p.stderr}")
            calls = trace.read().splitlines()
        named = next(i for i, line in enumerate(calls) if line.startswith("renameat2(") and f'"{name}"' in line)
        synced = lambda lines: [re.search("<(.*)>", line).group(1) for line in lines if line.startswith("fsync(")]
        new = f"{snapshots}/.{name}.new"
        equal(set(synced(calls[:named])), {new, f"{new}/vmm"} |
              {f"{new}/{n}" for n in ("vmm/memory", "secret", "spec.json", "manifest.json")}, "before")
        equal(synced(calls[:named])[-2:], [f"{new}/manifest.json", new], "the last ones")
        equal(synced(calls[named:]), [str(snapshots)], "after")
        c.end(vm, "clean")
    finally:
        shutil.rmtree(snapshots / name, ignore_errors=True)


def snapshot_names(c):
    """A snapshot is of what the names meant when the VM was started, not of what they mean now."""
    names = [f"n{os.getpid()}{tag}" for tag in "abc"]
    snapshots, vm = c.host.state / "snapshots", "named"
    read = lambda name, what: json.loads((snapshots / name / what).read_text())
    c.host.names.append(vm)
    c.host.env["FAKE"] = ""
    with tempfile.TemporaryDirectory() as root:
        build = lambda name: c.host.run("image", "build", name, "--from-dir", root, check=0)
        (pathlib.Path(root) / "file").write_text("then")
        build("moves"), build("stays")
        c.host.run("run", "-d", "--backend=null", "--name", vm, "moves", check=0)
        try:
            c.host.run("snapshot", vm, names[0], check=0)
            (pathlib.Path(root) / "file").write_text("now")
            build("moves")
            c.host.run("snapshot", vm, names[1], check=0)
            equal(read(names[1], "manifest.json")["layers"], read(names[0], "manifest.json")["layers"], "layers")
            equal(read(names[1], "spec.json"), read(names[0], "spec.json"), "specification")
            equal(read(names[1], "spec.json")["vsock"], "uvms", "the vsock device")
            true(read(names[1], "spec.json")["kernel"].startswith("sha256:"), "the kernel")
            c.host.run("image", "rm", "stays", check=0)
            for options in ((), ("--stop",)):
                p = c.host.run("snapshot", *options, vm, names[2])
                true(p.returncode != 0 and b"not in the store" in p.stderr, f"{p}")
                equal(c.host.status(vm)["state"], "running", "it goes on")
            equal([p.name for p in snapshots.iterdir() if names[2] in p.name], [], "what is left")
            c.end(vm, "clean")
        finally:
            for name in names:
                shutil.rmtree(snapshots / name, ignore_errors=True)
            c.host.run("image", "rm", "moves")


def snapshot_faults(c):
    """A snapshot that fails leaves the VM as it was, or ends it by name, and never anything half-made."""
    snapshots = c.host.state / "snapshots"
    name = f"f{os.getpid()}"
    log = lambda vm: c.host.out("logs", "-s", "vmm", vm)

    def refused(vm, status, *words):
        p = c.host.run("snapshot", vm, name, check=status)
        true(all(w in p.stderr.decode() for w in words), f"{words}: {p.stderr}")
        equal([p.name for p in snapshots.iterdir() if name in p.name], [], "what is left")

    vm = c.start("oldagent")
    refused(vm, 6, "older uvms")
    c.end(vm, "clean")
    vm = c.start("nofreeze")
    refused(vm, 6, "cgroup2")
    equal(c.host.status(vm)["state"], "running", "it goes on")
    true("frozen\nthawed" in log(vm), log(vm))
    c.end(vm, "clean")
    vm = c.start("oddfreeze")
    refused(vm, 1, "held still")
    c.end(vm, "clean")
    vm = c.start("diesaving")
    refused(vm, 1, "VM ended")
    c.ended(vm, "crashed")
    vm = c.start()
    for left in (name, name + "-other"):	# of clients that were killed
        (snapshots / f".{left}.new/vmm").mkdir(parents=True)
    try:
        c.host.run("snapshot", vm, name, check=0)
        said = log(vm)
        true("frozen\nvsock-out\nvsock-in\nthawed" in said, f"the order: {said}")
        equal(c.host.status(vm)["vsockd_replaced"], 0, "a renewed uvms-vsockd is none that died")
        equal([p.name for p in snapshots.iterdir() if name in p.name], [name], "what is left")
        c.host.run("snapshot", vm, name, check=4)
        c.host.run("pause", vm, check=0)
        c.host.run("snapshot", vm, name + "x", check=4)
        c.end(vm, "clean")
        vm = c.start("", "--max-cpus=3", "--max-memory=1G")
        for size in ("--memory=768M", "--cpus=2"):
            c.host.run("set", vm, size, check=0)
            p = c.host.run("snapshot", vm, name + "x", check=6)
            true(b"CPUs or memory" in p.stderr, f"{p.stderr}")
        c.end(vm, "clean")
        vm = f"s{c.n - 1}"
        c.host.run("restore", name, check=0)
        c.end(vm, "clean")
        true("thawed" in log(vm), "who was frozen")
        c.host.env["FAKE"] = "nothaw"
        c.host.run("restore", name)
        s = c.ended(vm, "crashed")
        true("do not go on" in s["cause"], f"the cause: {s}")
    finally:
        shutil.rmtree(snapshots / name, ignore_errors=True)


def starts(c):
    vm = c.start("degraded")
    true(b"degraded" in c.p.stderr and b"bad.service" in c.p.stderr, f"{c.p.stderr!r}")
    equal(c.host.status(vm)["ready"], "degraded", "ready")
    c.start("die", check=1)
    true(b"cannot do that" in c.p.stderr, f"the VMM's words: {c.p.stderr!r}")
    # what is no UTF-8, or would command a terminal, is told as bytes
    vm = c.start("degraded bytes")
    equal(c.host.status(vm)["failed_units"].strip(), r"b\xff\xe2\x80\xc2\x9b.service", "units")
    c.start("die bytes", check=1)
    true("\\xff\u2026\\xc2\\x9b1m".encode() in c.p.stderr, f"the VMM's bytes: {c.p.stderr!r}")
    for words in ("noagent", "wrongsecret", "unready"):
        c.start(words, "--start-timeout=1s", check=5)
        true(b"not ready within" in c.p.stderr, f"{words}: {c.p.stderr!r}")
    vm = c.start("wordy")
    equal(c.host.out("logs", "--source=supervisor", vm).count("x" * 900), 1, "a long line of the agent")
    c.end(vm, "clean")
    c.start("junk")	# a broken call costs its connection only
    vm = c.start("reset")
    end = time.monotonic() + 5
    while c.host.status(vm)["boots"] < 2 and time.monotonic() < end:
        time.sleep(0.1)
    c.host.run("wait", "--for=ready", "--timeout=5s", vm, check=0)
    equal(c.host.status(vm)["boots"], 2, "boots")
    c.end(vm, "clean")


def checks_layers(c):
    """What a supervisor must hash, a child of its own hashes: nothing of that stays."""
    notes = c.host.state / "store/verified"
    for note in notes.iterdir():
        note.unlink()
    vm = c.start()
    true(list(notes.iterdir()), "nothing was hashed")
    pid = c.host.status(vm)["supervisor_pid"]
    true("libcrypto" not in pathlib.Path(f"/proc/{pid}/maps").read_text(), "libcrypto stays in the supervisor")
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    names = sorted(pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].rsplit(b"/")[-1] for child in children)
    true(b"uvms-supervisor" not in names and b"" not in names, f"its children: {names}")
    c.end(vm, "clean")
    layer = max((c.host.state / "store/blobs/sha256").iterdir(), key=lambda blob: blob.stat().st_size)
    layer.chmod(0o644)
    with layer.open("r+b") as f:
        f.write(b"damage")
    c.start(check=1)
    true(b"is damaged" in c.p.stderr, f"{c.p.stderr!r}")


def updates(c):
    """A guest that reboots goes on with the image that its name means by then, in the same process; else it stays."""
    image, d = f"up{os.getpid()}", pathlib.Path(tempfile.mkdtemp())
    go = c.host.runtime / "go"

    def build(text):
        (d / "text").write_text(text)
        c.host.run("image", "build", image, "--from-dir", str(d), check=0)
        return next(i["digest"] for i in json.loads(c.host.out("image", "ls", "--json")) if i["name"] == image)

    def until(what, message):
        end = time.monotonic() + 10
        while not what():
            true(time.monotonic() < end, f"{message}: {c.host.status(vm)}")
            time.sleep(0.1)

    try:
        first = build("one")
        vm = f"update{os.getpid()}"
        c.host.names.append(vm)
        c.host.env["FAKE"] = "resetgo"
        c.host.run("run", "-d", "--backend=null", "--name", vm, image, check=0)
        before = c.host.status(vm)
        equal(before["image_digest"], first, "the first image")
        second = build("two")
        true(f"update: {second[:19]}" in c.host.out("status", vm), "status says what waits")
        c.host.run("refresh", vm, check=0)
        go.touch()
        until(lambda: c.host.status(vm)["incarnation"] != before["incarnation"], "there is no other incarnation")
        c.host.run("wait", "--for=ready", "--timeout=10s", vm, check=0)
        until(lambda: c.host.status(vm)["boots"] == 2, "with the same image it boots again as it is")
        after = c.host.status(vm)
        equal((after["image_digest"], after["supervisor_pid"]), (second, before["supervisor_pid"]), "the second image")
        true("update:" not in c.host.out("status", vm), "nothing waits")
        true("its image or kernel is a new one" in c.host.out("events", "-a", "-n", vm), "the event")
        c.end(vm, "clean")
    finally:
        go.unlink(missing_ok=True)
        shutil.rmtree(d)
        c.host.run("kill", "-q", vm)
        c.host.run("rm", vm)
        c.host.run("image", "rm", image)


def called(c, vm, port):
    """What comes out where the guest's call of PORT goes, and how long it took."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        t = time.monotonic()
        s.connect(str(c.host.runtime / vm / f"current/vsock/v_{port}"))
        try:
            s.sendall(b"x")
            return s.recv(10), time.monotonic() - t
        except (ConnectionResetError, BrokenPipeError):
            return b"", time.monotonic() - t


def brokers(c, vm):
    return [int(line.split()[0]) for line in c.host.processes() if f"uvms-broker\\x00{vm}\\x00" in line]


def services(c):
    """Who may ask for a guest's port, what becomes of a call that nobody answers, and a broker that dies or is stopped."""
    vm = c.start("", "--connect=9050:nobody:1", "--connect=9051:slow:1", "--accept=80")
    own = c.host.status(vm)
    for who in (vm, "nobody", "../x", ""):
        s = dial(c, vm)
        send_call(s, "Dial", **{"from": who, "port": 80})
        true("only the supervisor" in json.dumps(answer(s)), f"we are not the supervisor of {who!r}")
    answered, took = called(c, vm, 9050)
    true(answered == b"" and took < 1, f"a VM that does not run: {answered} after {took}")
    # a peer that does not answer, ours to be stopped
    slow = c.host.runtime / "slow/i"
    slow.mkdir(parents=True)
    (slow.parent / "current").symlink_to("i")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(slow / "control"))
        deaf.listen()
        answered, took = called(c, vm, 9051)
        true(answered == b"" and 1 < took < 4, f"a supervisor that does not answer: {answered} after {took}")
    shutil.rmtree(slow.parent)
    first = brokers(c, vm)
    os.kill(first[0], signal.SIGKILL)
    until(lambda: len([p for p in brokers(c, vm) if p not in first]), 1, 5, "another broker")
    equal(called(c, vm, 9050)[0], b"", "the other one")
    os.kill(brokers(c, vm)[0], signal.SIGSTOP)
    until(lambda: c.host.status(vm).get("stopped"), "broker", 2, "what is stopped")
    until(lambda: c.host.status(vm).get("stopped"), None, 5, "it goes on")
    c.host.run("refresh", vm, check=0)
    equal(called(c, vm, 9050)[0], b"", "after a refresh")
    equal(c.host.status(vm)["supervisor_pid"], own["supervisor_pid"], "the supervisor lived")
    c.end(vm, "clean")
    p = c.host.run("run", "-d", "--backend=null", "--connect=1:unix:/run/x", "nothing", check=2)
    true(b"not supported yet" in p.stderr, p.stderr)
    c.host.run("run", "-d", "--backend=null", "--connect=1:a:1", "--connect=1:b:1", "nothing", check=2)


def hostile_broker(c):
    """What breaks the rules of the broker's channel ends that broker, never the supervisor."""
    head = """#!/usr/bin/python3
import array, os, socket, time
channel = socket.socket(fileno=3)
def say(op, rule, ident=1, n=0, rest=b"\\0\\0"):
    fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * n))] if n else []
    channel.sendmsg([bytes([op, rule]) + rest + ident.to_bytes(4, "little")], fds)
%s
time.sleep(1000)
"""
    bad = ["say(1, 1)", "say(1, 255)", "say(2, 0)", "say(2, 0, 1, 1)", "say(3, 0)", "say(0, 0)", "say(99, 0)",
           "say(1, 0, 1, 1)", "say(1, 0, 1, 8)", "say(1, 0, 1, 0, b'xy')", "channel.send(b'x')", "channel.send(bytes(100000))",
           "channel.close()\nos.close(3)\nos.abort()", "os._exit(0)"]
    with Bin(c) as programs:
        for line in bad:
            programs.install("uvms-broker", (head % line).encode())
            vm = c.start("", "--connect=9050:nobody:1")
            log = lambda: c.host.out("logs", "--source=supervisor", vm)
            until(lambda: "another one is started" in log(), True, 10, line)
            equal("broke the rules" in log(), line[0] in "sc" and "abort" not in line, line)
            equal(c.host.status(vm)["state"], "running", line)
            c.end(vm, "clean")
        programs.install("uvms-broker", b"#!/bin/false\n")
        vm = c.start("", "--connect=9050:nobody:1")
        until(lambda: "can call no service any more" in log(), True, 10, "it is given up")
        equal((c.host.status(vm)["state"], brokers(c, vm)), ("running", []), "without one")
        c.end(vm, "clean")
        # a flood: the supervisor is paced
        programs.install("uvms-broker", (head % "while True: say(1, 0)").encode())
        vm = c.start("", "--connect=9050:nobody:1")
        pid = c.host.status(vm)["supervisor_pid"]
        cpu = lambda: sum(int(n) for n in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
        before = cpu()
        time.sleep(1)
        true(cpu() - before < 0.5 * os.sysconf("SC_CLK_TCK"), f"{cpu() - before} ticks in a second")
        c.end(vm, "clean")


def reboots(c):
    """A guest that reboots again and again does not push out what is kept of the others."""
    vm = c.start("resets")
    end = time.monotonic() + 60
    while (c.host.status(vm)["boots"] < 201 or c.host.status(vm)["state"] != "running") and time.monotonic() < end:
        time.sleep(0.1)
    equal(c.host.status(vm)["boots"], 201, "boots")
    c.end(vm, "clean")
    kept = [json.loads(line) for line in c.host.out("events", "-a", "-n", "--json", vm).splitlines()]
    told = [e for e in kept if e["event"] == "state"]
    true(128 <= len(told) <= 128 + 3, f"{len(told)} changes of state are told")
    equal([e["event"] for e in kept].count("omitted"), 1, "that others are left out")
    equal((told[-2]["state"], told[-1]["state"], told[-1]["outcome"]), ("stopping (agent)", "stopped", "clean"), "the end")
    log = c.host.out("logs", "--source=supervisor", vm)
    equal(log.count(": ready ("), 1, "lines of it in the log")


def control_socket(c):
    """Varlink as another client would speak it; bad manners cost the connection only."""
    vm = c.start()
    path = c.host.runtime / vm / "current/control"

    def dial():
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(path))	# waits for room in the listener's queue
        s.settimeout(5)
        return s

    def call(s, text):
        s.sendall(text.encode() + b"\0")
        data = b""
        while not data.endswith(b"\0"):
            more = s.recv(65536)
            if not more:
                return None
            data += more
        return json.loads(data[:-1])

    s = dial()
    info = call(s, '{"method":"org.varlink.service.GetInfo"}')
    true("io.uvms.VM" in info["parameters"]["interfaces"], f"{info}")
    text = call(s, '{"method":"org.varlink.service.GetInterfaceDescription","parameters":'
                   '{"interface":"io.uvms.VM"}}')["parameters"]["description"]
    true("method Stop" in text, "the description")
    status = call(s, '{"method":"io.uvms.VM.Status"}')["parameters"]["status"]
    equal(status["name"], vm, "status")
    equal(call(s, '{"method":"io.uvms.VM.None"}')["error"], "org.varlink.service.MethodNotFound", "method")
    equal(call(s, '{"method":"io.uvms.VM.Wait","parameters":{"for":7}}')["error"],
          "org.varlink.service.InvalidParameter", "parameter")
    equal(call(s, '{"method":"io.uvms.VM.OpenPort","parameters":{"port":1023}}')["error"],
          "org.varlink.service.PermissionDenied", "the agent's port")
    for bad in ("nonsense", "[]", "{}", '{"method":"a\\u0000b"}'):
        equal(call(dial(), bad), None, bad)
    silent = [dial() for _ in range(100)]	# more than it serves at once
    silent[0].sendall(b"{")
    for each in silent:
        each.close()
    time.sleep(0.2)
    equal(call(dial(), '{"method":"io.uvms.VM.Status"}')["parameters"]["status"]["state"], "running", "after it")


def no_descriptors(c):
    """A supervisor that has no descriptor for who calls waits for one, and does not spin meanwhile."""
    vm = c.start()
    pid = c.host.status(vm)["supervisor_pid"]
    used = {int(n) for n in os.listdir(f"/proc/{pid}/fd")}
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    cpu = lambda: sum(int(n) for n in pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(len(used) + 1)) - used), limits[1]))
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(c.host.runtime / vm / "current/control"))
            before = cpu()
            time.sleep(1)
            true(cpu() - before < 0.3 * os.sysconf("SC_CLK_TCK"), f"{cpu() - before} ticks in a second")
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            s.sendall(b'{"method":"io.uvms.VM.Status"}\0')
            s.settimeout(5)
            true(b"parameters" in s.recv(65536), "who has waited is answered")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    c.end(vm, "clean")


def strangers(c):
    """Who calls home without the secret, or says nothing, gets nothing."""
    vm = c.start()
    home = c.host.runtime / vm / "current/vsock/v_1023"
    idle = []
    for i in range(40):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(home))
        s.settimeout(3)
        if i % 2:
            try:
                s.sendall(os.urandom(i))
            except OSError:
                pass	# it was one too many, and is closed already
        idle.append(s)
    s = socket.socket(socket.AF_UNIX)
    for each in idle:
        each.close()
    time.sleep(0.2)
    s.connect(str(home))
    s.settimeout(15)
    s.sendall(struct.pack("<IBBH", 4 + 1 + 32 + 16, 1, 0, 0) + struct.pack("<IB", 1, 2) + bytes(48))
    equal(s.recv(10), b"", "a wrong secret")
    for _ in range(300):	# its log does not grow with them
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(home))
        s.sendall(struct.pack("<IBBH", 4 + 1 + 32 + 16, 1, 0, 0) + struct.pack("<IB", 1, 2) + bytes(48))
        s.settimeout(15)
        s.recv(10)
        s.close()
    lines = c.host.out("logs", "--source=supervisor", vm).count("without the secret")
    equal(lines, 200, "lines in the supervisor's log")
    equal(c.host.status(vm)["state"], "running", "state")
    c.end(vm, "clean")


def owner(c):
    """A foreground VM (its CLI holds the connection) is stopped when the CLI goes."""
    c.host.env["FAKE"] = "refuse acpi"
    p = c.host.popen("run", "--backend=null", "--name", "owned", "nothing", stdin=subprocess.PIPE,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    c.host.names.append("owned")
    end = time.monotonic() + 60
    while time.monotonic() < end and "owned" not in c.host.out("ls", "-q").split():
        time.sleep(0.05)
    c.host.run("wait", "--for=ready", "--timeout=60s", "owned", check=0)
    p.kill()
    p.wait()
    s = c.ended("owned", "acpi", 20)
    equal(s["outcome"], "acpi", "outcome")


def notify(c):
    """Started as systemd does: READY=1 when the guest is ready, STOPPING=1 at SIGTERM, then a clean end."""
    vm = c.start()
    c.host.run("stop", vm, check=0)
    path = f"{c.host.runtime}-notify"
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(path)
    s.settimeout(10)

    def until(word):
        while word not in (text := s.recv(4096).decode()):
            pass
        return text

    try:
        p = subprocess.Popen([vmtest.BUILD / "uvms-supervisor", vm], env=dict(c.host.env, NOTIFY_SOCKET=path))
        until("READY=1")
        equal(c.host.status(vm)["state"], "running", "state")
        c.host.run("refresh", vm, check=0)
        until("RELOADING=1")
        until("READY=1")
        p.terminate()
        until("STOPPING=1")
        equal(p.wait(timeout=10), 0, "status")
        equal(c.host.status(vm)["outcome"], "clean", "outcome")
    finally:
        os.unlink(path)


def until(what, value, seconds, message):
    end = time.monotonic() + seconds
    while what() != value:
        if time.monotonic() > end:
            raise vmtest.Failure(f"{message}: {what()!r}, want {value!r}")
        time.sleep(0.01)


def takeover(c):
    """uvms-vsockd is replaced, but not without end; what it cannot go on with is said."""
    def fds(s):
        return len(os.listdir(f"/proc/{s['supervisor_pid']}/fd"))

    def kill(vm):
        s = c.host.status(vm)
        os.kill(s["vsockd_pid"], signal.SIGKILL)
        until(lambda: c.host.status(vm)["vsockd_replaced"], s["vsockd_replaced"] + 1, 2, "replaced")

    vm = c.start()
    time.sleep(0.2)	# those who asked for its start have left
    before = fds(c.host.status(vm))
    for _ in range(5):
        kill(vm)
    equal(fds(c.host.status(vm)), before, "descriptors")
    os.kill(c.host.status(vm)["vsockd_pid"], signal.SIGKILL)	# it has served nobody: one too many
    true("again and again" in c.ended(vm, "crashed", 1)["cause"], "cause")
    vm = c.start("refuse")	# also on the way to the end
    p = c.host.popen("stop", "--timeout=3s", vm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: c.host.status(vm)["state"], "stopping (power button)", 3, "state")
    kill(vm)
    p.wait()
    c.ended(vm, "forced")


def sigstop(c):
    """Who is stopped goes on after a second; the namespace's init, stopped for good, is the end."""
    def init_of(vm):
        for line in c.host.processes():
            if "uvms-init" in line:
                return int(line.split()[0])
        raise vmtest.Failure("no init")

    vm = c.start()
    init = init_of(vm)
    for pid, who in ((c.host.status(vm)["vmm_pid"], "vmm"), (init, "namespace")):
        os.kill(pid, signal.SIGSTOP)
        until(lambda: c.host.status(vm).get("stopped"), who, 1, "stopped")
        until(lambda: c.host.status(vm).get("stopped"), None, 2, "goes on")
    os.kill(init, signal.SIGSTOP)
    until(lambda: c.host.status(vm).get("stopped"), "namespace", 1, "stopped")
    until(lambda: c.host.status(vm).get("stopped"), None, 2, "goes on")
    os.kill(init, signal.SIGSTOP)
    true("stopped (SIGSTOP) again and again" in c.ended(vm, "crashed", 1)["cause"], "cause")


HOSTILE = """#!/usr/bin/python3
import array, os, socket, time
keeper = socket.socket(fileno=6)
def fds(n): return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * n))] if n else []
def keep(op, slot, n=0, cookie=0): keeper.sendmsg([bytes([op, slot, 0, 0]) + cookie.to_bytes(4, "little")], fds(n))
%s
time.sleep(1000)
"""


def hostile_keeper(c):
    """What breaks the rules of the keeper's channel ends that vsockd, never the supervisor."""
    bad = ["keep(99, 0)", "keep(1, 48, 1)", "keep(1, 0, 0)", "keep(1, 0, 2)", "keep(2, 0, 1)", "keep(7, 0, 0, 5)",
           "keeper.send(b'x')", "keeper.send(bytes(100000))", "keep(3, 0)", "keep(6, 0, 0, 1)", "keep(8, 0, 1)", "keep(9, 0)", "keep(10, 0)",
           "while True: keep(1, 7, 1)", "keeper.close()\nos.close(6)\nos.abort()"]
    bin = pathlib.Path(c.host.env["UVMS_VMM_NULL"]).parent.parent / "bin"
    bin.mkdir()
    for program in ("uvms", "uvms-supervisor", "uvms-guest", "uvms-init"):
        shutil.copy(vmtest.BUILD / program, bin)
    before = vmtest.UVMS
    vmtest.UVMS = str(bin / "uvms")
    try:
        for what in bad:
            (bin / "uvms-vsockd").write_text(HOSTILE % what)
            (bin / "uvms-vsockd").chmod(0o755)
            vm = c.start(check=None)
            c.ended(vm, "crashed")
            true("again and again" in c.host.status(vm)["cause"], f"{what}: {c.host.status(vm)['cause']}")
    finally:
        vmtest.UVMS = before


# What a new uvms-vsockd may do instead of taking over, and what the present one may.
DEAF = HOSTILE % "pass"
HEIRS = {
    "there is none": None,
    "it cannot be executed": b"junk",
    "it says that it waits, and hangs": (HOSTILE % "keep(10, 0)").encode(),
    "it ends": b"#!/bin/false\n",
    "it says something else": (HOSTILE % "keep(4, 0)").encode(),
    "it says that it waits, and ends": (HOSTILE % "keep(10, 0)\nos._exit(0)").encode(),
    "it hangs up": (HOSTILE % "keeper.close()\nos.close(6)").encode(),
    "it sends a descriptor": (HOSTILE % "keep(10, 0, 1)").encode(),
    "it says nothing": DEAF.encode(),
}


def refresh_vsockd(c):
    """A new uvms-vsockd that is of no use does not come into service; an old one that hands nothing over does not stay."""
    with Bin(c) as programs:
        vm = c.start()
        pid = c.host.status(vm)["vsockd_pid"]
        before = open_fds(c.host.status(vm)["supervisor_pid"])
        for what, program in HEIRS.items():
            (programs.dir / "uvms-vsockd").unlink(missing_ok=True)
            if program:
                programs.install("uvms-vsockd", program)
            true("was not replaced" in c.host.out("refresh", vm), what)
            equal(c.host.status(vm)["vsockd_pid"], pid, what)
        os.kill(pid, 0)
        c.host.run("refresh", "-q", vm, check=0)
        after = [f for f in before if "/state/store" not in f and not f.endswith("/trace")]
        until(lambda: open_fds(c.host.status(vm)["supervisor_pid"]), after, 2, "descriptors")
        programs.upgrade("0.1.0")
        true(c.host.out("refresh", vm).endswith("0.1.0)\n"), "a good one")
        true(c.host.status(vm)["vsockd_pid"] != pid, "another one")
        c.end(vm, "clean")
        for old, how in ((DEAF, "were reset"), (HOSTILE % "keeper.recv(8), keeper.recv(8)\nos.abort()", "were reset"),
                         (HOSTILE % "keeper.recv(8), keeper.recv(8), keep(9, 0)", "was not replaced")):
            programs.install("uvms-vsockd", old.encode())
            vm = c.start()
            programs.upgrade("0.1.0")
            true(how in c.host.out("refresh", vm), how)
            equal(c.host.status(vm)["state"], "running", "state")
            c.end(vm, "clean")


class Bin:
    """The programs in a directory of their own, where they can be replaced as a package does: by rename."""

    PROGRAMS = ("uvms", "uvms-supervisor", "uvms-vsockd", "uvms-guest", "uvms-init", "uvms-broker")

    def __init__(self, c):
        self.dir = pathlib.Path(c.host.env["UVMS_VMM_NULL"]).parent.parent / "bin"
        self.dir.mkdir()
        for program in self.PROGRAMS:
            shutil.copy(vmtest.BUILD / program, self.dir)
        self.before = vmtest.UVMS

    def __enter__(self):
        vmtest.UVMS = str(self.dir / "uvms")
        return self

    def __exit__(self, *args):
        vmtest.UVMS = self.before

    def install(self, program, data):
        new = self.dir / (program + ".new")
        new.write_bytes(data)
        new.chmod(0o755)
        new.rename(self.dir / program)

    def upgrade(self, version):
        """Another version, as it says of itself."""
        for program in self.PROGRAMS[:3]:
            data = (vmtest.BUILD / program).read_bytes()
            self.install(program, data.replace(b"0.1.0\0", version.encode() + b"\0"))


def open_fds(pid):
    """What they are, without numbers: vsockd and its channels are others afterwards."""
    try:
        return sorted(re.sub(r":\[\d+\]", "", os.readlink(f"/proc/{pid}/fd/{n}")) for n in os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:	# one was closed while we looked
        return None


def dial(c, vm):
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(c.host.runtime / vm / "current/control"))
    s.settimeout(10)
    return s


def send_call(s, method, **parameters):
    s.sendall(json.dumps({"method": f"io.uvms.VM.{method}", "parameters": parameters}).encode() + b"\0")


def answer(s):
    data = b""
    while not data.endswith(b"\0"):
        more = s.recv(1)	# no further: another answer may follow
        true(more, "a connection was lost")
        data += more
    return json.loads(data[:-1])


def refresh_elsewhere(c):
    """The new programs may lie in a directory of their own, as with Nix: whose `uvms` it is says where."""
    vm = c.start()
    pid = c.host.status(vm)["supervisor_pid"]
    with Bin(c) as programs:
        programs.upgrade("0.3.0")
        equal(c.host.out("refresh", vm), f"{vm}: refreshed (0.1.0 -> 0.3.0)\n", "refresh")
        equal(os.readlink(f"/proc/{pid}/exe"), str(programs.dir / "uvms-supervisor"), "the supervisor's program")
        vsockd = c.host.status(vm)["vsockd_pid"]
        equal(os.readlink(f"/proc/{vsockd}/exe"), str(programs.dir / "uvms-vsockd"), "uvms-vsockd's program")
    equal(c.host.out("refresh", vm), f"{vm}: refreshed (0.3.0 -> 0.1.0)\n", "and back")
    s = dial(c, vm)
    send_call(s, "Refresh", program="relative/path")
    true("error" in answer(s), "a relative path")
    c.end(vm, "clean")
    unnamed = c.host.out("run", "-d", "--backend=null", "nothing").strip()
    c.host.names.append(unnamed)
    c.host.run("refresh", unnamed, check=0)
    c.host.run("stop", unnamed, check=0)
    true(not (c.host.state / "vms" / unnamed).exists(), "an unnamed one is forgotten, refreshed or not")


def refresh(c):
    """Another program, the same process: whoever waits goes on waiting, and nothing is left open."""
    with Bin(c) as programs:
        vm = c.start()
        s = c.host.status(vm)
        pid = s["supervisor_pid"]
        waiting, half, whole = dial(c, vm), dial(c, vm), dial(c, vm)
        send_call(waiting, "Wait", **{"for": "stopped"})
        half.sendall(b'{"method":"io.uvms.VM.Sta')
        console = c.host.popen("console", vm, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        wait = c.host.popen("wait", vm)
        time.sleep(0.5)
        before = open_fds(pid)
        programs.upgrade("0.2.0")
        equal(c.host.out("refresh", vm), f"{vm}: refreshed (0.1.0 -> 0.2.0)\n", "refresh")
        equal(c.host.out("refresh", "--all"), f"{vm}: refreshed (0.2.0 -> 0.2.0)\n", "refresh")
        true(b"0.2.0" in pathlib.Path(f"/proc/{pid}/exe").read_bytes(), "the program")
        before = [f for f in before if "/state/store" not in f and not f.endswith("/trace")]	# were for its start
        until(lambda: open_fds(pid), before, 2, "descriptors")
        for _ in range(100):
            c.host.run("refresh", "-q", vm, check=0)
        now = c.host.status(vm)
        true(now["vsockd_pid"] != s["vsockd_pid"], "uvms-vsockd is another one")
        equal(now, dict(s, vsockd_pid=now["vsockd_pid"]), "status")
        until(lambda: open_fds(pid), before, 2, "descriptors after 100")
        half.sendall(b'tus"}\0{"method":"io.uvms.VM.Status"}\0')
        equal(answer(half)["parameters"]["status"]["name"], vm, "a call in two pieces")
        send_call(whole, "Status")
        equal(answer(whole)["parameters"]["status"]["state"], "running", "a connection that had been idle")
        equal((console.poll(), wait.poll()), (None, None), "those who wait")
        c.end(vm, "clean")
        equal(answer(waiting)["parameters"]["status"]["outcome"], "clean", "the answer to Wait")
        equal(wait.wait(timeout=5), 0, "uvms wait")
        console.stdin.close()
        console.wait(timeout=5)


def refresh_refused(c):
    """A new program that is missing, broken, older or of no use costs nothing; and not every moment will do."""
    def refused(vm, status, *words):
        p = c.host.run("refresh", vm, check=status)
        for word in words:
            true(word.encode() in p.stderr, f"{word}: {p.stderr!r}")
        equal(c.host.status(vm)["state"], "running", "state")
        until(lambda: open_fds(c.host.status(vm)["supervisor_pid"]), before, 2, "descriptors")

    with Bin(c) as programs:
        vm = c.start()
        before = open_fds(c.host.status(vm)["supervisor_pid"])
        for bad in (b"#!/bin/false\n", b"#!/bin/sh\nkill -9 $$\n", b"#!/bin/sh\necho what >&2; exit 2\n", b"junk",
                    b"#!/nowhere\n"):
            programs.install("uvms-supervisor", bad)
            refused(vm, None, "goes on as it was")
        (programs.dir / "uvms-supervisor").unlink()
        refused(vm, 6, "install uvms whole")
        programs.upgrade("0.1.0")
        vmm = c.host.status(vm)["vmm_pid"]
        os.kill(vmm, signal.SIGSTOP)
        until(lambda: c.host.status(vm).get("stopped"), "vmm", 1, "stopped")
        c.host.run("refresh", vm, check=0)	# it waits until that is over
        equal(c.host.run("refresh").returncode, 2, "no name")
        equal(c.host.run("refresh", "--all", vm).returncode, 2, "both")
        equal(c.host.run("refresh", "nobody").returncode, 3, "nobody")
        c.end(vm, "clean")
        equal(c.host.run("refresh", vm).returncode, 3, "stopped")
        equal(c.host.out("refresh", "--all"), "", "none")


def refresh_in_state(c):
    """While it boots it goes on; while it starts or stops it is told to wait. Deadlines stay."""
    with Bin(c):
        c.host.env["FAKE"] = "unready"
        c.host.names.append("boots")
        p = c.host.popen("run", "-d", "--backend=null", "--name", "boots", "--start-timeout=4s", "nothing",
                         stderr=subprocess.PIPE)
        until(lambda: "boots" in c.host.out("ls", "-q").split() and c.host.status("boots")["state"], "booting", 10,
              "state")
        begin = time.monotonic()
        for _ in range(5):
            c.host.run("refresh", "boots", check=0)
        true(b"did not become ready" in p.communicate(timeout=10)[1], "the starter's answer")
        true(time.monotonic() - begin < 6, "the deadline")
        c.host.env["FAKE"] = "mute"
        c.host.names.append("starts")
        p = c.host.popen("run", "-d", "--backend=null", "--name", "starts", "nothing", stderr=subprocess.DEVNULL)
        until(lambda: "starts" in c.host.out("ls", "-q").split() and c.host.status("starts")["state"], "starting", 10,
              "state")
        true(b"starting" in c.host.run("refresh", "starts", check=4).stderr, "starting")
        c.host.run("kill", "-q", "starts", check=0)
        p.wait(timeout=10)
        vm = c.start("refuse")
        p = c.host.popen("stop", "-q", "--timeout=3s", vm)
        until(lambda: c.host.status(vm)["state"], "stopping (power button)", 3, "state")
        true(b"ending" in c.host.run("refresh", vm, check=4).stderr, "stopping")
        equal(p.wait(timeout=15), 0, "stop")
        owned = c.host.popen("run", "--backend=null", "--name", "owned", "nothing", stdin=subprocess.PIPE,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        c.host.names.append("owned")
        until(lambda: "owned" in c.host.out("ls", "-q").split() and c.host.status("owned")["state"], "running", 10,
              "state")
        c.host.run("refresh", "owned", check=0)
        owned.kill()
        owned.wait()
        c.ended("owned", "forced", 30)


def refresh_then_die(c):
    """What held before holds afterwards: all of it ends with the supervisor, and a part that dies is noticed."""
    with Bin(c):
        vm = c.start()
        c.host.run("refresh", vm, check=0)
        os.kill(c.host.status(vm)["supervisor_pid"], signal.SIGKILL)
        until(lambda: c.host.processes(), [], 3, "processes")
        equal(c.host.status(vm)["outcome"], "crashed", "outcome")
        vm = c.start()
        c.host.run("refresh", vm, check=0)
        os.kill(c.host.status(vm)["vmm_pid"], signal.SIGKILL)
        c.ended(vm, "crashed", 5)
        vm = c.start()
        c.host.run("refresh", vm, check=0)
        pid = c.host.status(vm)["vsockd_pid"]
        replaced = c.host.status(vm)["vsockd_replaced"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: c.host.status(vm)["vsockd_replaced"], replaced + 1, 2, "replaced")
        os.kill(c.host.status(vm)["supervisor_pid"], signal.SIGTERM)
        c.ended(vm, "clean")


def refresh_killed(c):
    """A supervisor killed at any moment of it takes everything along, and leaves the name free."""
    random.seed(5)
    with Bin(c):
        vm = c.start()
        for i in range(40):
            pid = c.host.status(vm)["supervisor_pid"]
            p = c.host.popen("refresh", vm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.uniform(0, 0.03))
            os.kill(pid, signal.SIGKILL)
            p.wait(timeout=10)
            until(lambda: c.host.processes(), [], 3, "processes")
            c.host.run("start", vm, check=0, timeout=10)
        callers = [c.host.popen("refresh", vm, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(8)]
        ends = sorted(p.wait(timeout=20) for p in callers)	# one at a time; the others are told, or come later
        true(ends[0] == 0 and set(ends) <= {0, 4}, f"eight at once: {ends}")
        for _ in range(10):
            p = c.host.popen("refresh", vm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(random.uniform(0, 0.02))
            p.kill()	# the caller leaves
            p.wait()
        equal(c.host.run("refresh", vm).returncode, 0, "after all that")
        c.end(vm, "clean")


def starters(c):
    """Fifty at once for one name: one wins, the others say that it runs, nothing is left."""
    vm = c.start()
    c.end(vm, "clean")
    many = [c.host.popen("start", vm, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(50)]
    ends = [(p.communicate(timeout=60)[1], p.returncode) for p in many]
    equal([code for _, code in ends].count(0), 1, f"starters that won: {ends}")
    true(all(code in (0, 4) for _, code in ends), f"{ends}")
    c.end(vm, "clean")


def few_descriptors(c):
    """With 64 descriptors a VM starts, or says why it does not; its helpers are replaced."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64) if os.getuid() else (64, hard))
    try:
        vm = c.start()
        for _ in range(3):
            s = c.host.status(vm)
            os.kill(s["vsockd_pid"], signal.SIGKILL)
            until(lambda: c.host.status(vm)["vsockd_replaced"], s["vsockd_replaced"] + 1, 2, "replaced")
        c.end(vm, "clean")
        resource.setrlimit(resource.RLIMIT_NOFILE, (12, hard))
        c.start(check=None)
        true(c.p.returncode in (0, 1, 125), f"{c.p}")
        true(c.p.returncode == 0 or b"open files" in c.p.stderr, f"12 descriptors: {c.p.stderr!r}")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def full(c, where):
    """A directory in which nothing can be written any more: told, nothing left, and it works again after."""
    if os.getuid() != 0:
        raise vmtest.Skip("only root can mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0711", "none", str(where)])
    if mounted.returncode:
        raise vmtest.Skip("no tmpfs can be mounted here")
    try:
        vm = c.start()
        filler = where / ".filler"
        fd = os.open(filler, os.O_WRONLY | os.O_CREAT)
        try:
            while os.write(fd, bytes(4096)):
                pass
        except OSError:
            os.close(fd)
        # what runs goes on, and its stop is not kept from it
        equal(c.host.out("ls", "-q"), f"{vm}\n", "ls")
        os.kill(c.host.status(vm)["vsockd_pid"], signal.SIGKILL)
        time.sleep(0.3)
        c.host.run("stop", vm)
        c.start(check=None)
        true(c.p.returncode == 0 or b"No space left" in c.p.stderr, f"a start: {c.p.stderr!r}")
        for name in (vm, f"s{c.n}"):
            c.host.run("kill", "-q", name)
        filler.unlink()
        for name in (vm, f"s{c.n}"):
            c.host.run("rm", name)
        c.end(c.start(), "clean")
        for name in c.host.names:
            c.host.run("rm", "-f", name)
    finally:
        subprocess.run(["umount", "-l", str(where)])


def full_runtime(c):
    full(c, c.host.runtime)


def full_state(c):
    """STATE/vms, where descriptions and last states are."""
    full(c, c.host.state / "vms")


CASES = {f.__name__.replace("_", "-"): f for f in (ladder, ends, pause, set_sizes, attach, share, snapshot, snapshot_parts, snapshot_owner, snapshot_alone, snapshot_durable, snapshot_names, snapshot_faults, starts, updates, services, hostile_broker, reboots, checks_layers, control_socket, no_descriptors, strangers, owner, notify,
                                                      takeover, sigstop, hostile_keeper, refresh, refresh_elsewhere, refresh_refused, refresh_vsockd,
                                                      refresh_in_state, refresh_then_die, refresh_killed, starters,
                                                      few_descriptors, full_runtime, full_state)}


def run(name, function):
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        host = vmtest.Host(name, state=pathlib.Path(d) / "state")
        fake = pathlib.Path(d) / "fakes"	# where every uid can read it
        shutil.copytree(FAKE.parent, fake)
        shutil.copytree(HERE, pathlib.Path(d) / "component")
        host.env["UVMS_VMM_NULL"] = str(fake / "fake-vmm.py")
        try:
            vmtest.need("mkfs.erofs")
            make_store(host, d)
            function(Case(host))
            for vm in host.names:
                host.run("kill", "-q", vm)
                host.run("rm", vm)
            host.audit()
        except vmtest.Skip as e:
            print(f"skipped: {e}")
            return 1 if vmtest.MUST_RUN else vmtest.SKIP
        except vmtest.Failure as e:
            print(f"FAILED: {name}: {e}", file=sys.stderr)
            for vm in host.names:
                for source in ("supervisor", "vmm", "vsockd"):
                    text = host.run("logs", f"--source={source}", vm).stdout
                    print(f"--- {vm} {source}:\n{text[-1500:].decode(errors='replace')}", file=sys.stderr)
            return 1
        finally:
            host.close()
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], CASES[sys.argv[1]]))
