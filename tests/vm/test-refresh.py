#!/usr/bin/env python3
"""uvms refresh under a running guest: what is connected goes on, byte for byte."""
import hashlib
import importlib.util
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time

import vmtest
from vmtest import clock, equal, main, pause, true

BB = "busybox"
SOAK = os.environ.get("UVMS_SOAK") == "1"
TIMES = 100 if SOAK else 20
CHUNK, CHUNKS = 200000, 60
BULK = 100 << 20


class Exec:
    """A session with a stream of output, in pieces with pauses."""

    def __init__(self, host, vm, data):
        host.run("exec", vm, "sh", "-c", "cat > /tmp/data", input=data, stdin=None, check=0)
        self.want = hashlib.sha256(data * CHUNKS).hexdigest()
        self.p = host.popen("exec", vm, "sh", "-c", f"i=0; while [ $i -lt {CHUNKS} ]; do cat /tmp/data; i=$((i+1)); "
                            "usleep 50000; done; exit 7", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.t = threading.Thread(target=self.read)
        self.t.start()

    def read(self):
        h = hashlib.sha256()
        while data := self.p.stdout.read1(65536):
            h.update(data)
        self.got = h.hexdigest()

    def check(self):
        self.t.join(timeout=120)
        equal(self.p.wait(timeout=10), 7, "the session's status")
        equal(self.got, self.want, "the session's output")


class Forward:
    """A TCP stream there and back; the longest time without a byte is kept."""

    def __init__(self, host, vm, port, bulk):
        self.bulk, self.pauses = bulk, []
        host.run("exec", vm, "sh", "-c", "nc -l -p 80 -e cat >/dev/null 2>&1 </dev/null & sleep 1", check=0)
        self.p = host.popen("forward", vm, f"127.0.0.1:{port}", "80", stderr=subprocess.PIPE)
        self.s = connect(port)
        self.threads = [threading.Thread(target=f) for f in (self.write, self.read)]
        for t in self.threads:
            t.start()

    def write(self):
        block, h = os.urandom(65536), hashlib.sha256()
        for _ in range(self.bulk // 65536):
            self.s.sendall(block)
            h.update(block)
        self.s.shutdown(socket.SHUT_WR)
        self.sent = h.hexdigest()

    def read(self):
        h, n, last = hashlib.sha256(), 0, time.monotonic()
        while n < self.bulk and (data := self.s.recv(65536)):
            now = time.monotonic()
            self.pauses.append((now, now - last))
            last = now
            n += len(data)
            h.update(data)
        self.n, self.got = n, h.hexdigest()

    def alive(self):
        return self.threads[1].is_alive()

    def check(self):
        for t in self.threads:
            t.join(timeout=300)
        equal(self.n, self.bulk, "bytes that came back")
        equal(self.got, self.sent, "the stream's bytes")
        self.s.close()
        self.p.terminate()
        self.p.wait(timeout=10)


def connect(port):
    end = clock() + 30
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=60)
        except OSError:
            if clock() > end:
                raise
            time.sleep(0.05)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def refresh(host, vm):
    """Milliseconds that the command took; the connections have to be kept."""
    begin = time.monotonic()
    text = host.out("refresh", vm)
    true(text.startswith(f"{vm}: refreshed (") and text.endswith(")\n"), f"{text!r}")
    return begin, (time.monotonic() - begin) * 1e3


def streams(host):
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "10000", check=0)
    before = host.status(vm)
    session = Exec(host, vm, os.urandom(CHUNK))
    stream = Forward(host, vm, free_port(), BULK)
    wait = host.popen("wait", vm)
    console = host.popen("console", vm, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    time.sleep(0.3)
    took = []
    for _ in range(TIMES):
        took.append(refresh(host, vm))
        time.sleep(random.uniform(0, 0.25))
    still = stream.alive()
    host.run("exec", vm, "sh", "-c", "echo the console lives > /dev/ttyS0", check=0)
    session.check()
    stream.check()
    equal(wait.poll(), None, "uvms wait")
    equal(console.poll(), None, "uvms console")
    now = host.status(vm)
    equal({k: now[k] for k in ("supervisor_pid", "vmm_pid", "boots", "vsockd_replaced")},
          {k: before[k] for k in ("supervisor_pid", "vmm_pid", "boots", "vsockd_replaced")}, "status")
    host.run("stop", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")
    equal(wait.wait(timeout=10), 0, "uvms wait")
    console.stdin.close()
    true(b"the console lives" in console.stdout.read(), "the console's words")
    console.wait(timeout=10)
    # the pause that a running stream sees: the longest between two bytes while a refresh was under way
    seen = [max([p for at, p in stream.pauses if b <= at <= b + ms / 1e3 + 0.1] or [0]) * 1e3 for b, ms in took]
    others = sorted(p * 1e3 for at, p in stream.pauses if not any(b <= at <= b + ms / 1e3 + 0.1 for b, ms in took))
    print(f"refresh: median {sorted(ms for _, ms in took)[len(took) // 2]:.1f} ms; pause of a stream: median "
          f"{sorted(seen)[len(seen) // 2]:.1f} ms, worst {max(seen):.1f} ms; without: 99.9 % "
          f"{others[len(others) * 999 // 1000] if others else 0:.1f} ms, worst {others[-1] if others else 0:.1f} ms; "
          f"stream at the end: {'running' if still else 'done'}")
    true(max(seen) < 1000 * vmtest.SLOW, f"a stream paused for {max(seen)} ms")


def in_every_moment(host):
    """While it boots and while sessions begin and end; then with a new call of the guest at once."""
    vm = host.name()
    p = host.popen("run", "-d", "--name", vm, BB, "--", "sleep", "10000")
    done = 0
    while p.poll() is None:
        done += host.run("refresh", "-q", vm).returncode == 0
        time.sleep(random.uniform(0, 0.05))
    equal(p.returncode, 0, "the start")
    true(done > 0, "no refresh while it booted")
    failed = []

    def sessions():
        for i in range(TIMES):
            r = host.run("exec", vm, "echo", str(i))
            if (r.returncode, r.stdout) != (0, b"%d\n" % i):
                failed.append((r.returncode, r.stdout, r.stderr))

    threads = [threading.Thread(target=sessions) for _ in range(2)]
    for t in threads:
        t.start()
    n = 0
    while any(t.is_alive() for t in threads):
        equal(host.run("refresh", "-q", vm).returncode, 0, "refresh")
        n += 1
    equal(failed, [], f"sessions while it was refreshed {n} times")
    equal(host.status(vm)["vsockd_replaced"], 0, "resets")
    host.run("stop", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")


STREAM = """
import hashlib, os, socket, sys, threading
s = socket.create_connection(("127.0.0.1", 8080), 60)
block, want, got = os.urandom(65536), hashlib.sha256(), hashlib.sha256()
def write():
    for _ in range(%d):
        s.sendall(block)
        want.update(block)
    s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=write)
t.start()
while data := s.recv(65536):
    got.update(data)
t.join()
print(want.hexdigest() == got.hexdigest())
"""


def published(host):
    """A connection to a published port goes through passt, which stays as it is."""
    spec = importlib.util.spec_from_file_location("everyday", pathlib.Path(__file__).with_name("test-everyday.py"))
    everyday = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(everyday)
    everyday.netns_works()
    with everyday.Outside("refresh") as out:
        vm = host.name()
        out.uvms(host, "run", "-d", "--name", vm, "-p", "8080:80", BB, "--", "sleep", "10000")
        host.run("exec", vm, "sh", "-c", "nc -l -p 80 -e cat >/dev/null 2>&1 </dev/null & sleep 1", check=0)
        before = everyday.passts(host)
        p = subprocess.Popen(["ip", "netns", "exec", out.host, sys.executable, "-c", STREAM % (BULK // 4 // 65536)],
                             stdout=subprocess.PIPE, text=True)
        time.sleep(0.3)
        n = 0
        while p.poll() is None and n < 200:
            refresh(host, vm)
            n += 1
            time.sleep(0.05)
        equal(p.communicate(timeout=300)[0], "True\n", f"the stream, refreshed {n} times")
        equal(everyday.passts(host), before, "passt")
        os.kill(before[0], 9)	# and what watches it watches it still
        end = clock() + 5
        while (now := everyday.passts(host)) in ([], before) and clock() < end:
            time.sleep(0.05)
        true(now not in ([], before), "passt is started again")
        out.uvms(host, "stop", vm)
        equal(host.status(vm)["outcome"], "clean", "outcome")


def isolation(host):
    """What was reached at the start is still so afterwards: for the supervisor, and for the vsockd that it starts."""
    def of(pid):
        status = open(f"/proc/{pid}/status").read().splitlines()
        words = ("Uid", "Gid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "NSpid")
        kept = {line.split(":")[0]: line.split()[1:] for line in status if line.split(":")[0] in words}
        kept["NSpid"] = len(kept.get("NSpid", []))
        kept["dumpable"] = os.stat(f"/proc/{pid}/environ").st_uid == int(kept["Uid"][0]) != 0
        try:
            for ns in ("net", "ipc", "pid", "user", "pid_for_children"):
                kept[ns] = os.readlink(f"/proc/{pid}/ns/{ns}")
        except PermissionError:
            pass	# it cannot be looked at: it is not dumpable, or not ours
        return kept

    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "10000", check=0)
    s = host.status(vm)
    supervisor, vsockd = of(s["supervisor_pid"]), s.get("vsockd_pid") and of(s["vsockd_pid"])
    refresh(host, vm)
    now = host.status(vm)
    after = of(now["supervisor_pid"])
    equal({k: after[k] for k in supervisor}, supervisor, "the supervisor")
    if vsockd:
        true(now["vsockd_pid"] != s["vsockd_pid"], "another vsockd")
        after = of(now["vsockd_pid"])
        for k in ("net", "ipc"):	# of its own each time, but not the host's
            if k in after and k in vsockd:
                own = os.readlink(f"/proc/self/ns/{k}")
                true((after.pop(k) == own) == (vsockd.pop(k) == own), k)
        equal(after, vsockd, "uvms-vsockd")
    os.kill(now["supervisor_pid"], 9)
    end = clock() + 3
    while host.processes() and clock() < end:
        time.sleep(0.05)
    equal(host.processes(), [], "what outlives a killed supervisor")


CASES = {f.__name__.replace("_", "-"): f for f in (streams, in_every_moment, published, isolation)}

if __name__ == "__main__":
    sys.exit(main(CASES))
