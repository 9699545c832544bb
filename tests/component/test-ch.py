#!/usr/bin/env python3
"""The supervisor with Cloud Hypervisor as its VMM, played by tests/fakes/fake-ch: good manners, and every kind of bad ones.

usage: test-ch.py CASE

uvms takes this back-end only where KVM works, and says so by RUNTIME/.accel, its own note of this boot; here that note
is written beforehand. For root /dev/kvm must be open to its group, too: there it is an empty file of mode 0660, in a mount
namespace of this process.
"""
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "vm"))
import vmtest  # noqa: E402
from nothingstore import make_store  # noqa: E402
from vmtest import equal, true  # noqa: E402

FAKES = HERE.parent / "fakes"
AT_ONCE = 6	# faults that are tried side by side
IN_NAMESPACE = "UVMS_TEST_OWN_KVM"


def own_dev(directory):
    """A /dev in which kvm can be made: everything else is that of the host."""
    dev = directory / "dev"
    dev.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", dev], check=True)
    for path in pathlib.Path("/dev").iterdir():
        if path.is_symlink() or path.name == "ptmx":	# which looks for pts beside itself
            (dev / path.name).symlink_to(os.readlink(path) if path.is_symlink() else "pts/ptmx")
            continue
        (dev / path.name).mkdir() if path.is_dir() else (dev / path.name).touch()
        subprocess.run(["mount", "--rbind", path, dev / path.name], check=True)
    (dev / "kvm").touch()
    subprocess.run(["mount", "--move", dev, "/dev"], check=True)


def pretend_kvm(directory):
    """A /dev/kvm that root's VMs may open."""
    kvm = directory / "kvm"
    kvm.touch()
    kvm.chmod(0o660)
    try:
        if not os.path.exists("/dev/kvm"):
            own_dev(directory)
        subprocess.run(["mount", "--bind", kvm, "/dev/kvm"], check=True)
    except subprocess.CalledProcessError as e:
        raise vmtest.Skip(f"nothing can be mounted here: {e}") from e


def open_namespace():
    if os.getuid() == 0 and IN_NAMESPACE not in os.environ:
        os.environ[IN_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, *sys.argv])


def say_kvm_works(host):
    boot_id = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    may_open = int(os.access("/dev/kvm", os.R_OK | os.W_OK))
    (host.runtime / ".accel").write_text(f"{boot_id} {may_open} 1 50 0 pretended by a test\n")


class Ch:
    def __init__(self, host, fake):
        self.host = host
        self.fake = fake
        self.n = 0
        self.lock = threading.Lock()

    def program(self, words):
        """A file of its own for each version: what a file says of its version is asked once."""
        tells = "-".join(w.replace("=", "-") for w in words.split() if w.startswith(("version=", "tells=")))
        path = self.fake.parent / f"fake-ch-{tells}"
        with self.lock:
            if tells and not path.exists():
                shutil.copy(self.fake, path)
        return str(path if tells else self.fake)

    def uvms(self, words, *args, **kw):
        """uvms with a fake of its own kind; returns the finished process."""
        env = dict(self.host.env, FAKE=words, UVMS_CLOUD_HYPERVISOR=kw.pop("program", None) or self.program(words))
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run([vmtest.UVMS, *args], env=env, capture_output=True, timeout=120, **kw)

    def start(self, words="", *options, check=0, backend="ch", **kw):
        with self.lock:
            self.n += 1
            vm = f"{self.host.case}{self.n}"
        self.host.names.append(vm)
        p = self.uvms(words, "run", "-d", f"--backend={backend}", "--name", vm, *options, "nothing", **kw)
        if check is not None and p.returncode != check:
            raise vmtest.Failure(f"{words!r}: run: status {p.returncode}, want {check}: {p.stderr.decode()}")
        self.said = p.stderr.decode(errors="replace")
        return vm

    def end(self, vm, how, *options):
        text = self.host.out("stop", *options, vm)
        true(f"({how}:" in text, f"{vm}: {text}, want {how}")
        equal(self.host.status(vm)["outcome"], how, vm)

    def ended(self, vm, how, cause, seconds=10):
        self.host.run("wait", f"--timeout={seconds}s", vm, check=0)
        s = self.host.status(vm)
        equal((s["state"], s["outcome"]), ("stopped", how), f"{vm}: {s}")
        true(re.search(cause, s["cause"]), f"{vm}: its cause is {s['cause']!r}, want {cause!r}")
        return s

    def log(self, vm, source):
        return self.host.run("logs", f"--source={source}", vm).stdout.decode(errors="replace")


def until(what, value, seconds, message):
    end = time.monotonic() + seconds
    while what() != value:
        if time.monotonic() > end:
            raise vmtest.Failure(f"{message}: {what()!r}, want {value!r}")
        time.sleep(0.01)


def life(c):
    vm = c.start()
    s = c.host.status(vm)
    equal((s["backend"], s["accel"], s["state"]), ("ch", "kvm", "running"), "status")
    equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", "exec")
    equal(c.host.run("exec", vm, "sh", "-c", "exit 7").returncode, 7, "its status")
    c.end(vm, "clean")


def vsockd_life(c):
    """With uvms's own vsock device, which the VMM connects to: by a socket without a name."""
    vm = c.start("", "--vsock=uvms")
    s = c.host.status(vm)
    equal((s["backend"], s["vsock"], s["state"]), ("ch", "uvms", "running"), "status")
    true(s["vsockd_pid"], f"{s}")
    equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", "exec")
    equal(c.host.run("exec", vm, "sh", "-c", "exit 7").returncode, 7, "its status")
    data = os.urandom(1 << 20)
    equal(c.host.run("exec", "-i", vm, "cat", input=data).stdout, data, "1 MiB through it")
    equal(c.host.out("inspect", vm).count('"vsock": "uvms"') + c.host.out("inspect", vm).count('"vsock":"uvms"'), 2,
          "inspect: spec and status")
    c.end(vm, "clean")


def vsockd_versions(c):
    """Below v52 there is no such device: said before anything is touched. QEMU has none of its own."""
    for version in (50, 51):
        c.start(f"version={version}", "--vsock=uvms", check=6)
        true(f"vsock by uvms's own device: not supported by cloud-hypervisor {version}, 52 is needed" in c.said, c.said)
    for version in (52, 54):
        vm = c.start(f"version={version}", "--vsock=uvms")
        equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", f"exec, version {version}")
        c.end(vm, "clean")
    c.start("", "--vsock=vmm", backend="qemu", check=6)
    true("--vsock=vmm: not supported by back-end qemu" in c.said, c.said)
    vm = c.start("", "--vsock=vmm")
    equal(c.host.status(vm)["vsock"], "vmm", "status")
    c.end(vm, "clean")
    # whose memory is taken unsealed
    for options, want in (((), (False, False)), (("--vsock=uvms",), (True, True)), (("--backend=qemu",), (True, False))):
        plan = c.uvms("", "run", "--dry-run", *options, "nothing").stdout
        equal((b"\nvsockd " in plan, b"--may-shrink" in plan), want, f"{options}: {plan!r}")


