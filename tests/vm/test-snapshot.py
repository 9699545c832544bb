#!/usr/bin/env python3
"""Snapshots: what goes on with one has the past in common, and nothing else; faults while one is made or used."""
import ctypes
import hashlib
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

import vmtest
from vmtest import Skip, clock, equal, main, true

BB = "busybox"
STEP_LOG = str(pathlib.Path(vmtest.BUILD) / "tests/vm/uvms-test-step-log")
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18


def wait_for(what, message, seconds=30):
    end = clock() + seconds
    while not what():
        true(clock() < end, message)
        time.sleep(0.002)


class Kept:
    """The name of a snapshot that is removed at the end, with the volumes of who went on from it."""

    def __init__(self, host, tag="s"):
        self.host, self.name = host, f"{tag}{os.getpid()}"
        self.all = host.state / "snapshots"
        self.path = self.all / self.name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)

    def left(self):
        return [p.name for p in self.all.iterdir() if self.name in p.name]

    def being_made(self):
        """The VMM has begun to write."""
        return any(self.all.glob(f".{self.name}.new/vmm/*"))


def twins(host):
    """Two that go on from one snapshot have nothing in common but their past: the first step that a program makes in
    each is one with the time of now, and with random numbers of its own."""
    vm, kept = host.name(), f"t{os.getpid()}"
    host.run("run", "-d", "--name", vm, "--memory=128M", BB, "--", "sh", "-c",
             "while [ ! -e /tmp/go ]; do sleep 0.1; done; exec /tmp/log /tmp/steps", check=0)
    host.run("cp", STEP_LOG, f"{vm}:/tmp/log", check=0)
    host.run("exec", vm, "sh", "-c", "chmod +x /tmp/log; touch /tmp/go; until [ -s /tmp/steps ]; do sleep 0.1; done",
             check=0)
    both = []
    try:
        saved = time.time()
        host.run("snapshot", "--stop", vm, kept, check=0)
        for _ in range(2):
            time.sleep(max(0, saved + 8 - time.time()))
            restored = time.time()
            host.run("restore", kept, check=0)
            host.run("exec", vm, "sh", "-c", "until [ -e /tmp/steps.done ]; do sleep 0.1; done", check=0, timeout=60)
            with tempfile.TemporaryDirectory() as d:
                host.run("cp", f"{vm}:/tmp/steps", f"{d}/steps", check=0)
                data = pathlib.Path(d, "steps").read_bytes()
            records = sorted(struct.iter_unpack("<QQ16s", data))
            both.append((restored, {n: (at / 1e9, random) for n, at, random in records if n}))
            host.run("stop", vm, check=0)
    finally:
        shutil.rmtree(host.state / "snapshots" / kept, ignore_errors=True)
    (first_at, first), (second_at, second) = both
    common = sorted(set(first) & set(second))
    true(len(common) > 100, "steps that both have made")
    step = next(n for n in common if first[n][1] != second[n][1])
    true(step > common[0], f"they have no past in common: {step}")
    equal([n for n in common if n < step and first[n] != second[n]][:3], [], "the past")
    true(all(first[n][0] < saved + 5 for n in common if n < step), "a step of then was made now")
    equal([n for n in common if n > step and first[n][1] == second[n][1]][:3], [], "random numbers of both")
    for at, steps in ((first_at, first), (second_at, second)):
        # the one at which it was stopped may have asked for the time before
        true(steps[step][0] >= at or first[step][0] == second[step][0], "the time of the first step")
        true(all(at <= steps[n][0] for n in common if n > step), f"the time: {steps[step + 1][0] - at}")


def volumes(host):
    """What is on a volume belongs to what the guest has in mind: it is that of then, on a volume of its own."""
    vm, volume = host.name(), f"v{os.getpid()}"
    with Kept(host) as kept:
        try:
            host.run("run", "-d", "--name", vm, "--memory=128M", f"--volume={volume}:/data:64M", BB, "--",
                     "sleep", "10000", check=0)
            host.run("exec", vm, "sh", "-c", "echo one > /data/a; sync; echo two > /data/b", check=0)
            host.run("snapshot", vm, kept.name, check=0)
            host.run("exec", vm, "sh", "-c", "rm /data/a; echo three > /data/b; sync", check=0)
            host.run("stop", vm, check=0)
            host.run("restore", kept.name, check=0)
            equal(host.out("exec", vm, "sh", "-c", "cat /data/a /data/b; echo 3 > /proc/sys/vm/drop_caches; cat /data/a"),
                  "one\ntwo\none\n", "the volume of then")
            host.run("exec", vm, "sh", "-c", "echo four > /data/c; sync", check=0)
            host.run("stop", vm, check=0)
            equal(host.status(vm)["outcome"], "clean", "outcome")
            host.run("start", vm, check=0)
            equal(host.out("exec", vm, "cat", "/data/c"), "four\n", "it stays that VM's")
            host.run("stop", vm, check=0)
            p = host.run("restore", kept.name, check=4)
            true(b"volume rm" in p.stderr, p.stderr)
        finally:
            host.run("kill", "-q", vm)
            host.run("volume", "rm", volume, f"{volume}.{kept.name}")


