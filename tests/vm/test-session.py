#!/usr/bin/env python3
"""exec and run -- CMD while uvms-vsockd is killed under them: every byte once, and the right exit status."""
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

import vmtest
from vmtest import equal, main, true

BB = "busybox"
MIB = int(os.environ.get("UVMS_SESSION_MIB", "256"))
KILLS = 5


class Killer:
    """Kills the vsockd of VM each time that another part of TOTAL bytes has passed."""

    def __init__(self, host, vm, total, n=KILLS):
        self.path = host.runtime / vm / "current/status"
        rng = random.Random(total)
        self.at = sorted(rng.randrange(total // 20, total * 19 // 20) for _ in range(n))
        self.done = 0

    def passed(self, n):
        while self.at and n >= self.at[0]:
            self.at.pop(0)
            self.kill()

    def kill(self):
        pid = json.loads(self.path.read_text())["vsockd_pid"]
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:	# the last one is being replaced
            return
        self.done += 1


def start(host, memory="512M"):
    vm = host.name()
    host.run("run", "-d", "--name", vm, "-m", memory, BB, "--", "sleep", "100000", check=0)
    return vm


def out(host):
    """Out of the guest."""
    vm = start(host, f"{2 * MIB + 256}M")
    made = host.out("exec", vm, "sh", "-c", f"mount -t tmpfs -o size=90% x /tmp; head -c {MIB << 20} /dev/urandom >/tmp/f; "
                    "sha256sum /tmp/f", timeout=600)
    killer, digest, n = Killer(host, vm, MIB << 20), hashlib.sha256(), 0
    p = host.popen("exec", vm, "sh", "-c", "cat /tmp/f; exit 7", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    begin = time.monotonic()
    while True:
        part = os.read(p.stdout.fileno(), 1 << 16)
        if not part:
            break
        digest.update(part)
        n += len(part)
        killer.passed(n)
    print(f"{MIB} MiB in {time.monotonic() - begin:.1f} s")
    equal(p.wait(), 7, "exit status")
    equal((n, digest.hexdigest()), (MIB << 20, made.split()[0]), "bytes, digest")
    equal(killer.done, KILLS, "kills")
    equal(host.status(vm)["vsockd_replaced"], KILLS, "replaced")
    host.run("stop", vm, check=0)


def into(host):
    """Into the guest."""
    vm = start(host)
    killer, digest, n = Killer(host, vm, MIB << 20), hashlib.sha256(), 0
    p = host.popen("exec", vm, "sh", "-c", "sha256sum; exit 6", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    begin = time.monotonic()
    block = random.Random(1).randbytes(1 << 16)
    for i in range(MIB << 4):
        part = i.to_bytes(8, "little") + block[8:]
        p.stdin.write(part)
        digest.update(part)
        n += len(part)
        killer.passed(n)
    p.stdin.close()
    got = p.stdout.read().split()[0].decode()
    print(f"{MIB} MiB in {time.monotonic() - begin:.1f} s")
    equal((p.wait(), got), (6, digest.hexdigest()), "exit status, digest")
    equal(killer.done, KILLS, "kills")
    host.run("stop", vm, check=0)


def both(host):
    """Through cat, and a vsockd that dies every 100 ms (longer where guests are slow)."""
    vm = start(host)
    data = random.Random(2).randbytes(32 << 20)
    killer, over = Killer(host, vm, 1, 0), threading.Event()

    def kill():
        while not over.wait(0.1 * vmtest.SLOW):
            killer.kill()
    t = threading.Thread(target=kill)
    t.start()
    try:
        p = host.popen("exec", vm, "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        echoed = p.communicate(data, timeout=300)[0]
    finally:
        over.set()
        t.join()
    print(f"{killer.done} kills")
    equal((p.returncode, hashlib.sha256(echoed).digest()), (0, hashlib.sha256(data).digest()), "status, digest")
    true(killer.done > 3, f"only {killer.done} kills")
    host.run("stop", vm, check=0)


def starts(host):
    """Commands that start and end while it dies: each runs once, and its status comes back."""
    vm = start(host)
    killer = Killer(host, vm, 1, 0)
    for i in range(40):
        p = host.popen("exec", vm, "sh", "-c", f"echo {i} >>/tmp/ran; exit {i}", stdin=subprocess.DEVNULL)
        time.sleep(random.uniform(0, 0.06))
        killer.kill()
        equal(p.wait(timeout=30), i, "exit status")
    ran = host.out("exec", vm, "cat", "/tmp/ran").split()
    equal(ran, [str(i) for i in range(40)], "commands that ran")
    host.run("stop", vm, check=0)


def main_command(host):
    """The command that a VM was made for, and what is said of its end."""
    vm = host.name()
    with tempfile.TemporaryDirectory() as d:
        p = host.popen("run", "--name", vm, "--status-file", f"{d}/status", BB, "--", "sh", "-c",
                       "i=0; while [ $i -lt 30 ]; do echo $i; sleep 0.1; i=$((i+1)); done; exit 9",
                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        killer, lines = Killer(host, vm, 1, 0), []
        for line in p.stdout:
            lines.append(int(line))
            if len(lines) % 6 == 3:
                killer.kill()
        equal((p.wait(timeout=60), lines), (9, list(range(30))), "status, lines")
        with open(f"{d}/status") as f:
            equal(json.load(f), {"source": "cmd", "code": 9}, "status file")
    equal(host.status(vm)["outcome"], "clean", "outcome")


def client_killed(host):
    """The command of a client that is killed ends 2 s later; the device was not replaced."""
    vm = start(host)
    p = host.popen("exec", vm, "sh", "-c", "echo $$; exec sleep 4321", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    pid = p.stdout.readline().decode().strip()
    equal(host.run("exec", vm, "test", "-d", f"/proc/{pid}").returncode, 0, "it runs")
    p.kill()
    p.wait()
    begin = time.monotonic()
    while host.run("exec", vm, "test", "-d", f"/proc/{pid}").returncode == 0:
        true(time.monotonic() - begin < 6 * vmtest.SLOW, "it is still there")
        time.sleep(0.1)
    true(time.monotonic() - begin > 1, "it ended at once")
    host.run("stop", vm, check=0)


if __name__ == "__main__":
    sys.exit(main({"out": out, "into": into, "both": both, "starts": starts, "main-command": main_command,
                   "client-killed": client_killed}))