def vsockd_replaced(c):
    """Its death is nothing to the VMM, and the guest's agent calls again; the VMM's connection goes on."""
    vm = c.start("", "--vsock=uvms")
    status = lambda: c.host.status(vm)
    for i in range(1, 4):
        os.kill(status()["vsockd_pid"], signal.SIGKILL)
        until(lambda: status()["vsockd_replaced"], i, 5, "replaced")
        equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", "exec")
    p = c.host.popen("exec", "-i", vm, "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(0.3)
    equal(c.host.out("refresh", vm), f"{vm}: refreshed (0.1.0 -> 0.1.0)\n", "refresh")
    out, err = p.communicate(b"through two of them\n", timeout=20)
    equal((out, p.returncode), (b"through two of them\n", 0), f"a session beside a refresh: {err!r}")
    equal(status()["vsockd_replaced"], 3, "replaced after a refresh")
    c.host.run("pause", vm, check=0)
    c.host.run("resume", vm, check=0)
    equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", "exec after a pause")
    c.end(vm, "clean")
    # and while the guest boots, by its end or by a signal that stops it
    for signo, replaced in ((signal.SIGKILL, 1), (signal.SIGSTOP, 0)):
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            n = len(c.host.names)
            started = pool.submit(c.start, "lag=1", "--vsock=uvms")
            until(lambda: len(c.host.names) - n, 1, 10, "a name")
            vm = c.host.names[-1]
            path = c.host.runtime / vm / "current/status"
            until(lambda: path.exists() and json.loads(path.read_text()).get("vsockd_pid", 0) > 0, True, 10, "its pid")
            os.kill(json.loads(path.read_text())["vsockd_pid"], signo)
            started.result()
        equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", f"exec after signal {signo}")
        equal(status().get("vsockd_replaced", 0), replaced, f"replaced after signal {signo}")
        c.end(vm, "clean")


def vsockd_reboots(c):
    """The VMM hangs up and comes back at each boot: a uvms-vsockd for each connection, and none too many."""
    def boots(vm, n):
        until(lambda: (c.host.status(vm)["boots"], c.host.status(vm)["state"]), (n, "running"), 20, "boots")

    vm = c.start("then=reboot", "--vsock=uvms")
    first = c.host.status(vm)
    boots(vm, 2)
    s = c.host.status(vm)
    equal((s["vmm_pid"], s.get("vsockd_replaced", 0)), (first["vmm_pid"], 0), "the VMM, and what was replaced")
    equal(c.host.out("exec", vm, "echo", "again"), "again\n", "exec")
    equal(c.host.out("refresh", vm), f"{vm}: refreshed (0.1.0 -> 0.1.0)\n", "refresh")
    c.end(vm, "clean")
    vm = c.start("then=storm", "--vsock=uvms")
    boots(vm, 51)
    equal(c.host.out("exec", vm, "echo", "again"), "again\n", "exec")
    c.end(vm, "clean")
    # the next image of the supervisor serves the next boot
    vm = c.start("usr1=reboot", "--vsock=uvms")
    time.sleep(0.2)
    c.host.run("refresh", "-q", vm, check=0)
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)
    boots(vm, 2)
    equal(c.host.out("exec", vm, "echo", "again"), "again\n", "exec")
    c.end(vm, "clean")
    # with the same guest, whose connections are gone then: it is told, and calls again
    vm = c.start("usr1=redial,redial", "--vsock=uvms")
    for _ in range(2):
        pid = c.host.status(vm)["vsockd_pid"]
        os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)
        until(lambda: c.host.status(vm).get("vsockd_pid", pid) not in (0, pid), True, 10, "another uvms-vsockd")
        equal(c.host.out("exec", vm, "echo", "again"), "again\n", "exec")
    equal((c.host.status(vm)["boots"], c.host.status(vm)["state"]), (1, "running"), "boots")
    c.end(vm, "clean")
    # one that hangs while the VMM comes back is in its way
    vm = c.start("usr1=reboot", "--vsock=uvms")
    pid = c.host.status(vm)["vsockd_pid"]
    os.kill(pid, signal.SIGSTOP)
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)
    boots(vm, 2)
    equal(c.host.out("exec", vm, "echo", "again"), "again\n", "exec")
    c.end(vm, "clean")


def vsockd_strangers(c):
    """Its socket has no name, and serves nobody but the VMM; a VMM that goes and does not come back, or does so for
    ever, ends its VM."""
    vm = c.start("", "--vsock=uvms")
    s = c.host.status(vm)
    names = sorted(p.name for p in (c.host.runtime / vm / "current").rglob("*") if p.is_socket())
    equal(names, ["control", "v", "v_1023"], "sockets with a name")
    if os.getuid() == 0:
        for _ in range(60):	# root may follow the VMM's descriptor
            other = socket.socket(socket.AF_UNIX)
            other.settimeout(5)
            other.connect(f"/proc/{s['vmm_pid']}/fd/6")
            try:
                other.sendall(bytes(12))
                equal(other.recv(1), b"", "a stranger's connection")
            except (ConnectionResetError, BrokenPipeError):
                pass
            other.close()
        said = c.log(vm, "supervisor").count("somebody else called the vsock device")
        true(1 <= said <= 20, f"the log says it {said} times")
    equal(c.host.status(vm)["vsockd_pid"], s["vsockd_pid"], "uvms-vsockd")
    equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", "exec")
    c.end(vm, "clean")
    vm = c.start("then=leave", "--vsock=uvms")
    c.ended(vm, "crashed", "hung up on its vsock device, and has not come back", seconds=30)
    vm = c.start("then=vhost-junk", "--vsock=uvms")
    c.ended(vm, "crashed", "uvms-vsockd died again and again")
    vm = c.start("then=dial-storm", "--vsock=uvms")
    c.ended(vm, "crashed", "hangs up and comes back again and again", seconds=60)


def vsockd_shrunk(c):
    """Memory that is cut off under the device costs that VM, by name, and nothing else."""
    other = c.start("", "--vsock=uvms")
    pid = c.host.status(other)["vsockd_pid"]
    vm = c.start("then=shrink", "--vsock=uvms")
    c.ended(vm, "crashed", "the VMM has cut off the guest's memory under its device")
    equal(c.host.out("exec", other, "echo", "hello"), "hello\n", "exec beside it")
    equal(c.host.status(other)["vsockd_pid"], pid, "uvms-vsockd beside it")
    c.end(other, "clean")


