"""What the VM tests share: a store that is prepared once, VMs with names of their own, the leak audit.

Environment: UVMS_BUILD is the build directory. The store lives in UVMS_BUILD/vm-tests (or
UVMS_VM_TESTS), so that it is made once; each case has a runtime directory of its own.
UVMS_TEST_BACKEND=NAME[:ACCELERATOR] is the back-end of every VM, and it is checked that it was so; without it, the
best there is. UVMS_TEST_VSOCK is whose vsock device they have (--vsock), checked as well. UVMS_TEST_SLOW is a factor for every limit of time, where guests are slower than by emulation (tests/host).
"""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from storepart import store_part

SKIP = 77
BUILD = pathlib.Path(os.environ["UVMS_BUILD"]).resolve()
BASE = pathlib.Path(os.environ.get("UVMS_VM_TESTS", BUILD / "vm-tests"))
UVMS = str(BUILD / "uvms")
BACKEND, _, ACCEL = os.environ.get("UVMS_TEST_BACKEND", "").partition(":")
VSOCK = os.environ.get("UVMS_TEST_VSOCK")
SLOW = float(os.environ.get("UVMS_TEST_SLOW", "1"))
START_SECONDS = 180	# what uvms run waits for a guest to be ready
MUST_RUN = os.environ.get("UVMS_TESTS_MUST_RUN") == "1"


class Skip(Exception):
    pass


class Failure(Exception):
    pass


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"{program} is not installed")


def clock():
    """For limits: seconds that are as long as this host is slow."""
    return time.monotonic() / SLOW


def pause(seconds):
    """Until something has happened that takes at most so long."""
    time.sleep(seconds * SLOW)


def wait_for(what, message, seconds=20):
    """Until WHAT() is true; a Failure with MESSAGE when that takes too long."""
    end = clock() + seconds
    while not what():
        true(clock() < end, message)
        time.sleep(0.2)


def command(verb, *args):
    """The command line of a uvms verb."""
    if verb == "run" and BACKEND:
        asked = [a for a in args if a.startswith(("--backend=", "--accel="))]
        args = [*([] if asked else [f"--backend={BACKEND}", f"--accel={ACCEL or 'auto'}"]), *args]
    if verb == "run" and VSOCK and not any(a.startswith("--vsock=") for a in args):
        args = [f"--vsock={VSOCK}", *args]
    if verb == "run" and SLOW != 1 and not any(a.startswith("--start-timeout=") for a in args):
        args = [f"--start-timeout={START_SECONDS * SLOW:.0f}s", *args]
    if verb == "wait":
        args = [f"--timeout={float(a[10:-1]) * SLOW:.0f}s" if a.startswith("--timeout=") else a for a in args]
    return [UVMS, verb, *args]


class Process(subprocess.Popen):
    """Whose limits of time are longer where guests are slow."""

    def wait(self, timeout=None):
        return super().wait(timeout=timeout and timeout * SLOW)

    def communicate(self, input=None, timeout=None):
        return super().communicate(input=input, timeout=timeout and timeout * SLOW)


def equal(got, want, what=""):
    if got != want:
        raise Failure(f"{what}: got {got!r}, want {want!r}")


def true(value, what):
    if not value:
        raise Failure(what)


