#!/usr/bin/env python3
"""Ends uvms-vsockd at every system call it makes, and fails each of them, while connections run through it.

usage: sweep-vsockd.py kill|errors [--points=N] [--at=WHICH:CALL:N[:ERROR]]

tests/sweep/vsockd-life.c is what is done with it, and says what has to hold; there is no guest in it, but a front-end
that is one. A life has three vsockds: the first, the successor of a killed one, and the successor of a live one. Each
of them is recorded once with strace, as pairs (system call, n), and then struck at each. UVMS_SOAK=1 takes all
points. An error needs a process without its system call filter, which refuses the call that strace puts in the place
of one that is to fail; SIGKILL does not.
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

import sweep
from sweep import vmtest

LIFE = vmtest.BUILD / "tests/sweep/uvms-test-vsockd-life"
PROGRAM = vmtest.BUILD / "uvms-vsockd"
LIFE_S = 30
ERRORS = dict(sweep.ERRORS, readv="EIO EINTR EAGAIN ECONNRESET", recvmmsg="EIO EINTR EAGAIN ECONNRESET",
              sendmmsg="EIO EINTR EAGAIN ECONNRESET", accept4="EMFILE ENOMEM ECONNABORTED EINTR EAGAIN")
START = re.compile(r"getrandom\(.*, 8, 0\)")	# the first call that is vsockd's own, and not the dynamic linker's
del ERRORS["execve"]		# that is strace's, before there is a vsockd
MANY = ("prctl",)		# each one of a long row of equal calls: every 20th will do


class Place:
    """A directory for one life at a time."""

    def __init__(self):
        self.top = pathlib.Path(tempfile.mkdtemp(prefix="uvms-sweep-vsockd-"))
        self.program, self.log = self.top / "traced", self.top / "log"
        # written once: a program that another thread's child holds open for writing cannot be executed
        self.program.write_text(f"#!/bin/sh\nexec strace -D -qqq $UVMS_SWEEP_OPTIONS {PROGRAM} \"$@\" $UVMS_SWEEP_MORE "
                                f"2>>{self.log}\n")
        self.program.chmod(0o755)

    def close(self):
        shutil.rmtree(self.top, ignore_errors=True)

    def life(self, mode, which, options, fds=None):
        """None, or what went wrong; and what was said."""
        self.log.write_text("")
        mark = f"UVMS_SWEEP_PROGRAM={self.program}"
        env = dict(os.environ, UVMS_SWEEP_MODE=mode, UVMS_SWEEP_WHICH=str(which), UVMS_SWEEP_OPTIONS=options,
                   UVMS_SWEEP_PROGRAM=str(self.program), UVMS_SWEEP_SOUND=str(PROGRAM), UVMS_SWEEP_LOG=str(self.log),
                   UVMS_SWEEP_MORE="--no-seccomp" if mode == "errors" else "")
        if fds:
            env["UVMS_SWEEP_FDS"] = fds
        with open(self.top / "out", "w+") as out:	# a file: strace lives on with what it has inherited
            p = subprocess.Popen([LIFE], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
            try:
                bad = f"status {p.wait(timeout=LIFE_S)}" if p.wait(timeout=LIFE_S) else None
            except subprocess.TimeoutExpired:
                bad = "it hangs"
            left = self.left(mark.encode())
            if p.poll() is None:
                p.kill()
                p.wait()
            out.seek(0)
            text = out.read()
        if left:
            bad = f"{bad or ''} left behind: {left}"
        return bad, text + "".join(f"log: {line}" for line in self.log.open())

    def left(self, mark):
        """Processes of this life; those that are there after a while are ended."""
        end = time.monotonic() + 1
        while True:
            found = []
            for entry in pathlib.Path("/proc").iterdir():
                try:
                    if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0") and \
                            (entry / "comm").read_text().strip() != "strace":
                        found.append(int(entry.name))
                except OSError:
                    pass
            if not found or time.monotonic() > end:
                break
            time.sleep(0.01)
        names = [(pid, pathlib.Path(f"/proc/{pid}/comm").read_text().strip()) for pid in found
                 if pathlib.Path(f"/proc/{pid}/comm").exists()]
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        return names


def record(place, what):
    """Every (which, call, n) without a fault, and how many descriptors vsockd has when nothing is connected."""
    points, fds = [], None
    for which in (1, 2, 3):
        trace = place.top / f"trace{which}"
        bad, text = place.life("none", which, f"-o {trace}")
        if bad:
            sys.exit(f"without a fault: {bad}\n{text}")
        fds = re.search(r"descriptors: (\d+)", text)[1]
        seen, own = {}, what == "kill"
        time.sleep(0.05)
        for line in trace.read_text(errors="replace").splitlines():
            m = re.match(r"(?:\d+ +)?(\w+)\(", line)
            if not m or m[1] in ("exit_group", "exit", "rt_sigreturn", "restart_syscall"):
                continue
            n = seen[m[1]] = seen.get(m[1], 0) + 1
            own = own or START.search(line)
            if own and (m[1] not in MANY or n % 20 == 1):
                points.append((which, m[1], n))
    return points, fds


def try_point(place, point, fds):
    which, call, n, error = point
    fault = f"error={error}" if error else "signal=SIGKILL"
    options = f"-o /dev/null -e trace={call} -e inject={call}:{fault}:when={n}"
    start = time.monotonic()
    bad, text = place.life("errors" if error else "kill", which, options, fds)
    name = ":".join(str(word) for word in point if word)
    if sweep.VERBOSE:
        print(f"{name} {time.monotonic() - start:.2f} s", flush=True)
    return f"{name}: {bad}\n{text[-3000:]}" if bad else None


def main():
    what, count, at = sys.argv[1], 60, None
    for word in sys.argv[2:]:
        if word.startswith("--points="):
            count = int(word[9:])
        elif word.startswith("--at="):
            which, call, n, *error = word[5:].split(":")
            at = [(int(which), call, int(n), error[0] if error else None)]
    if not shutil.which("strace"):
        print("skipped: strace is not installed")
        return 1 if vmtest.MUST_RUN else vmtest.SKIP
    workers = os.cpu_count() or 1
    places = [Place() for _ in range(workers)]
    try:
        recorded, fds = record(places[0], what)
        if what == "errors":
            points = [(w, c, n, e) for w, c, n in recorded for e in ERRORS.get(c, "").split()]
        else:
            points = [(w, c, n, None) for w, c, n in recorded]
        points = at or sweep.chosen(points, count)
        start = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            shares = pool.map(lambda i: [try_point(places[i], p, fds) for p in points[i::workers]], range(workers))
            bad = [r for share in shares for r in share if r]
        print(f"vsockd, {what}: {len(recorded)} system calls recorded, {len(points)} points tried, {len(bad)} bad, "
              f"{time.monotonic() - start:.0f} s")
        for text in bad:
            print(text, file=sys.stderr)
        return 1 if bad or not points else 0
    finally:
        for place in places:
            place.close()


if __name__ == "__main__":
    sys.exit(main())