# What a call is answered by, what becomes of the VM, and what its cause says.
FAULTS = [
    # it dies
    ("start=die", "crashed", "signal 9"),
    ("start=exit1", "crashed", "cannot do that"),
    *[(f"{call}/{how}", "crashed", f"signal 9.*{re.escape(call)}")
      for call in ("vmm.ping", "vm.create", "vm.boot") for how in ("die", "die-in")],
    ("vmm.ping/die-after", "crashed", "signal 9"),
    ("vm.create/die-after", "crashed", "signal 9"),
    ("vm.boot/die-after", "crashed", "signal 9"),
    ("vm.boot/sys", "crashed", "seccomp filter"),
    ("vm.boot/exit=0", "crashed", "status 0.*vm.boot"),
    ("vm.create/exit=1", "crashed", "status 1.*vm.create"),
    # it refuses
    *[(f"{call}/{status}", "crashed", f"{re.escape(call)}: Error from API: The VM could not boot: .*such.*: os error 2")
      for call, status in (("vmm.ping", 500), ("vm.create", 400), ("vm.create", 404), ("vm.create", 409), ("vm.create", 429),
                           ("vm.create", 500), ("vm.boot", 400), ("vm.boot", 404), ("vm.boot", 409), ("vm.boot", 429),
                           ("vm.boot", 500), ("vm.boot", 503))],
    ("vm.create/empty", "crashed", "vm.create: status 400"),
    ("vm.boot/plain", "crashed", "vm.boot: Internal error: .*no chain"),
    ("vm.boot/parser", "crashed", "vm.boot: .*Invalid request"),
    # it answers nonsense
    ("vm.create/huge", "crashed", "vm.create: its answer is longer"),
    ("vm.create/body", "crashed", "vm.create: it answered more"),
    ("vm.create/headers", "crashed", "vm.create: its answer is longer"),
    ("vm.create/continues", "crashed", "vm.create: its answer is longer"),
    ("vm.create/garbage", "crashed", "vm.create: its answer is not HTTP"),
    ("vm.create/nul", "crashed", "vm.create: its answer is not HTTP"),
    ("vm.create/half-close", "crashed", "vm.create"),
    ("vm.create/two", "crashed", "vm.create: it answered more than"),
    ("vm.create/short", "crashed", "vm.create: it answered more than"),
    *[(f"vm.create/{how}", "crashed", "vm.create: its answer is not HTTP")
      for how in ("negative", "lengths", "nolength", "chunked", "status")],
    ("vm.create/close", "crashed", "vm.create"),
    ("vm.boot/close-in", "crashed", "vm.boot"),
    ("connect/reply", "crashed", "vmm.ping"),
    ("connect/close", "crashed", "vmm.ping"),
    ("lie=47", "crashed", "vmm.ping: its version is too old"),
    ("lie=", "crashed", "vmm.ping: its version is too old"),
    ("vm.create/gone", "crashed", "vm.boot"),
    # it is silent
    ("vmm.ping/silent", "crashed", "vmm.ping: it does not answer"),
    ("vmm.ping/half", "crashed", "vmm.ping: it does not answer"),
    ("vmm.ping/lf", "crashed", "vmm.ping: it does not"),
    # its events
    ("early-off", "clean", "powered off"),
    ("then=long", "crashed", "--event-monitor: an event longer"),
    ("then=nested,off", "clean", "powered off"),
    ("then=garbage,off", "clean", "powered off"),
    ("then=torn,off", "clean", "powered off"),
    ("then=odd,off", "clean", "powered off"),
    ("then=flood,wait,off", "clean", "powered off"),
    # how it ends
    ("then=off", "clean", "powered off"),
    ("then=panic", "panicked", "panicked"),
    ("then=panic,reboot", "panicked", "panicked"),
    ("then=oops", "panicked", "panicked"),
    ("then=exit0", "crashed", "status 0"),
    ("then=exit1", "crashed", "status 1"),
    ("then=term", "crashed", "status 0"),
    ("then=vcpu", "crashed", "status 0"),
    ("then=kill", "crashed", "signal 9"),
    ("then=segv", "crashed", "signal 11"),
    ("then=sys", "crashed", "signal 31.*seccomp filter"),
    ("version=48 then=off", "clean", "powered off"),
    ("version=48 then=exit0", "crashed", "status 0"),
]


def side_by_side(attempt, faults):
    """ATTEMPT tells what is wrong by vmtest.Failure; all of them are tried before it is said."""
    def one(fault):
        begin = time.monotonic()
        try:
            attempt(*fault)
        except (vmtest.Failure, subprocess.TimeoutExpired) as e:
            return f"{fault}: {e}"
        took = time.monotonic() - begin
        return None if took < 40 else f"{fault}: took {took:.1f} s"

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [w for w in pool.map(one, faults) if w]
    true(not wrong, "\n".join([f"{len(wrong)} of {len(faults)}:", *wrong]))


def faults(c):
    """Each ends in a named state, in time, and nothing is left of it."""
    def attempt(words, outcome, cause, *options):
        c.ended(c.start(words, *options, check=None), outcome, cause)

    side_by_side(attempt, FAULTS)


def silent(c):
    """As above: what takes as long as a deadline is."""
    def attempt(words, outcome, cause, *options):
        c.ended(c.start(words, *options, check=None), outcome, cause, 45)

    side_by_side(attempt, [
        ("vm.create/silent", "crashed", "vm.create: it does not answer"),
        ("vm.create/half", "crashed", "vm.create: it does not answer"),
        ("vm.create/long", "crashed", "vm.create: it does not answer"),
        ("vm.boot/silent", "failed", "vm.boot: the VMM did not answer within 30 s"),
        ("vm.boot/half noagent", "failed", "vm.boot: the VMM did not answer within 30 s"),
        ("start=deaf", "crashed", "vmm.ping: it does not answer"),
    ])


# What the fake does, how it is stopped, and what that is called.
STOPS = [
    ("", (), "clean"),
    ("slow acpi", ("--timeout=2s",), "acpi"),
    ("refuse acpi", (), "acpi"),
    ("deaf acpi", ("--timeout=2s",), "acpi"),
    ("deaf", ("--force",), "forced"),
    ("refuse", ("--timeout=1s",), "forced"),
    ("refuse noterm vmm.shutdown/silent", ("--timeout=1s",), "forced"),
    ("refuse vm.power-button/500", ("--timeout=1s",), "forced"),
    ("refuse vm.power-button/silent", ("--timeout=1s",), "forced"),
    ("refuse vm.power-button/garbage", ("--timeout=5s",), "forced"),
    ("refuse vm.power-button/close", ("--timeout=5s",), "forced"),
    *[(f"refuse vm.power-button/{how}", ("--timeout=1s",), "crashed") for how in ("die", "die-in", "die-after", "exit=0")],
    *[(f"refuse noterm vmm.shutdown/{how}", ("--timeout=1s",), "forced")
      for how in ("die", "die-in", "die-after", "500", "garbage", "close", "close-in", "exit=0")],
    ("stop=die", (), "crashed"),
    ("stop=die-after", (), "crashed"),
    ("stop=reboot", (), "forced"),
    # the guest has obeyed: what its VMM does after that changes nothing
    *[(f"noterm vmm.shutdown/{how}", (), "clean") for how in ("silent", "500", "garbage", "close", "die", "exit=1", "delay=1", "204")],
    ("then=hang", ("--timeout=1s",), "forced"),
    ("version=48", (), "clean"),
    ("version=52 refuse acpi", (), "acpi"),
    ("version=54", (), "clean"),
]


