#!/usr/bin/env python3
"""The anomaly loop: fail the Nth allocation, the Nth system call of a kind, N = 1, 2, 3 ... until the
operation no longer reaches N. After each: it ended by itself with a plain status, left no process, no
file and no partial blob, and the next run without a fault works.

usage: anomaly.py CASE    (names, build, run, copy)
Samples the Ns so that a case stays short; all of them with UVMS_SOAK=1.
"""
import errno
import hashlib
import json
import mmap
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "component"))
sys.path.insert(0, str(HERE.parent / "vm"))
import vmtest  # noqa: E402
from vmtest import true  # noqa: E402

OPS = ("malloc openat write renameat socket pipe2 memfd_create fork linkat mkdirat fsync ftruncate").split()
ERRORS = {"malloc": errno.ENOMEM, "write": errno.ENOSPC, "openat": errno.EMFILE, "socket": errno.EMFILE,
          "pipe2": errno.EMFILE, "memfd_create": errno.EMFILE, "fork": errno.EAGAIN, "linkat": errno.ENOSPC,
          "renameat": errno.ENOSPC, "mkdirat": errno.ENOSPC, "fsync": errno.EIO, "ftruncate": errno.ENOSPC}
SOAK = os.environ.get("UVMS_SOAK") == "1"
LIBRARY = os.environ["UVMS_ANOMALY_LIBRARY"]


class Injector:
    """The file that the preloaded library shares with us (anomaly.c, struct shared)."""

    def __init__(self, directory, programs):
        path = pathlib.Path(directory) / "anomaly"
        path.write_bytes(bytes(4096))
        path.chmod(0o666)
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), 4096)
        library = pathlib.Path(directory) / "anomaly.so"    # where every uid can read it
        shutil.copy(LIBRARY, library)
        library.chmod(0o755)
        self.env = {"LD_PRELOAD": str(library), "UVMS_ANOMALY_FILE": str(path), "UVMS_ANOMALY_PROGRAMS": programs}

    def arm(self, op, n):
        self.map[0:16 + 4 * len(OPS)] = struct.pack("<IIII", OPS.index(op), n, ERRORS[op], 0) + bytes(4 * len(OPS))

    def disarm(self):
        """Whether the fault was reached; from now on there is none."""
        struct.pack_into("<I", self.map, 4, 0)
        return struct.unpack_from("<I", self.map, 12)[0] > 0

    def count(self, op):
        return struct.unpack_from("<I", self.map, 16 + 4 * OPS.index(op))[0]


