#!/usr/bin/env python3
"""uvms forward with a real guest: much, many at once, and its ends."""
import os
import resource
import socket
import subprocess
import sys
import time

import vmtest
from vmtest import clock, equal, main, pause, true

BB = "busybox"
PEER = vmtest.BUILD / "tests/vm/uvms-test-forward-peer"
MIB = int(os.environ.get("UVMS_FORWARD_MIB", "256"))
DIGEST_MIB = 1024 if os.environ.get("UVMS_SOAK") == "1" else 48	# the guest's sha256sum is slow by emulation
PORT = 5000


def start(host):
    vm = host.name()
    host.run("run", "-d", "--name", vm, "-m", "1G", BB, "--", "sleep", "100000", check=0)
    with open(PEER, "rb") as f:
        host.run("exec", vm, "sh", "-c", "cat > /tmp/peer && chmod 755 /tmp/peer", stdin=f, check=0)
    servers = [host.popen("exec", vm, "/tmp/peer", "serve", kind, str(PORT), stdin=subprocess.DEVNULL)
               for kind in ("vsock", "tcp")]
    pause(0.5)
    return vm, servers


class Forward:
    def __init__(self, host, vm, target):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.p = host.popen("forward", vm, str(self.port), target, stderr=subprocess.PIPE)
        self.p.stderr.readline()

    def dial(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def fds(self):
        return len(os.listdir(f"/proc/{self.p.pid}/fd"))

    def close(self):
        self.p.terminate()
        equal(self.p.wait(5), 0, "forward")


def end(host, vm, servers):
    for p in servers:
        p.kill()
        p.wait()
    host.run("stop", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")


def much(host):
    """Each way through the agent and straight to a vsock port, with equal digests (busybox nc, and the peer)."""
    vm, servers = start(host)
    for target in (str(PORT), f"vsock:{PORT}"):
        f = Forward(host, vm, target)
        for way in ("up", "down"):
            begin = time.monotonic()
            equal(subprocess.run([PEER, "bytes", str(f.port), way, str(MIB)], timeout=600,
                                 stdout=subprocess.DEVNULL).returncode, 0, f"{way} by {target}")
            print(f"{target} {way}: {MIB / (time.monotonic() - begin):.0f} MiB/s")
        f.close()
    # the same bytes, not only as many: into the guest and back
    p = host.popen("exec", vm, "sh", "-c", "nc -l -p 6000 -e sha256sum", stdin=subprocess.DEVNULL)
    pause(0.5)
    f = Forward(host, vm, "6000")
    block, n, begin = os.urandom(1 << 20), DIGEST_MIB, time.monotonic()
    digest = subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with f.dial() as s:
        for _ in range(n):
            s.sendall(block)
            digest.stdin.write(block)
        s.shutdown(socket.SHUT_WR)
        got = s.makefile().read().split()[0]
    digest.stdin.close()
    equal(got, digest.stdout.read().split()[0].decode(), "digest, in")
    p.wait(timeout=60)
    print(f"{n} MiB in, equal digests: {n / (time.monotonic() - begin):.0f} MiB/s with sha256sum in the guest")
    script = ("#!/bin/sh\nmkfifo /tmp/q; sha256sum </tmp/q >/tmp/sum & "
              f"i=0; while [ $i -lt {n} ]; do echo $i; cat /tmp/block; i=$((i+1)); done | tee /tmp/q; wait\n").encode()
    host.run("exec", vm, "sh", "-c", "cat >/tmp/out; chmod 755 /tmp/out; head -c 1048576 /dev/urandom >/tmp/block",
             input=script, check=0)
    p = host.popen("exec", vm, "sh", "-c", "nc -l -p 6000 -e /tmp/out; cat /tmp/sum", stdin=subprocess.DEVNULL,
                   stdout=subprocess.PIPE)
    pause(0.5)
    begin = time.monotonic()
    digest = subprocess.Popen(["sha256sum"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with f.dial() as s:
        got = 0
        while chunk := s.recv(1 << 18):
            digest.stdin.write(chunk)
            got += len(chunk)
    equal(got, (n << 20) + sum(len(f"{i}\n") for i in range(n)), "bytes, out")
    digest.stdin.close()
    equal(digest.stdout.read().split()[0], p.communicate(timeout=30)[0].split()[0], "digest, out")
    print(f"{n} MiB out, equal digests: {n / (time.monotonic() - begin):.0f} MiB/s with tee and sha256sum in it")
    f.close()
    end(host, vm, servers)


def many(host):
    """1,000 at once through the agent; all descriptors come back, and it ends with the CLI."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    vm, servers = start(host)
    f = Forward(host, vm, str(PORT))
    before, n = f.fds(), 1000
    begin = time.monotonic()
    conns = []
    for i in range(n):
        conns.append(f.dial())
        conns[-1].sendall(b"u" + bytes(i))
    while f.fds() < before + 2 * n and time.monotonic() - begin < 120 * vmtest.SLOW:
        time.sleep(0.05)
    true(f.fds() >= before + 2 * n, f"descriptors: {f.fds()}")
    print(f"{n} open after {time.monotonic() - begin:.1f} s")
    for i, s in enumerate(conns):
        s.shutdown(socket.SHUT_WR)
    for i, s in enumerate(conns):
        equal(s.recv(8), i.to_bytes(8, "little"), "bytes that arrived")
        s.close()
    until = clock() + 10
    while f.fds() > before + 50 and clock() < until:
        time.sleep(0.05)
    true(f.fds() <= before + 50, f"descriptors: {f.fds()}")
    f.close()
    host.run("exec", vm, "true", check=0)
    end(host, vm, servers)


def ended(host):
    """With the VM; and a receiver that does not read stops the sender."""
    vm, servers = start(host)
    f = Forward(host, vm, f"vsock:{PORT}")
    s = f.dial()
    s.sendall(b"d" + (1 << 40).to_bytes(8, "little"))
    time.sleep(1)
    rss = [int(next(l for l in open(f"/proc/{pid}/status") if l.startswith("VmRSS")).split()[1])
           for pid in (f.p.pid, host.status(vm).get("vsockd_pid")) if pid]
    true(max(rss) < 8 << 10, f"memory: {rss} KiB")
    t = f.dial()
    t.sendall(b"e")
    equal(t.recv(1), b"e", "another connection meanwhile")
    for p in servers:
        p.kill()
        p.wait()
    host.run("kill", vm, check=0)
    equal(f.p.wait(5), 0, "the forward's end")
    true(b"and the forward with it" in f.p.stderr.read(), "what it says")
    s.close()
    t.close()


if __name__ == "__main__":
    sys.exit(main({"much": much, "many": many, "ended": ended}))