def stops(c):
    """The ladder, and what can go wrong on each of its rungs."""
    def attempt(words, options, how):
        vm = c.start(words)
        if "then=" in words:
            time.sleep(0.4)
        c.end(vm, how, *options)

    side_by_side(attempt, STOPS)


def good_manners(c):
    """What is unusual, but right."""
    def attempt(words, *options):
        vm = c.start(words, *options)
        equal(c.host.out("exec", vm, "cat", input=b"x" * 100000), "x" * 100000, "exec")
        c.end(vm, "clean")

    side_by_side(attempt, [
        ("vmm.ping/close-after vm.create/close-after vm.boot/close-after",),
        ("vmm.ping/continue vm.create/continue vm.boot/continue",),
        ("vmm.ping/slow vm.create/slow vm.boot/slow",),
        ("vm.boot/delay=2",),
        ("early-reboot",),
        ("then=odd",),
        ("then=garbage,torn,nested",),
        ("then=junk",),
        ("version=50",),
        ("version=54",),
    ])


def no_program(c):
    """Missing, too old, of no use: it is said before anything is touched."""
    def attempt(program, words, status, *said):
        c.start(words, check=status, program=program)
        for text in said:
            true(text in c.said, f"{text!r} is not in {c.said!r}")

    junk = c.fake.parent / "junk"
    junk.write_text("junk\n")
    attempt("/nowhere", "", None, "/nowhere", "UVMS_CLOUD_HYPERVISOR")
    attempt(str(junk), "", None, "junk")
    junk.chmod(0o755)
    attempt(str(junk), "", None, "cloud-hypervisor")
    attempt(None, "tells=v47.1", None, "version 47: at least 48 is needed, 53 is best")
    attempt(None, "tells=v0", None, "does not tell its version")
    for tells in ("nothing", "fail", "hang"):
        attempt(None, f"tells={tells}", None, "--version does not answer", "UVMS_CLOUD_HYPERVISOR")
    for tells in ("v47.1", "nothing"):	# passed over, and said
        p = c.uvms(f"tells={tells}", "run", "--dry-run", "nothing")
        true(b"cloud-hypervisor" not in p.stdout.split(b"\nvmm", 1)[-1].split(b"\n", 1)[0], f"{p.stdout!r}")


def reboots(c):
    """A reboot stays in the process; where it shall end the VM, the VMM is killed."""
    def boots(vm, n):
        until(lambda: (c.host.status(vm)["boots"], c.host.status(vm)["state"]), (n, "running"), 10, "boots")

    vm = c.start("then=reboot")
    pid = c.host.status(vm)["vmm_pid"]
    boots(vm, 2)
    equal(c.host.status(vm)["vmm_pid"], pid, "the process")
    equal(c.host.out("exec", vm, "echo", "again"), "again\n", "exec")
    c.end(vm, "clean")
    vm = c.start("then=storm")
    boots(vm, 51)
    c.end(vm, "clean")
    c.n += 1
    vm = f"reboots{c.n}"
    c.host.names.append(vm)
    c.uvms("then=reboot", "run", "-d", "--backend=ch", "--name", vm, "nothing", "--", "sleep", "100")
    c.ended(vm, "clean", "powered off")


def hybrid(c):
    """The VMM's directory is believed only as far as it goes: no link, no file, nobody else's socket."""
    for what in ("v=link", "v=file", "v=none", "then=steal"):
        vm = c.start(what)
        time.sleep(0.3 if "then" in what else 0)
        p = c.host.run("exec", vm, "true")
        true(p.returncode == 125 or p.returncode == 6, f"{what}: {p.returncode} {p.stderr!r}")
        true(b"the agent in the guest cannot be reached" in p.stderr, f"{what}: {p.stderr!r}")
        c.end(vm, "clean")
    if os.getuid() != 0:
        return
    vm = c.start()
    v = c.host.runtime / vm / "current/vsock/v"
    v.unlink()
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(v))
    s.listen()
    s.settimeout(0.1)
    p = c.host.run("exec", vm, "true")
    true(p.returncode != 0 and b"not permitted" in p.stderr, f"another's socket: {p.stderr!r}")
    try:
        s.accept()
        raise vmtest.Failure("somebody else's socket got a connection")
    except TimeoutError:
        pass
    c.end(vm, "clean")


def fds_of(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def refresh(c):
    """Another supervisor in the same process: events, calls and console go on, and it knows what version it talks to."""
    def refreshed(words):
        vm = c.start(words)
        s = c.host.status(vm)
        time.sleep(0.2)	# those who asked for its start have left
        equal(c.host.out("refresh", vm), f"{vm}: refreshed (0.1.0 -> 0.1.0)\n", "refresh")
        time.sleep(0.2)
        before = fds_of(s["supervisor_pid"])
        for _ in range(3):
            c.host.run("refresh", "-q", vm, check=0)
        until(lambda: fds_of(s["supervisor_pid"]), before, 2, "descriptors")
        equal(c.host.status(vm), s, "status")
        return vm

    def poke(vm):
        os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)

    vm = refreshed("refuse acpi usr1=reboot")
    equal(c.host.out("exec", vm, "echo", "hello"), "hello\n", "exec")
    poke(vm)
    until(lambda: (c.host.status(vm)["boots"], c.host.status(vm)["state"]), (2, "running"), 5, "a reboot")
    c.end(vm, "acpi")
    for words, how, cause in (("usr1=off", "clean", "powered off"), ("usr1=term", "crashed", "status 0"),
                              ("version=48 usr1=off", "clean", "powered off")):
        vm = refreshed(words)
        poke(vm)
        c.ended(vm, how, cause)
    vm = c.start("usr1=panic1,panic2")
    poke(vm)
    time.sleep(0.2)
    c.host.run("refresh", "-q", vm, check=0)
    poke(vm)
    c.ended(vm, "panicked", "panicked")
    vm = refreshed("usr1=cut")
    poke(vm)
    c.ended(vm, "crashed", "lived on")


def channels(c):
    """A channel that ends, or a process that is not what its channels say."""
    vm = c.start("then=api")	# it is needed again when there is something to be said
    time.sleep(0.4)
    equal(c.host.status(vm)["state"], "running", "state")
    c.host.run("stop", vm)
    c.ended(vm, "crashed", "lived on")
    c.ended(c.start("then=cut"), "crashed", "closed a channel")
    c.ended(c.start("vm.boot/delay=1 then=cut", check=None), "crashed", "closed a channel")
    vm = c.start()
    pid = c.host.status(vm)["vmm_pid"]
    os.kill(pid, signal.SIGSTOP)
    c.end(vm, "forced", "--timeout=1s")