def session(host):
    """A session of the VM that is kept goes on, and loses nothing; in one that goes on from it there is none."""
    vm = host.name()
    with Kept(host) as kept:
        host.run("run", "-d", "--name", vm, "--memory=128M", BB, "--", "sleep", "10000", check=0)
        p = host.popen("exec", vm, "sh", "-c", "for n in $(seq 1 400); do echo $n; sleep 0.02; done",
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdout.readline()
        host.run("snapshot", vm, kept.name, check=0)
        equal(host.out("exec", vm, "echo", "new"), "new\n", "a new one")
        out, err = p.communicate(timeout=120)
        equal((p.returncode, out.split()), (0, [str(n).encode() for n in range(2, 401)]), f"the session: {err}")
        equal(host.status(vm)["vsockd_replaced"], 0, "no process died")
        # what is new since then can be taken over like what was there before
        host.run("refresh", vm, check=0)
        equal(host.out("exec", vm, "echo", "refreshed"), "refreshed\n", "after a refresh")
        if host.status(vm).get("vsockd_pid"):
            os.kill(host.status(vm)["vsockd_pid"], signal.SIGKILL)
            equal(host.out("exec", vm, "echo", "replaced"), "replaced\n", "after a kill")
        host.run("snapshot", vm, kept.name + "-again", check=0)
        shutil.rmtree(kept.all / (kept.name + "-again"))
        host.run("stop", vm, check=0)
        host.run("restore", kept.name, check=0)
        equal(host.out("exec", vm, "echo", "new"), "new\n", "a new one")
        host.run("stop", vm, check=0)


def system(host):
    """A system with systemd: PID 1 and all its services stand still, and notice nothing."""
    vm = host.name()
    look = lambda: host.out("exec", vm, "sh", "-c",
                            "systemctl is-system-running; cat /proc/1/cgroup; ls -d /sys/fs/cgroup/*frozen* 2>/dev/null; "
                            "grep -h . /sys/fs/cgroup/*/cgroup.freeze | sort -u; systemctl restart systemd-journald && echo ok")
    with Kept(host) as kept:
        host.run("run", "-d", "--name", vm, "--memory=320M", "debian", check=0)
        before = look()
        true("/init.scope" in before and before.endswith("0\nok\n"), before)
        home = host.out("exec", vm, "sh", "-c", "cat /proc/self/cgroup")
        host.run("exec", vm, "systemd-run", "--unit=ticks", "sh", "-c", "while sleep 0.2; do date +%s >> /run/ticks; done", check=0)
        host.run("snapshot", vm, kept.name, check=0)
        equal(look(), before, "the one that was kept")
        host.run("stop", vm, check=0)
        equal(host.status(vm)["outcome"], "clean", "outcome")
        restored = time.time()
        host.run("restore", kept.name, check=0)
        equal(look(), before, "the one that goes on")
        equal(host.out("exec", vm, "sh", "-c", "cat /proc/self/cgroup"), home, "where sessions are")
        ticks = [int(t) for t in host.out("exec", vm, "cat", "/run/ticks").split()]
        true(ticks[-1] >= int(restored) and not any(restored - 2 < t < int(restored) for t in ticks), f"{restored}: {ticks}")
        host.run("stop", vm, check=0)
        equal(host.status(vm)["outcome"], "clean", "outcome")


def private_tmpfs(path, size):
    """Over PATH, for this process and who it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(CLONE_NEWNS) < 0:
        raise Skip("no mount namespace of its own")
    equal(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), 0, "mount")
    equal(libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 0, f"size={size},mode=711".encode()), 0, "mount")


def full(host):
    """A full file system costs the snapshot, and nothing else."""
    vm = host.name()
    (host.state / "snapshots").mkdir(exist_ok=True, mode=0o711)
    private_tmpfs(host.state / "snapshots", "48m")
    host.run("run", "-d", "--name", vm, "--memory=256M", BB, "--", "sleep", "10000", check=0)
    host.run("exec", vm, "sh", "-c", "head -c 90000000 /dev/urandom > /tmp/fill", check=0)
    with Kept(host) as kept:
        p = host.run("snapshot", vm, kept.name)
        true(p.returncode == 1 and b"No space left" in p.stderr, f"{p.returncode}: {p.stderr}")
        equal(kept.left(), [], "what is left")
        equal(host.status(vm)["state"], "running", "it goes on")
        equal(host.out("exec", vm, "sh", "-c", "wc -c < /tmp/fill"), "90000000\n", "it goes on")
        host.run("exec", vm, "rm", "/tmp/fill", check=0)
        host.run("stop", vm, check=0)
        equal(host.status(vm)["outcome"], "clean", "outcome")


def begun(host, kept):
    """A VM whose snapshot is being written in this moment: its name, and who waits for it."""
    vm = host.name(f"vm{len(host.names)}")
    host.run("run", "-d", "--name", vm, "--memory=512M", BB, "--", "sleep", "10000", check=0)
    host.run("exec", vm, "sh", "-c", "head -c 150000000 /dev/urandom > /tmp/fill", check=0)
    p = host.popen("snapshot", vm, kept.name, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(kept.being_made, "the snapshot does not begin")
    return vm, p


def killed(host):
    """Who dies while a snapshot is made leaves none, and its VM ends by name, or goes on."""
    for who in ("supervisor_pid", "vmm_pid"):
        with Kept(host) as kept:
            vm, p = begun(host, kept)
            os.kill(host.status(vm)[who], signal.SIGKILL)
            _, err = p.communicate(timeout=60)
            equal(p.returncode, 1, f"{who}: {err}")
            host.run("wait", "--timeout=20s", vm, check=0)
            equal(host.status(vm)["outcome"], "crashed", who)
            equal(kept.left(), [], "what is left")
            host.run("start", vm, check=0)
            host.run("stop", vm, check=0)
    with Kept(host) as kept:
        vm, p = begun(host, kept)
        p.kill()
        p.wait()
        wait_for(lambda: host.status(vm)["state"] == "running", "it does not go on")
        equal(host.out("exec", vm, "echo", "there"), "there\n", "it goes on")
        host.run("snapshot", vm, kept.name, check=0)
        equal(kept.left(), [kept.name], "of the one before")
        host.run("stop", vm, check=0)


def stopped(host):
    """A stop while a snapshot is made comes first, where the VMM can be told; it is a clean one in any case."""
    with Kept(host) as kept:
        vm, p = begun(host, kept)
        host.run("stop", vm, check=0)
        _, err = p.communicate(timeout=60)
        equal(host.status(vm)["outcome"], "clean", "outcome")
        if p.returncode:
            true(b"being stopped" in err, err)
            equal(kept.left(), [], "what is left")


def broken(host):
    """State that the VMM cannot read ends the VM by name, also where the manifest agrees with it."""
    vm = host.name()
    with Kept(host) as kept:
        host.run("run", "-d", "--name", vm, "--memory=128M", BB, "--", "sleep", "10000", check=0)
        host.run("snapshot", "--stop", vm, kept.name, check=0)
        equal(host.status(vm)["state"], "stopped", "state")
        state = min((kept.path / "vmm").glob("state*"))
        data = state.read_bytes()
        state.write_bytes(data[:len(data) // 2])
        p = host.run("restore", kept.name, check=1)
        true(state.name.encode() in p.stderr, p.stderr)
        manifest = kept.path / "manifest.json"
        manifest.write_text(manifest.read_text().replace(hashlib.sha256(data).hexdigest(),
                            hashlib.sha256(state.read_bytes()).hexdigest()).replace(f" {len(data)} ", f" {len(data) // 2} "))
        p = host.run("restore", kept.name)
        true(p.returncode != 0, "it is restored")
        equal(host.status(vm)["state"], "stopped", "state")
        print(p.stderr.decode(), file=sys.stderr)


def twice(host):
    """Two at the same time: one VM, and one who is told so."""
    vm = host.name()
    with Kept(host) as kept:
        host.run("run", "-d", "--name", vm, "--memory=128M", BB, "--", "sleep", "10000", check=0)
        host.run("snapshot", "--stop", vm, kept.name, check=0)
        both = [host.popen("restore", kept.name, stderr=subprocess.PIPE) for _ in range(2)]
        said = [p.communicate(timeout=120)[1] for p in both]
        equal(sorted(p.returncode for p in both), [0, 4], f"{said}")
        equal(host.out("exec", vm, "echo", "there"), "there\n", "it runs")
        host.run("stop", vm, check=0)


CASES = {f.__name__.replace("_", "-"): f for f in (twins, volumes, session, system, full, killed, stopped, broken, twice)}

if __name__ == "__main__":
    sys.exit(main(CASES))
