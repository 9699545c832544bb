#!/usr/bin/env python3
"""uvms-vsockd under a running guest: killed, stopped, silent, and what cannot be made good."""
import ctypes
import os
import random
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import threading
import time

import vmtest
from takeover import Guest, memfd_of_supervisor
from vmtest import Failure, Skip, clock, equal, main, true

BB = "busybox"
READER = vmtest.BUILD / "tests/vm/uvms-test-guest-reader"
SOAK = os.environ.get("UVMS_SOAK") == "1"


def start(host, tag="vm", *options):
    vm = host.name(tag)
    host.run("run", "-d", "--name", vm, *options, BB, "--", "sleep", "10000", check=0)
    return vm, Guest(host, vm, BB, READER)


def crashed(host, vm, words, seconds=1):
    """It ends within SECONDS, and says why."""
    host.run("wait", f"--timeout={seconds}s", vm, check=0)
    s = host.status(vm)
    equal((s["state"], s["outcome"]), ("stopped", "crashed"), f"{s}")
    true(words in s["cause"], f"cause: {s['cause']}")


def kills(host):
    """Each time new calls are served at once, a blocked reader sees its end, and nothing is left behind."""
    vm, guest = start(host)
    fds, times = guest.count_fds(), []
    for _ in range(100 if SOAK else 20):
        times.append(max(guest.kill()))
        time.sleep(random.uniform(0, 0.05))
    true(statistics.median(times) <= 100 * vmtest.SLOW, f"median: {statistics.median(times)} ms")
    true(max(times) <= (100 if SOAK else 1000) * vmtest.SLOW, f"worst: {max(times)} ms")
    host.run("exec", vm, "true", check=0)
    end = clock() + 3
    while guest.count_fds() != fds and clock() < end:
        time.sleep(0.05)
    equal(guest.count_fds(), fds, "descriptors of the supervisor")
    equal(host.status(vm)["boots"], 1, "boots")
    host.run("stop", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")


def stop_at_once(host):
    """A stop right behind the kill waits for the agent's new call."""
    for pause in (0, 0.005, 0.02):
        vm, guest = start(host, f"p{int(pause * 1000)}")
        os.kill(guest.status()["vsockd_pid"], signal.SIGKILL)
        time.sleep(pause)
        host.run("stop", vm, check=0)
        equal(host.status(vm)["outcome"], "clean", "outcome")


def kill_in_stop(host):
    """On the way to the end it is replaced, too, and the end stays a clean one."""
    for pause in (0.005, 0.01, 0.015, 0.02, 0.03):
        vm, guest = start(host, f"p{int(pause * 1000)}")
        pid = guest.status()["vsockd_pid"]
        p = host.popen("stop", vm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(pause)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass	# it was quicker
        equal(p.wait(timeout=30), 0, "stop")
        s = host.status(vm)
        equal(s["outcome"], "clean", f"outcome, killed after {pause} s ({s['cause']})")


def kill_in_start(host):
    """While the VMM makes the session and while the guest boots."""
    for pause in (0.02, 0.1, 0.4, 1.2):
        vm = host.name(f"p{int(pause * 1000)}")
        p = host.popen("run", "-d", "--name", vm, BB, "--", "sleep", "1000", stdin=subprocess.DEVNULL)
        path = host.runtime / vm / "current/status"
        while True:
            try:
                pid = host.status(vm)["vsockd_pid"]
                if pid:
                    break
            except (KeyError, Failure):
                time.sleep(0.002)
        time.sleep(pause)
        os.kill(pid, signal.SIGKILL)
        equal(p.wait(timeout=60), 0, f"start, killed after {pause} s, {path}")
        host.run("exec", vm, "true", check=0)
        equal(host.status(vm)["vsockd_replaced"], 1, "replaced")
        host.run("stop", vm, check=0)


def request_window(host):
    """Death in the middle of a request: nobody can go on, and the VM ends as crashed within 1 s."""
    if os.geteuid() != 0:
        raise Skip("only root may write vsockd's page")
    vm, guest = start(host)
    with memfd_of_supervisor(guest.pid_of_supervisor, "uvms-session") as page:
        os.pwrite(page.fileno(), struct.pack("<I", 1), 4)
    os.kill(guest.status()["vsockd_pid"], signal.SIGKILL)
    crashed(host, vm, "in the middle of a request")
    host.run("start", vm, check=0)


def hostile_pages(host):
    """What a fallen vsockd leaves: a table of nonsense costs the connections in it, a state of nonsense the VM."""
    if os.geteuid() != 0:
        raise Skip("only root may write vsockd's pages")
    vm, guest = start(host)
    for _ in range(3):
        with memfd_of_supervisor(guest.pid_of_supervisor, "uvms-connections") as table:
            os.pwrite(table.fileno(), os.urandom(32 * 1023), 32)
        os.kill(guest.status()["vsockd_pid"], signal.SIGKILL)
        host.run("exec", vm, "true", check=0)
    with memfd_of_supervisor(guest.pid_of_supervisor, "uvms-session") as page:
        os.pwrite(page.fileno(), b"\xff" * 2048, 1024)
    os.kill(guest.status()["vsockd_pid"], signal.SIGKILL)
    crashed(host, vm, "is not to be used")


def until(what, value, seconds, message):
    end = clock() + seconds
    while what() != value:
        if clock() > end:
            raise Failure(f"{message}: {what()!r}, want {value!r}")
        time.sleep(0.01)


def stop_again_and_again(guest, who, n):
    for i in range(n):
        os.kill(guest.status()[f"{who}_pid"], signal.SIGSTOP)
        if i < n - 1:	# the last is its end
            until(lambda: guest.status().get("stopped"), who, 1, "status")
            until(lambda: guest.status().get("stopped"), None, 2, "status")


def sigstop(host):
    """A stopped process goes on after a second; again and again is the end of it."""
    vm, guest = start(host)
    first = guest.status()
    for who in ("vsockd", "vmm"):
        os.kill(first[f"{who}_pid"], signal.SIGSTOP)
        until(lambda: guest.status().get("stopped"), who, 1, "status")
        until(lambda: guest.status().get("stopped"), None, 2, "status")
        host.run("exec", vm, "true", check=0)
    stop_again_and_again(guest, "vsockd", 2)
    until(lambda: guest.status()["vsockd_replaced"], 1, 2, "vsockd stopped three times")
    host.run("exec", vm, "true", check=0)
    time.sleep(10)	# the window
    stop_again_and_again(guest, "vmm", 3)
    crashed(host, vm, " was stopped (SIGSTOP) again and again")


def trace(pid):
    """Stops it as a debugger does: its parent is not told. Its end is taken in the background, as only then is its
    parent told of that."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, pid, None, None) != 0:	# PTRACE_ATTACH
        raise Skip("no process can be traced here")
    os.waitpid(pid, 0x40000000)	# __WALL
    threading.Thread(target=os.waitpid, args=(pid, 0x40000000), daemon=True).start()


def silent(host):
    """A vsockd that hangs without being stopped (it is traced) is found when it is used."""
    vm, guest = start(host)
    trace(guest.status()["vsockd_pid"])
    begin = time.monotonic()
    host.run("exec", vm, "true", check=0)
    took = time.monotonic() - begin
    true(2 < took < 5 * vmtest.SLOW, f"exec took {took} s")
    equal(guest.status()["vsockd_replaced"], 1, "replaced")
    trace(guest.status()["vsockd_pid"])
    begin = clock()
    host.run("stop", vm, check=0)
    true(clock() - begin < 3, f"stop took {clock() - begin} s")
    equal(host.status(vm)["outcome"], "clean", "outcome")


def restored(host):
    """Who was blocked in read() when the guest was kept finds the end of that connection, and calls again; who calls the
    guest at once is served."""
    vm, guest = start(host, "vm", "--memory=128M")
    kept = f"r{os.getpid()}"
    p = host.run("snapshot", vm, kept)
    if p.returncode == 6:	# this back-end keeps none
        return
    equal(p.returncode, 0, f"snapshot: {p.stderr!r}")
    try:
        host.run("stop", vm, check=0)
        for _ in range(2):
            host.run("restore", kept, check=0)
            again = Guest(host, vm, BB, None)
            true(again.dial(), "a call of the host's")
            host.run("exec", vm, "true", check=0)
            host.run("stop", vm, check=0)
            equal(host.status(vm)["outcome"], "clean", "outcome")
    finally:
        shutil.rmtree(host.state / "snapshots" / kept, ignore_errors=True)


CASES = {f.__name__.replace("_", "-"): f for f in (
    kills, stop_at_once, kill_in_stop, kill_in_start, request_window, hostile_pages, sigstop, silent, restored)}

if __name__ == "__main__":
    sys.exit(main(CASES))