def console(c):
    """Bytes both ways through the terminal; much of it, and a VMM that closes it."""
    vm = c.start()
    p = subprocess.Popen([vmtest.UVMS, "console", vm], env=c.host.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(0.2)
    p.stdin.write(b"hello, \x03\x04\x1a terminal\n")
    p.stdin.flush()
    got = b""
    end = time.monotonic() + 5
    while b"TERMINAL\n" not in got and time.monotonic() < end:
        got += os.read(p.stdout.fileno(), 4096)
    true(b"HELLO, \x03\x04\x1a TERMINAL\n" in got, f"the echo: {got!r}")
    c.host.run("refresh", "-q", vm, check=0)
    p.stdin.write(b"again\n")
    p.stdin.flush()
    while b"AGAIN\n" not in got and time.monotonic() < end:
        got += os.read(p.stdout.fileno(), 4096)
    true(got.endswith(b"AGAIN\n"), f"after a refresh: {got!r}")
    p.stdin.close()
    p.terminate()
    p.wait()
    c.end(vm, "clean")
    true("HELLO, " in c.log(vm, "console"), "the log")
    begin = time.monotonic()
    vm = c.start("then=10MiB,reboot")
    until(lambda: c.host.status(vm)["boots"], 2, 20, "after 10 MiB")
    c.end(vm, "clean")
    log = c.log(vm, "console")	# it keeps what came last, at a bounded rate
    true("fake guest, boot 2\n" in log and re.search(r"\n00[01]\d{6}\n", log), f"the log: {log[-200:]!r}")
    room = (1 << 20) + (128 << 10) * (time.monotonic() - begin)	# SV_LOGFILE_BURST, and SV_LOGFILE_RATE
    true(c.host.status(vm)["console_dropped_bytes"] > (10 << 20) - room, "what was left out is counted")
    vm = c.start("then=hush")
    time.sleep(0.3)
    equal(c.host.status(vm)["state"], "running", "without a console")
    c.end(vm, "clean")


def children(c, vm, name):
    """Processes of the VM's supervisor with that name."""
    pid = c.host.status(vm)["supervisor_pid"]
    found = []
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if pathlib.Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].rsplit(b"/")[-1].startswith(name):
                found.append(int(child))
        except OSError:
            pass
    return found


def network(c):
    """The TAP goes beside vm.add-net; who moves its bytes is replaced."""
    vmtest.need("passt")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise vmtest.Skip("/dev/net/tun cannot be opened")
    vm = c.start("", "--net=user")
    equal(c.log(vm, "vmm").splitlines(), ["fake-ch: vm.add-net: 1 descriptors: uvms0 flags 0x5002"], "the TAP")
    for name in (b"uvms-tapd", b"passt"):
        old = children(c, vm, name)
        equal(len(old), 1, f"{name}: {old}")
        os.kill(old[0], signal.SIGKILL)
        until(lambda: len([p for p in children(c, vm, name) if p != old[0]]), 1, 3, f"another {name}")
    equal(c.host.status(vm)["network"], "user 10.0.2.15", "network")
    c.host.run("refresh", "-q", vm, check=0)
    old = children(c, vm, b"uvms-tapd")
    os.kill(old[0], signal.SIGKILL)
    until(lambda: len([p for p in children(c, vm, b"uvms-tapd") if p != old[0]]), 1, 3, "another one after a refresh")
    c.end(vm, "clean")
    side_by_side(lambda words, how, cause: c.ended(c.start(words, "--net=user", check=None), how, cause), [
        ("vm.add-net/500", "crashed", "vm.add-net: Error from API"),
        ("vm.add-net/die", "crashed", "signal 9.*vm.add-net"),
        ("vm.add-net/die-in", "crashed", "signal 9.*vm.add-net"),
        ("vm.add-net/silent", "crashed", "vm.add-net: it does not answer"),
        ("vm.add-net/close", "crashed", "vm.add-net"),
    ])
    if os.path.ismount("/proc"):
        links = subprocess.run(["ip", "-o", "link"], capture_output=True).stdout
        true(b"uvms0" not in links, "a TAP is left in the host's namespace")


def network_attached(c):
    """A network comes to a VM that runs, with its TAP beside the call; whatever goes wrong, it is there or it is not."""
    vmtest.need("passt")
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        raise vmtest.Skip("/dev/net/tun cannot be opened")
    helpers = lambda vm: len(children(c, vm, b"uvms-tapd") + children(c, vm, b"passt"))

    def attempt(words, status, said, outcome, left=0):
        vm = c.start(words, "--hotplug-slots=1")
        p = c.host.run("attach", "--net=user", vm)
        equal(p.returncode, status, f"{words}: {p.stderr!r}")
        true(re.search(said, p.stderr.decode(), re.S), f"{words}: {p.stderr!r}")
        if outcome == "crashed":
            c.ended(vm, "crashed", "vm.add-net")
            return
        equal((helpers(vm), bool(c.host.status(vm).get("network"))), (left, left > 0), f"{words}: what is left")
        if left:
            c.host.run("detach", "--net", vm, check=0)
            equal((helpers(vm), c.host.status(vm).get("network")), (0, None), f"{words}: detached")
            c.host.run("detach", "--net", vm, check=3)
        c.end(vm, outcome)

    side_by_side(attempt, [
        ("", 0, "", "clean", 2),
        ("old-agent", 6, "older uvms.*restart", "clean"),
        ("vm.add-net/500", 1, "the VMM refused.*Error from API", "clean"),
        ("vm.add-net/die", 1, "the VM ended", "crashed"),
        ("vm.add-net/garbage", 1, "the VM ended", "crashed"),
        ("net-error=110", 5, "did not set it up.*detach", "clean", 2),
        ("net-error=5", 1, "did not set it up.*Input/output error", "clean", 2),
        ("net-deaf", 5, "does not answer", "clean", 2),
        ("net-lost", 0, "", "clean", 2),
    ])
    vm = c.start("usr1=eject", "--hotplug-slots=2")
    c.host.run("attach", "--net=user", vm, check=0)
    c.host.run("attach", vm, "given-up:16M", check=0)
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)
    time.sleep(0.3)
    equal((helpers(vm), c.host.status(vm)["attached"]), (2, ["given-up"]), "what a guest gives up unasked stays its own")
    c.host.run("refresh", "-q", vm, check=0)
    c.host.run("detach", "--net", vm, check=0)
    c.host.run("detach", vm, "given-up", check=0)
    equal((helpers(vm), c.host.status(vm).get("attached"), c.host.status(vm).get("network")), (0, None, None), "detached")
    c.host.run("attach", "--net=user", vm, check=0)
    c.host.run("detach", "--net", vm, check=0)
    c.end(vm, "clean")
    busy = socket.create_server(("127.0.0.1", 0))
    busy_port = busy.getsockname()[1]
    vm = c.start("", "--hotplug-slots=1")
    p = c.host.run("attach", "-p", f"{busy_port}:80", vm, check=1)
    true(b"is in use" in p.stderr, p.stderr)
    equal((helpers(vm), c.host.status(vm).get("network")), (0, None), "a port in use: what is left")
    busy.close()
    c.host.run("attach", "-p", f"{busy_port}:80", vm, check=0)
    for _ in range(3):
        c.host.run("detach", "--net", vm, check=0)
        c.host.run("attach", "-p", f"{busy_port}:80", vm, check=0)
    c.end(vm, "clean")
    for lag, words in ((0, "vm.add-net/delay=1"), (1, "net-deaf")):
        bin = c.fake.parent / f"bin{lag}"
        bin.mkdir()
        (bin / "passt").write_text(f"#!/bin/sh\nsleep {lag}\necho cannot do that >&2\nexit 1\n")
        (bin / "passt").chmod(0o755)
        path = c.host.env["PATH"]
        c.host.env["PATH"] = f"{bin}:{path}"
        vm = c.start(words, "--hotplug-slots=1")
        c.host.env["PATH"] = path
        p = c.host.run("attach", "--net=user", vm, check=1)
        true(re.search(b"ended as soon as it had begun.*cannot do that.*detach --net", p.stderr, re.S), p.stderr)
        equal((len(children(c, vm, b"passt")), c.host.status(vm)["network"][:5]), (0, "lost;"), "lost")
        c.host.run("detach", "--net", vm, check=0)
        equal((helpers(vm), c.host.status(vm).get("network")), (0, None), "detached")
        c.end(vm, "clean")
    vm = c.start("vm.remove-device/delay=1 usr1=net-chatter", "--hotplug-slots=1")
    c.host.run("attach", "--net=user", vm, check=0)
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)
    c.host.run("detach", "--net", vm, check=0)
    equal((helpers(vm), c.host.status(vm).get("network")), (0, None), "detached")
    time.sleep(1)
    equal(c.log(vm, "supervisor").count("its network"), 0, "what a guest says unasked is not written down")
    c.end(vm, "clean")
    vm = c.start("vm.remove-device/500", "--hotplug-slots=1")
    c.host.run("attach", "--net=user", vm, check=0)
    c.host.run("detach", "--net", vm, check=1)
    equal((helpers(vm), c.host.status(vm)["network"]), (2, "user 10.0.2.15"), "it stays")
    c.host.run("refresh", "-q", vm, check=0)
    c.host.run("attach", "--net=user", vm, check=4)
    for name in (b"uvms-tapd", b"passt"):
        old = children(c, vm, name)
        os.kill(old[0], signal.SIGKILL)
        until(lambda: len([p for p in children(c, vm, name) if p != old[0]]), 1, 3, f"another {name}")
    c.host.run("snapshot", vm, "with-a-network", check=6)
    c.end(vm, "clean")
    vm = c.start("", "--net=user", "--hotplug-slots=1")
    c.host.run("detach", "--net", vm, check=3)
    c.end(vm, "clean")
    vm = c.start("", "--hotplug-slots=0")
    c.host.run("attach", "--net=user", vm, check=6)
    c.end(vm, "clean")


