#!/usr/bin/env python3
"""Ends a process at every system call it makes, and fails each of them: what is left, and does the next start work?

usage: sweep.py supervisor|client kill|errors [--points=N] [--at=CALL:N[:ERROR]]

A run without faults is recorded with strace: the system calls of the process, as pairs (call, n), since strace
counts each call's number by itself. Then the same is done again for each pair, with SIGKILL or an error injected
there. After each: no call of uvms hangs, nothing is left behind, and the next start of that name works within
5 s. The VM is the null back-end with tests/fakes/fake-vmm.py. UVMS_SOAK=1 takes all points.
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "vm"), str(HERE.parent / "component")]
import vmtest  # noqa: E402
from nothingstore import make_store  # noqa: E402

VERBOSE = "UVMS_SWEEP_VERBOSE" in os.environ
SOAK = os.environ.get("UVMS_SOAK") == "1"
HANG_S = 30			# longer than any deadline that a fault can run into
RESTART_S = 5
ERRORS = {
    "openat": "ENOSPC EIO EMFILE ENOMEM EINTR", "mkdirat": "ENOSPC EIO", "symlinkat": "ENOSPC",
    "renameat": "ENOSPC EIO", "unlinkat": "EIO", "ftruncate": "ENOSPC EIO", "write": "ENOSPC EIO EINTR EAGAIN",
    "pwrite64": "ENOSPC EIO", "fsync": "EIO", "sendfile": "EIO ENOSPC", "read": "EIO EINTR EAGAIN",
    "pread64": "EIO", "fstat": "ENOMEM", "newfstatat": "EIO ENOMEM", "flock": "EINTR", "fcntl": "EMFILE EINTR",
    "socket": "EMFILE ENOMEM", "socketpair": "EMFILE ENOMEM", "pipe2": "EMFILE", "memfd_create": "EMFILE ENOMEM",
    "eventfd2": "EMFILE", "timerfd_create": "EMFILE", "signalfd4": "EMFILE", "epoll_create1": "EMFILE",
    "epoll_ctl": "ENOMEM ENOSPC", "epoll_wait": "EINTR", "pidfd_open": "EMFILE", "inotify_init1": "EMFILE",
    "bind": "ENOMEM EIO", "listen": "ENOMEM", "connect": "ECONNRESET EAGAIN EINTR", "accept4": "EMFILE ECONNABORTED EINTR",
    "sendmsg": "ECONNRESET EAGAIN EINTR", "sendto": "ECONNRESET EAGAIN EINTR", "recvmsg": "ECONNRESET EAGAIN EINTR",
    "recvfrom": "ECONNRESET EAGAIN EINTR", "getrandom": "EINTR EAGAIN", "mmap": "ENOMEM", "brk": "ENOMEM",
    "clone": "EAGAIN ENOMEM", "clone3": "EAGAIN ENOMEM", "vfork": "EAGAIN ENOMEM", "execve": "EIO ENOMEM",
    "unshare": "ENOSPC ENOMEM", "fchmod": "EIO", "fchownat": "EIO", "fchown": "EIO", "waitid": "EINTR",
    "poll": "EINTR", "ppoll": "EINTR", "getdents64": "EIO",
}


class Bad(Exception):
    pass


def wrapper(path, program, options):
    path.write_text(f"#!/bin/sh\nexec strace -D -qqq {options} {program} \"$@\"\n")
    path.chmod(0o755)


class Bench:
    """One runtime directory, and programs of which one is traced."""

    def __init__(self, state, who, number):
        self.who, self.number = who, number
        self.top = pathlib.Path(tempfile.mkdtemp(prefix=f"uvms-sweep-{number}-"))
        self.bin = self.top / "bin"
        self.bin.mkdir()
        (self.top / "run").mkdir(mode=0o711)
        self.env = dict(os.environ, UVMS_STATE_DIR=str(state), UVMS_RUNTIME_DIR=str(self.top / "run"), FAKE="")
        os.chmod(self.top, 0o755)
        self.vm = f"sweep{number}"
        if who == "supervisor":
            shutil.copy(vmtest.BUILD / "uvms", self.bin)
            for helper in ("uvms-vsockd", "uvms-guest", "uvms-init", "uvms-vmm-null"):
                (self.bin / helper).symlink_to(vmtest.BUILD / helper)

    def close(self):
        shutil.rmtree(self.top, ignore_errors=True)

    def program(self, options):
        """The uvms to call when OPTIONS of strace count."""
        if self.who == "supervisor":
            wrapper(self.bin / "uvms-supervisor", vmtest.BUILD / "uvms-supervisor", options)
            return self.bin / "uvms"
        wrapper(self.bin / "traced", vmtest.BUILD / "uvms", options)
        return self.bin / "traced"

    def call(self, program, *args):
        """The exit status; a call that hangs is what must not be."""
        with open(self.top / "out", "w+") as out:	# a file: strace lives on with what it has inherited
            p = subprocess.Popen([program, *args], env=self.env, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT, start_new_session=True)
            try:
                p.wait(timeout=HANG_S)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
                raise Bad(f"uvms {' '.join(args)} hangs")
            out.seek(0)
            return p.returncode, out.read()

    def life(self, program):
        """What is swept: a start, a look, a stop."""
        # the fake agent does not call again as the real one does: what it lost ends with the time-out
        self.call(program, "run", "-d", "--backend=null", "--start-timeout=5s", "--name", self.vm, "nothing")
        self.call(program, "status", self.vm)
        self.call(program, "stop", self.vm)

    def processes(self):
        found = []
        mark = f"UVMS_RUNTIME_DIR={self.top}/run".encode() + b"\0"
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                if mark in (entry / "environ").read_bytes() and \
                        (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    found.append((entry / "cmdline").read_bytes()[:100].replace(b"\0", b" ").decode())
            except OSError:
                pass
        return found

    def audit(self, why):
        end = time.monotonic() + 3
        while True:
            left = self.processes() + [str(p) for p in (self.top / "run").rglob("*") if p.name not in (".accel", ".vmm-version")]
            if not left:
                return
            if time.monotonic() > end:
                raise Bad(f"{why}: left behind: {left}")
            time.sleep(0.02)

    def after(self):
        """Clean up as a user would, then the same name has to work."""
        good = vmtest.UVMS
        self.call(good, "kill", "-q", self.vm)
        self.call(good, "ls")
        self.audit("after the fault")
        start = time.monotonic()
        status, out = self.call(good, "start", self.vm)
        if status == 3:		# it never came to be known
            status, out = self.call(good, "run", "-d", "--backend=null", "--name", self.vm, "nothing")
        if status != 0 or time.monotonic() - start > RESTART_S:
            raise Bad(f"the next start: status {status} after {time.monotonic() - start:.1f} s: {out}")
        status, out = self.call(good, "stop", self.vm)
        if status != 0 or "clean" not in out:
            raise Bad(f"the next stop: status {status}: {out}")
        status, out = self.call(good, "rm", self.vm)
        if status != 0:
            raise Bad(f"rm: status {status}: {out}")
        self.audit("at the end")

    def record(self):
        """Every (call, n) of one life, in order."""
        seen, pairs = {}, []
        for n, step in enumerate((("run", "-d", "--backend=null", "--name", self.vm, "nothing"),
                                  ("status", self.vm), ("stop", self.vm))):
            trace = self.top / f"trace{n}"
            self.call(self.program(f"-o {trace}"), *step)
            if self.who == "supervisor" and n == 0:
                supervisor_trace = trace
        time.sleep(0.2)
        traces = [supervisor_trace] if self.who == "supervisor" else sorted(self.top.glob("trace*"))
        for trace in traces:
            if self.who == "client":
                seen = {}
            for line in trace.read_text(errors="replace").splitlines():
                m = re.match(r"(?:\d+ +)?(\w+)\(", line)
                if m and m[1] not in ("exit_group", "exit", "rt_sigreturn", "restart_syscall"):
                    seen[m[1]] = seen.get(m[1], 0) + 1
                    pairs.append((m[1], seen[m[1]]))
        self.call(vmtest.UVMS, "rm", self.vm)
        return sorted(set(pairs), key=pairs.index)


def inject(point):
    call, n, error = point
    fault = f"error={error}" if error else "signal=SIGKILL"
    return f"-o /dev/null -e trace={call} -e inject={call}:{fault}:when={n}"


def try_point(bench, point):
    start = time.monotonic()
    try:
        return try_point_untimed(bench, point)
    finally:
        if VERBOSE:
            print(f"{point} {time.monotonic() - start:.2f} s", flush=True)


def try_point_untimed(bench, point):
    try:
        bench.life(bench.program(inject(point)))
        bench.after()
        return None
    except Bad as e:
        for name in bench.processes():
            e = Bad(f"{e} (alive: {name})")
        subprocess.run(["pkill", "-KILL", "-f", f"uvms-supervisor.* {bench.vm}$"])
        bench.call(vmtest.UVMS, "rm", "-f", bench.vm)
        return f"{point[0]}:{point[1]}{':' + point[2] if point[2] else ''}: {e}"


def chosen(points, count):
    """COUNT of them, spread evenly; all with SOAK."""
    if SOAK or len(points) <= count:
        return points
    return [points[int(i * len(points) / count)] for i in range(count)]


def sweep(state, who, points):
    workers = os.cpu_count() or 1
    benches = [Bench(state, who, f"{os.getpid()}x{i}") for i in range(workers)]
    try:
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            shares = [points[i::workers] for i in range(workers)]
            results = pool.map(lambda b, share: [try_point(b, p) for p in share], benches, shares)
            return [r for share in results for r in share if r]
    finally:
        for b in benches:
            b.close()


def main():
    who, what = sys.argv[1:3]
    count, at = 120, None
    for word in sys.argv[3:]:
        if word.startswith("--points="):
            count = int(word[9:])
        elif word.startswith("--at="):
            call, n, *error = word[5:].split(":")
            at = [(call, int(n), error[0] if error else None)]
    if not shutil.which("strace"):
        print("skipped: strace is not installed")
        return 1 if vmtest.MUST_RUN else vmtest.SKIP
    top = tempfile.mkdtemp(prefix="uvms-sweep-state-")
    try:
        state = pathlib.Path(top) / "state"
        vmtest.need("mkfs.erofs")
        (pathlib.Path(top) / "run").mkdir()
        make_store(vmtest.Host("sweep", runtime=top + "/run", state=state), top)
        os.chmod(top, 0o755)
        for part in ("fakes", "component"):	# where every uid can read it
            shutil.copytree(HERE.parent / part, pathlib.Path(top) / part)
        os.environ["UVMS_VMM_NULL"] = f"{top}/fakes/fake-vmm.py"
        first = Bench(state, who, f"{os.getpid()}r")
        pairs = first.record()
        first.close()
        if what == "errors":
            points = [(c, n, e) for c, n in pairs for e in ERRORS.get(c, "").split()]
        else:
            points = [(c, n, None) for c, n in pairs]
        points = at or chosen(points, count)
        start = time.monotonic()
        bad = sweep(state, who, points)
        print(f"{who}, {what}: {len(pairs)} system calls recorded, {len(points)} points tried, {len(bad)} bad, "
              f"{time.monotonic() - start:.0f} s")
        for line in bad:
            print(line, file=sys.stderr)
        return 1 if bad or not points else 0
    finally:
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