def sample(total, most):
    """1 … total: all of it, or the first ones and then spread evenly."""
    if SOAK or total <= most:
        return range(1, total + 1)
    first = most // 3
    rest = most - first
    return sorted(set(range(1, first + 1)) | {first + 1 + i * (total - first - 1) // (rest - 1) for i in range(rest)})


def loop(injector, operation, check, most):
    """OPERATION(env) → CompletedProcess; CHECK(what, process) afterwards, raises vmtest.Failure."""
    injector.arm("malloc", 0)
    p = operation(injector.env)
    check("without a fault", p)
    true(p.returncode == 0, f"without a fault: status {p.returncode}\n{p.stderr.decode(errors='replace')}")
    totals = {op: injector.count(op) for op in OPS}
    true(totals["malloc"] > 0, "nothing was counted: is the library preloaded?")
    only = os.environ.get("UVMS_ANOMALY_ONLY")     # "malloc:3", to look at one
    done = failed = 0
    problems = []
    for op in OPS:
        for n in sample(totals[op], most.get(op, most["*"])):
            if only and only != f"{op}:{n}":
                continue
            injector.arm(op, n)
            what = f"{op} {n} of {totals[op]}"
            try:
                p = operation(injector.env)
                if not injector.disarm():   # it took another way than the first time
                    check(what, p)
                    continue
                true(p.returncode >= 0, f"{what}: killed by signal {-p.returncode}\n{p.stderr[-800:].decode(errors='replace')}")
                true(p.returncode == 0 or p.stderr, f"{what}: status {p.returncode} without a word")
                done += 1
                failed += p.returncode != 0
                check(what, p)
            except vmtest.Failure as e:
                problems.append(f"{what}: {e}")
            except subprocess.TimeoutExpired:
                injector.disarm()
                problems.append(f"{what}: does not end")
    print(f"{done} faults, {failed} of them fatal to the operation; calls: {totals}")
    if problems:
        raise vmtest.Failure(f"{len(problems)} problems:\n" + "\n".join(problems[:40]))


def files_below(path):
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


def names(directory):
    state, runtime = directory / "state", directory / "run"
    env = dict(os.environ, UVMS_STATE_DIR=str(state), UVMS_RUNTIME_DIR=str(runtime))
    injector = Injector(directory, "anomaly-names")
    program = os.environ["UVMS_ANOMALY_NAMES"]
    run = lambda more: subprocess.run([program], env={**env, **more}, capture_output=True, timeout=10)
    first = run({}).stdout

    def operation(more):
        for kept in ("leases", "vms"):
            shutil.rmtree(state / kept, ignore_errors=True)
        return run(more)

    def check(what, p):
        # a fault in the clean-up itself may leave an incarnation; then the next life removes it
        left = files_below(runtime)
        true(len([f for f in left if "i-" in f]) <= 1, f"left in the runtime directory: {left}")
        for lease in (state / "leases").glob("*"):
            true(lease.read_text() == "web", f"half a lease: {lease.name}")
        spec = state / "vms/web/spec.json"
        if spec.exists():
            s = json.loads(spec.read_text())
            true((s.get("backend"), s.get("command")) == ("null", ["true"]), f"half a spec: {s}")
        again = run({})
        true(again.returncode == 0 and again.stdout == first, f"the next life: {again}")
        left = files_below(runtime)
        true(not left, f"left after the next life: {left}")

    loop(injector, operation, check, {"*": 1000})


def build(directory):
    vmtest.need("mkfs.erofs")
    state, runtime, root = directory / "state", directory / "run", directory / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("tiny\n")
    env = dict(os.environ, UVMS_STATE_DIR=str(state), UVMS_RUNTIME_DIR=str(runtime))
    injector = Injector(directory, "uvms")
    uvms = lambda more, *args: subprocess.run([vmtest.UVMS, *args], env={**env, **more}, capture_output=True, timeout=20)
    build_it = lambda more: uvms(more, "image", "build", "tiny", "--from-dir", str(root))
    true(build_it({}).returncode == 0, "the first build")
    want = files_below(state / "store")

    def operation(more):
        shutil.rmtree(state, ignore_errors=True)
        return build_it(more)

    def check(what, p):
        store = state / "store"
        for blob in (store / "blobs/sha256").glob("*"):
            true(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name, f"a partial blob: {blob.name}")
        odd = [f for f in files_below(store) if f not in want] if store.exists() else []
        true(not odd, f"left in the store: {odd}")
        listed = uvms({}, "image", "ls", "-q")
        true(listed.returncode == 0, f"image ls: {listed}")
        true(p.returncode != 0 or listed.stdout == b"tiny\n", f"it said it was built: {listed}")
        again = build_it({})
        true(again.returncode == 0, f"the next build: {again}")
        true(files_below(store) == want, f"the next build left {set(files_below(store)) ^ set(want)}")

    loop(injector, operation, check, {"malloc": 60, "*": 25})


def run(directory):
    supervisor = __import__("test-supervisor")
    vmtest.need("mkfs.erofs")
    host = vmtest.Host("anomaly", state=directory / "state")
    shutil.copytree(HERE.parent / "fakes", directory / "fakes")
    shutil.copytree(HERE.parent / "component", directory / "component")
    host.env["UVMS_VMM_NULL"] = str(directory / "fakes/fake-vmm.py")
    supervisor.make_store(host, directory)
    injector = Injector(directory, "uvms:uvms-supervisor")
    plain = dict(host.env)

    def operation(more):
        host.env = {**plain, **more}
        try:
            return host.run("run", "-d", "--backend=null", "--start-timeout=3s", "--name", "a", "nothing", timeout=20)
        finally:
            host.env = plain

    def check(what, p):
        # when the CLI failed after the supervisor had begun, the VM may still be on its way up
        end = time.monotonic() + 5
        while host.out("ls", "-a", "-q") and time.monotonic() < end:
            host.run("kill", "-q", "a")
            host.run("rm", "a")
        host.audit()
        true(not (host.state / "vms/a").exists(), "the VM is still known")

    try:
        loop(injector, operation, check, {"malloc": 60, "*": 12})
        again = operation({})
        true(again.returncode == 0, f"the last run: {again}")
        check("the last run", again)
    finally:
        host.names.append("a")
        host.close()


def copy(directory):
    """A tree out of the guest: a file is whole or not there, and success means all of it."""
    cp = __import__("test-cp")
    agent = cp.Agent()
    supervisor = cp.Supervisor(directory, "vm", lambda: agent.session().sock)
    source, target = directory / "source", directory / "target"
    (source / "d/e").mkdir(parents=True)
    for i in range(3):
        (source / "d" / f"f{i}").write_bytes(os.urandom(100000))
    os.link(source / "d/f0", source / "d/e/hard")
    (source / "link").symlink_to("d")
    with open(source / "sparse", "wb") as f:
        f.seek(1 << 20)
        f.write(b"x")
        f.truncate(2 << 20)
    injector = Injector(directory, "uvms")
    args = [vmtest.UVMS, "cp", f"vm:{source}", str(target)]

    def operation(more):
        shutil.rmtree(target, ignore_errors=True)
        return subprocess.run(args, env={**supervisor.env, **more}, capture_output=True, timeout=20)

    def check(what, p):
        for name in files_below(target) if target.exists() else []:
            mine, theirs = target / name, source / name
            true(theirs.exists() or theirs.is_symlink(), f"{what}: made {name}")
            if mine.is_file() and not mine.is_symlink():
                true(mine.read_bytes() == theirs.read_bytes(), f"{what}: half a file: {name}")
        true(p.returncode != 0 or files_below(target) == files_below(source), f"{what}: it said it was whole")
        again = operation({})
        true(again.returncode == 0 and files_below(target) == files_below(source), f"{what}: the next copy: {again}")

    try:
        loop(injector, operation, check, {"malloc": 60, "*": 25})
    finally:
        supervisor.close()
        agent.stop()


CASES = {"names": names, "build": build, "run": run, "copy": copy}


def main():
    with tempfile.TemporaryDirectory(prefix="uvms-anomaly-") as d:
        os.chmod(d, 0o755)
        try:
            CASES[sys.argv[1]](pathlib.Path(d))
        except vmtest.Skip as e:
            print(f"skipped: {e}")
            return 1 if vmtest.MUST_RUN else vmtest.SKIP
        except vmtest.Failure as e:
            print(f"FAILED: {sys.argv[1]}: {e}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