def daemons(c, vm):
    """The (fake) virtiofsd of the VM."""
    pid = c.host.status(vm)["supervisor_pid"]
    found = []
    for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            if b"fake-virtiofsd" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
        except OSError:
            pass
    return found


def mounts(c, vm):
    return [(m["path"], m["kind"], m["source"], m["state"]) for m in c.host.status(vm).get("mounts", [])]


def with_virtiofsd(c):
    """A directory to share, with a colon in its name."""
    c.host.env["UVMS_VIRTIOFSD"] = str(c.fake.parent / "fake-virtiofsd")
    shared = c.fake.parent.parent / "shared:/with a colon"
    shared.mkdir(parents=True, exist_ok=True)
    (shared / "marker").touch()
    return shared


def share(c):
    """A directory of the host comes to a VM that runs, and goes; whatever goes wrong, it is there or it is not."""
    shared = with_virtiofsd(c)
    attach = lambda vm, path="/mnt/x", **kw: c.host.run("attach", vm, "--share", f"{shared}:{path}", **kw)
    detach = lambda vm, path="/mnt/x", **kw: c.host.run("detach", "--share", path, vm, **kw)

    def attempt(words, status, said, outcome="clean"):
        vm = c.start(words, "--vsock=uvms", "--hotplug-slots=1")
        p = attach(vm)
        equal(p.returncode, status, f"{words}: {p.stderr!r}")
        true(re.search(said, p.stderr.decode(), re.S), f"{words}: {p.stderr!r}")
        if outcome == "crashed":
            c.ended(vm, "crashed", "vm.add-fs")
            return
        here = status == 0
        equal((len(daemons(c, vm)), mounts(c, vm)), (1, [("/mnt/x", "share", str(shared), "mounted")]) if here else (0, []),
              f"{words}: what is left")
        left = sorted(p.name for p in (c.host.runtime / vm / "current").iterdir() if p.name.startswith(("fs", "share")))
        equal(left, ["fs0", "share0"] if here else [], f"{words}: files that are left")
        detach(vm, check=0 if here else 3)
        equal((daemons(c, vm), mounts(c, vm)), ([], []), f"{words}: detached")
        attach(vm, "/again", check=status if "early" in words else None)
        c.end(vm, outcome)

    side_by_side(attempt, [
        ("", 0, ""),
        ("vfs-rust", 0, ""),
        *([("vfs-qemu", 0, "")] if os.getuid() == 0 else [("vfs-qemu", 6, "runs as root only.*virtio-fs.gitlab.io")]),
        ("vfs-odd", 6, "not supported here.*does not say which virtiofsd it is: something else 7"),
        ("vfs-mute", 6, "not supported here.*does not say which"),
        ("vfs-early mount-deaf", 1, "ended as soon as it had begun.*cannot do that"),
        ("vfs-early vm.add-fs/delay=1", 1, "ended as soon as it had begun.*cannot do that"),
        ("vfs-late mount-deaf", 1, "ended as soon as it had begun.*not any more"),
        ("old-agent", 6, "older uvms.*restart"),
        ("vfs-shut", 1, "the VMM refused.*Failed to read vhost-user message.*virtiofsd said: .*I will not"),
        ("vm.add-fs/500", 1, "the VMM refused.*Error from API"),
        ("vm.add-fs/die", 1, "the VM ended", "crashed"),
        ("vm.add-fs/garbage", 1, "the VM ended", "crashed"),
        ("mount-error=19", 1, "did not mount it.*no driver"),
        ("mount-error=110", 5, "did not mount it.*shows no such device"),
        ("mount-error=5", 1, "did not mount it.*Input/output error"),
        ("mount-deaf", 5, "did not mount it.*does not answer"),
        ("mount-lost", 0, ""),
    ])