class Host:
    """One realm: a state directory (shared, for the store) and a runtime directory of the case's own."""
    LASTING = (".accel", ".vmm-version")	# files that no VM leaves

    def __init__(self, case, runtime=None, state=None):
        self.case = case
        self.state = pathlib.Path(state or BASE / "state")
        self.state.mkdir(parents=True, exist_ok=True, mode=0o711)
        self.runtime = pathlib.Path(runtime or tempfile.mkdtemp(prefix="uvms-t-", dir="/tmp"))
        os.chmod(self.runtime, 0o711)
        self.env = dict(os.environ, UVMS_STATE_DIR=str(self.state), UVMS_RUNTIME_DIR=str(self.runtime))
        self.names = []

    def name(self, tag="vm"):
        name = f"{self.case}-{tag}-{os.getpid()}"[:64].rstrip("-.")
        self.names.append(name)
        return name

    def popen(self, *args, **kw):
        return Process(command(*args), env=self.env, **kw)

    def run(self, *args, check=None, timeout=300, **kw):
        if "input" not in kw:
            kw.setdefault("stdin", subprocess.DEVNULL)
        p = subprocess.run(command(*args), env=self.env, capture_output=True, timeout=timeout * SLOW, **kw)
        if check is not None and p.returncode != check:
            raise Failure(f"uvms {' '.join(args)}: status {p.returncode}, want {check}\n"
                          f"stdout: {p.stdout[-2000:].decode(errors='replace')}\n"
                          f"stderr: {p.stderr[-2000:].decode(errors='replace')}")
        return p

    def out(self, *args, **kw):
        return self.run(*args, check=0, **kw).stdout.decode()

    def status(self, name):
        s = json.loads(self.out("status", "--json", name))
        if BACKEND and s.get("backend") and name in self.names:
            equal((s["backend"], s["accel"]), (BACKEND, ACCEL or s["accel"]), f"back-end of {name}")
            equal(s["vsock"], VSOCK or s["vsock"], f"vsock device of {name}")
        return s

    def processes(self):
        """Processes that know this runtime directory: by environment or by an open file in it."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    continue
                environ = (entry / "environ").read_bytes()
                if b"UVMS_RUNTIME_DIR=" + str(self.runtime).encode() + b"\0" in environ:
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()[:120]!r}")
            except OSError:
                continue
        return found

    def audit(self, seconds=3):
        """Nothing of the case may be left: no process, no file, no mount."""
        end = clock() + seconds
        while True:
            left = self.processes()
            files = [str(p) for p in self.runtime.rglob("*") if p.name not in self.LASTING]
            if not left and not files:
                break
            if clock() > end:
                raise Failure(f"left behind: processes {left}, files {files}")
            time.sleep(0.1)
        mounts = pathlib.Path("/proc/self/mounts").read_text()
        true(str(self.runtime) not in mounts, "a mount is left behind")

    def close(self):
        for name in self.names:
            self.run("kill", "-q", name)
            self.run("rm", name)
        shutil.rmtree(self.runtime, ignore_errors=True)


def link_store(host, target):
    """What the tests need of HOST's store, as hard links where that can be."""
    kernel = next(k["name"] for k in json.loads(host.out("kernel", "ls", "--json")) if k["default"])
    for name, content in store_part(host.state / "store", kernel).items():
        to = target / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            to.write_bytes(content)
        elif content.stat().st_size < 65536:
            shutil.copy(content, to)
        else:
            try:
                os.link(content, to)
            except OSError:
                shutil.copy(content, to)


def become_user(uid):
    """Goes on as UID, with programs and store of its own: an ordinary user has no more."""
    global BUILD, BASE, UVMS
    home = pathlib.Path(tempfile.mkdtemp(prefix="uvms-user-", dir="/tmp"))
    home.chmod(0o755)
    (home / "bin").mkdir()
    for program in ("uvms", "uvms-supervisor", "uvms-vsockd", "uvms-guest", "uvms-init", "uvms-tapd", "uvms-broker"):
        shutil.copy(BUILD / program, home / "bin")
    (home / "state").mkdir()
    host = Host("links")
    link_store(host, home / "state/store")
    host.close()
    for path in [home, *home.rglob("*")]:
        if path.is_dir() or path.stat().st_nlink == 1:
            os.chown(path, uid, uid)
    os.setgroups([os.stat("/dev/kvm").st_gid] if BACKEND else [])
    os.setgid(uid)
    os.setuid(uid)
    os.chdir(home)
    BUILD, BASE, UVMS = home / "bin", home, str(home / "bin/uvms")
    os.environ.update(HOME=str(home), UVMS_BUILD=str(BUILD))
    os.environ.pop("XDG_RUNTIME_DIR", None)
    return home


def main(cases, realm=Host):
    """cases: name -> function(host). argv: the case's name. UVMS_AS_UID: the user to be."""
    name, home = sys.argv[1], None
    if "UVMS_AS_UID" in os.environ:
        if os.geteuid() != 0:
            print("skipped: this runs as an ordinary user anyway")
            return SKIP
        home = become_user(int(os.environ["UVMS_AS_UID"]))
    host = realm(name)
    try:
        cases[name](host)
        for vm in host.names:
            if host.run("status", vm).returncode == 0:
                host.status(vm)	# the back-end that it had
            host.run("kill", "-q", vm)
            host.run("rm", vm)
        host.audit()
        return 0
    except Skip as e:
        print(f"skipped: {e}")
        return 1 if MUST_RUN else SKIP
    except Failure as e:
        print(f"FAILED: {e}", file=sys.stderr)
        for vm in host.names:
            for source in ("supervisor", "vmm", "vsockd", "console"):
                text = host.run("logs", f"--source={source}", vm).stdout[-1500:]
                if text:
                    print(f"--- {vm} {source}:\n{text.decode(errors='replace')}", file=sys.stderr)
        return 1
    finally:
        host.close()
        if home:
            shutil.rmtree(home, ignore_errors=True)