def share_life(c):
    """Two directories, each with its own virtiofsd, through all that happens to a VM and to them."""
    shared = with_virtiofsd(c)
    attach = lambda vm, path="/mnt/x", **kw: c.host.run("attach", vm, "--share", f"{shared}:{path}", **kw)
    detach = lambda vm, path="/mnt/x", **kw: c.host.run("detach", "--share", path, vm, **kw)
    states = lambda vm: [(m[0], m[3]) for m in mounts(c, vm)]
    vm = c.start()
    p = attach(vm, check=6)
    true(b"--vsock=uvms" in p.stderr, f"{p.stderr}")
    c.end(vm, "clean")
    vm = c.start("", "--vsock=uvms", "--hotplug-slots=3")
    for path, status in (("/", 2), ("/a/../b", 2), ("/a//b", 2), ("/a/", 2), ("/" + "x" * 255, 2)):
        attach(vm, path, check=status)
    for what, status in (("/nowhere/at/all:/x", 3), (f"{shared}/marker:/x", 1), ("nothing", 2), (":/x", 2)):
        c.host.run("attach", vm, "--share", what, check=status)
    c.host.run("attach", vm, "--share", f"{shared}:/x", "volume", check=2)
    c.host.run("attach", "nobody", "--share", f"{shared}:/x", check=3)
    detach(vm, check=3)
    env = dict(c.host.env, UVMS_VIRTIOFSD="/nowhere/virtiofsd")
    c.host.env, before = env, c.host.env
    other = c.start("", "--vsock=uvms", "--hotplug-slots=1")
    c.host.env = before
    p = attach(other, check=6)
    true(b"virtiofsd is not installed" in p.stderr and b"apt install virtiofsd" in p.stderr, f"{p.stderr}")
    c.end(other, "clean")
    attach(vm, check=0)
    true(c.log(vm, "vmm").endswith("vm.add-fs: fs0 by fs0\n"), c.log(vm, "vmm"))
    attach(vm, check=4)
    p = c.host.run("attach", vm, "--image", "nothing:/mnt/x", check=4)
    p = subprocess.run([vmtest.UVMS, "attach", vm, "--share", f"with a colon:/mnt/y"], env=c.host.env, cwd=shared.parent,
                       stdin=subprocess.DEVNULL)
    equal(p.returncode, 0, "a relative directory")
    equal((len(daemons(c, vm)), states(vm)), (2, [("/mnt/x", "mounted"), ("/mnt/y", "mounted")]), "two")
    c.host.run("attach", vm, "volume:32M", check=0)
    attach(vm, "/mnt/z", check=6)
    c.host.run("detach", vm, "volume", check=0)
    detach(vm, "/mnt/y", check=0)
    equal((len(daemons(c, vm)), states(vm)), (1, [("/mnt/x", "mounted")]), "one")
    c.host.run("refresh", "-q", vm, check=0)
    equal((len(daemons(c, vm)), states(vm)), (1, [("/mnt/x", "mounted")]), "after a refresh")
    c.host.run("pause", vm, check=0)
    attach(vm, "/mnt/z", check=4)
    detach(vm, check=4)
    c.host.run("resume", vm, check=0)
    p = c.host.run("snapshot", vm, "with-a-share", check=6)
    true(b"/mnt/x" in p.stderr, f"{p.stderr}")
    # what is shared is the directory that was there, whatever it is called
    shared.rename(shared.parent / "moved")
    pid, = daemons(c, vm)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: c.host.status(vm).get("stopped"), "virtiofsd0", 1, "stopped")
    until(lambda: c.host.status(vm).get("stopped"), None, 3, "goes on")
    os.kill(pid, signal.SIGUSR1)
    until(lambda: len([p for p in daemons(c, vm) if p != pid]), 1, 5, "another one")
    until(lambda: "lost: virtiofsd was started again" in states(vm)[0][1], True, 3, "what the status says")
    log = lambda: (c.host.runtime / vm / "current/virtiofsd0.log").read_text()
    until(lambda: log().count("serves ['marker'] as"), 2, 5, f"what it serves: {log()}")
    true("-mknod:-setfcap" in log(), log())
    (shared.parent / "moved").rename(shared)
    detach(vm, check=0)
    equal((daemons(c, vm), states(vm)), ([], []), "detached")
    for i in range(6):	# not for ever
        attach(vm, check=0) if i == 0 else None
        pid, = daemons(c, vm)
        os.kill(pid, signal.SIGKILL)
        until(lambda: [p for p in daemons(c, vm) if p == pid], [], 3, "it ends")
        if i < 5:
            until(lambda: len(daemons(c, vm)), 1, 3, "another one")
    until(lambda: states(vm)[0][1][:5], "lost:", 3, "lost")
    true("a share is lost" in c.host.out("events", "-a", "-n", vm), "the event")
    attach(vm, "/mnt/y", check=0)
    detach(vm, check=0)
    equal((len(daemons(c, vm)), states(vm)), (1, [("/mnt/y", "mounted")]), "the lost one is gone")
    c.end(vm, "clean")
    for words, status, said in (("unmount-error=16", 4, b"in use in the guest"), ("unmount-error=5", 1, b"Input/output error"),
                                ("unmount-deaf", 5, b"does not answer"), ("vm.remove-device/500", 1, b"did not take the device")):
        vm = c.start(words, "--vsock=uvms", "--hotplug-slots=1")
        attach(vm, check=0)
        p = detach(vm, check=status)
        true(said in p.stderr, f"{words}: {p.stderr}")
        equal(len(daemons(c, vm)), 1, f"{words}: it stays")
        equal(states(vm)[0][1] == "mounted", "remove" not in words, f"{words}: {states(vm)}")
        c.end(vm, "clean")
    vm = c.start("unmount-error=22", "--vsock=uvms", "--hotplug-slots=1")	# somebody unmounted it
    attach(vm, check=0)
    detach(vm, check=0)
    c.end(vm, "clean")
    vm = c.start("usr1=eject", "--vsock=uvms", "--hotplug-slots=2")
    attach(vm, check=0)
    os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)
    until(lambda: states(vm)[0][1], "lost: the guest gave its device up", 3, "given up")
    c.host.run("refresh", "-q", vm, check=0)
    detach(vm, check=0)
    equal((daemons(c, vm), states(vm)), ([], []), "detached")
    c.end(vm, "clean")
    vm = c.start("usr1=" + ",".join(["reboot"] * 7), "--vsock=uvms", "--hotplug-slots=1")
    attach(vm, check=0)
    for boot in range(2, 9):
        os.kill(c.host.status(vm)["vmm_pid"], signal.SIGUSR1)
        until(lambda: (c.host.status(vm)["boots"], c.host.status(vm)["state"]), (boot, "running"), 20, "the guest boots again")
        until(lambda: (len(daemons(c, vm)), states(vm)), (1, [("/mnt/x", "mounted")]), 5, "mounted again")
    true("a share" not in c.host.out("events", "-a", "-n", vm), "which is no event")
    os.kill(c.host.status(vm)["supervisor_pid"], signal.SIGKILL)
    until(lambda: c.host.processes(), [], 5, "processes")


def image_attached(c):
    """An image's layer comes by a name that only this VM may use, and goes; the store forgets nothing and hashes nothing again."""
    attach = lambda vm, what="extra:/mnt/i", **kw: c.host.run("attach", vm, "--image", what, **kw)
    detach = lambda vm, path="/mnt/i", **kw: c.host.run("detach", "--image", path, vm, **kw)
    root = c.fake.parent.parent / "extra"
    blobs = lambda: {p for p in (c.host.state / "store/blobs/sha256").iterdir() if p.stat().st_size % (2 << 20) == 0}
    before = blobs()

    def build(name, mib):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        (root / name).write_bytes(os.urandom(mib << 20))
        c.host.run("image", "build", name, "--from-dir", str(root), check=0)

    build("extra", 3)
    blob, = blobs() - before
    build("twin", 3)
    build("larger", 7)
    note = lambda: (c.host.state / "store/verified" / blob.name).read_text()
    good = lambda: note().split()[2] == "%d.%09d" % divmod(os.stat(blob).st_ctime_ns, 10**9)
    vm = c.start("", "--hotplug-slots=3")
    lent = c.host.state / "vms" / vm / "lent"
    for what, status in (("none:/x", 3), ("extra", 2), ("extra:/", 2), (":/x", 2)):
        attach(vm, what, check=status)
    attach(vm, check=0)
    equal(mounts(c, vm), [("/mnt/i", "image", "extra", "mounted")], "status")
    equal(c.log(vm, "vmm").splitlines()[-1], f"fake-ch: vm.add-pmem: {blob.stat().st_size} bytes of {lent / blob.name}", "the call")
    equal((lent / blob.name).stat().st_ino, blob.stat().st_ino, "the same file")
    if os.getuid() == 0:
        equal((lent.stat().st_uid, lent.stat().st_gid, lent.stat().st_mode & 0o777),
              (0, c.host.status(vm)["uid"], 0o710), "who may go there")
        equal(blob.stat().st_mode & 0o777, 0o444, "and write nothing")
    true(good(), "it is noted as checked")
    p = attach(vm, "twin:/mnt/j", check=6)
    true(b"could not tell" in p.stderr, f"{p.stderr}")
    attach(vm, "larger:/mnt/j", check=0)
    p = c.host.run("snapshot", vm, "with-an-image", check=6)
    true(b"/mnt/i" in p.stderr, f"{p.stderr}")
    detach(vm, "/mnt/j", check=0)
    c.host.run("detach", "--share", "/mnt/i", vm, check=3)
    c.host.run("refresh", "-q", vm, check=0)
    equal([p.name for p in lent.iterdir()], [blob.name], "lent")
    detach(vm, check=0)
    equal((mounts(c, vm), list(lent.iterdir()), good()), ([], [], True), "detached")
    attach(vm, check=0)
    c.host.run("image", "rm", "extra", check=0)
    equal(((lent / blob.name).exists(), blob.exists()), (True, False), "removed from the store")
    detach(vm, check=0)
    attach(vm, check=3)
    equal((mounts(c, vm), list(lent.iterdir())), ([], []), "nothing is left")
    for words, status, said in (("vm.add-pmem/500", 1, b"the VMM refused"), ("mount-error=19", 1, b"no driver"),
                                ("mount-deaf", 5, b"does not answer"), ("old-agent", 6, b"older uvms")):
        other = c.start(words, "--hotplug-slots=1")
        p = attach(other, "twin:/mnt/i", check=status)
        true(said in p.stderr, f"{words}: {p.stderr}")
        left = c.host.state / "vms" / other / "lent"
        equal((mounts(c, other), list(left.iterdir()) if left.exists() else []), ([], []), f"{words}: what is left")
        c.end(other, "clean")
    attach(vm, "twin:/mnt/i", check=0)
    os.kill(c.host.status(vm)["supervisor_pid"], signal.SIGKILL)
    until(lambda: c.host.processes(), [], 5, "processes")
    equal(len(list(lent.iterdir())), 1, "what a killed one leaves")
    c.host.env["FAKE"], c.host.env["UVMS_CLOUD_HYPERVISOR"] = "", c.program("")
    c.host.run("start", vm, check=0)
    equal((list(lent.iterdir()), mounts(c, vm)), ([], []), "the next start takes it away")
    attach(vm, "twin:/mnt/i", check=0)
    c.end(vm, "clean")
    equal(list(lent.iterdir()), [], "so does its end")


def operations(c):
    """Changes of a VM that runs, each refused, unanswered or the end of the VMM: a refusal changes nothing."""
    vmtest.need("mkfs.ext4")
    refused = "(?:the VMM refused|no snapshot was made).*CALL: Error from API: The VM could not boot: .*os error 2"
    commands = {"vm.pause": ("pause", "VM"), "vm.resume": ("resume", "VM"), "vm.resize": ("set", "--memory=512M", "VM"),
                "vm.add-disk": ("attach", "VM", "data-VM:32M"), "vm.snapshot": ("snapshot", "VM", "snap-VM")}

    def attempt(call, how, status, said, outcome):
        vm = c.start(f"{call}/{how}", "--max-memory=1G", "--memory=256M")
        if call == "vm.resume":
            c.host.run("pause", vm, check=0)
        p = c.host.run(*(word.replace("VM", vm) for word in commands[call]))
        equal(p.returncode, status, f"{p.stderr!r}")
        true(re.search(said.replace("CALL", re.escape(call)), p.stderr.decode(), re.S), f"{p.stderr!r}")
        if outcome == "crashed":
            c.ended(vm, "crashed", re.escape(call))
            return
        equal(c.host.status(vm)["state"], "paused" if call == "vm.resume" else "running", "state")
        c.end(vm, outcome)

    side_by_side(attempt, [(call, *rest) for call in commands for rest in (
        ("500", 1, refused, "clean"), ("429", 1, refused, "clean"), ("die", 1, "the VM ended", "crashed"),
        ("die-in", 1, "the VM ended", "crashed"), ("close", 1, "the VM ended", "crashed"),
        ("garbage", 1, "the VM ended", "crashed"))])


def many(c):
    """16 at once: each has its own of everything, and all of them end."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        vms = list(pool.map(lambda _: c.start(), range(16)))
        states = list(pool.map(c.host.status, vms))
        equal([s["state"] for s in states], ["running"] * 16, "states")
        for key in ("cid", "vmm_pid") + (("uid",) if os.getuid() == 0 else ()):
            equal(len({s[key] for s in states}), 16, key)
        equal(list(pool.map(lambda vm: c.host.out("exec", vm, "echo", vm), vms)), [f"{vm}\n" for vm in vms], "exec")
        list(pool.map(lambda vm: c.end(vm, "clean"), vms))


CASES = {f.__name__.replace("_", "-"): f for f in (life, vsockd_life, vsockd_versions, vsockd_replaced, vsockd_reboots, vsockd_strangers,
                                                    vsockd_shrunk, faults, silent, stops, good_manners, no_program, reboots, hybrid,
                                                    refresh, channels, console, network, network_attached, share, share_life,
                                                    image_attached, operations,
                                                    many)}


def run(name, function):
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        d = pathlib.Path(d)
        host = vmtest.Host(name, state=d / "state")
        host.env["PATH"] = "/usr/bin:/bin:" + host.env["PATH"]	# the fake's interpreter: one that every uid may use
        shutil.copytree(FAKES, d / "fakes")
        shutil.copytree(HERE, d / "component")
        try:
            vmtest.need("mkfs.erofs", "unshare")
            if os.getuid() == 0:
                pretend_kvm(d)
            make_store(host, d)
            say_kvm_works(host)
            function(Ch(host, d / "fakes/fake-ch"))
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
    open_namespace()
    sys.exit(run(sys.argv[1], CASES[sys.argv[1]]))
