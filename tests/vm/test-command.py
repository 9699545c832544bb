#!/usr/bin/env python3
"""Programs in VMs: `run IMAGE -- CMD`, `exec`, streams, signals, terminals, faults around them."""
import fcntl
import hashlib
import json
import os
import pathlib
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

import vmtest
from vmtest import Failure, Skip, equal, main, pause, true, wait_for

BB = "busybox"


def exit_codes(host):
    """The command's own status, 126, 127, 128 + n, and what the status file says of each."""
    with tempfile.TemporaryDirectory() as d:
        status = f"{d}/status"

        def run(*command):
            p = host.run("run", f"--status-file={status}", BB, "--", *command)
            print(p.stderr.decode(), file=sys.stderr)	# is shown when it is not as it should be
            return p.returncode, json.loads(pathlib.Path(status).read_text())

        equal(run("sh", "-c", "exit 42"), (42, {"source": "cmd", "code": 42}), "exit 42")
        equal(run("true"), (0, {"source": "cmd", "code": 0}), "true")
        equal(run("sh", "-c", "kill -9 $$"), (137, {"source": "signal", "code": 137}), "kill -9")
        equal(run("/none"), (127, {"source": "uvms", "code": 127}), "not found")
        equal(run("/etc/passwd"), (126, {"source": "uvms", "code": 126}), "not executable")
        equal(run("sh", "-c", "exit 125"), (125, {"source": "cmd", "code": 125}), "exit 125")
        equal(run("poweroff", "-f"), (125, {"source": "lost", "code": 125}), "lost")


def streams(host):
    """Separate, binary-clean, with backpressure; the environment, the user, the directory."""
    blob = os.urandom(3 * 1024 * 1024 + 7)
    p = host.run("run", BB, "--", "sh", "-c", "cat; echo problem >&2", stdin=None, input=blob, check=0)
    equal(hashlib.sha256(p.stdout).hexdigest(), hashlib.sha256(blob).hexdigest(), "cat")
    equal(p.stderr, b"problem\n", "stderr")
    p = host.run("run", "-e", "GREETING=hello there", "-w", "/tmp", "-u", "ann", BB, "--", "sh", "-c",
                 'echo "$GREETING $(pwd) $(id -u) $(id -G) $HOME"', check=0)
    equal(p.stdout, b"hello there /tmp 1000 1000 2000 /tmp\n", "environment")


def slow_reader(host):
    """A reader that stops stalls the command, not the memory; a reader that goes ends it."""
    p = host.popen("run", BB, "--", "sh", "-c", "head -c 20000000 /dev/zero; echo end >&2",
                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(6)
    rss = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{p.pid}/status").read_text())[1])
    true(rss < 20000, f"the CLI holds {rss} KiB")
    out, err = p.communicate(timeout=60)
    equal((len(out), err, p.returncode), (20000000, b"end\n", 0), "slow reader")
    p = host.popen("run", BB, "--", "yes", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    p.stdout.read(10)
    p.stdout.close()
    equal(p.wait(timeout=60), 128 + signal.SIGPIPE, "broken pipe")


def signals(host):
    p = host.popen("run", BB, "--", "sh", "-c", "trap 'echo got; exit 7' USR1; echo up; while :; do sleep 0.1; done",
                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    equal(p.stdout.readline(), b"up\n", "start")
    p.send_signal(signal.SIGUSR1)
    equal(p.stdout.read(), b"got\n", "trap")
    equal(p.wait(timeout=30), 7, "status")
    p = host.popen("run", BB, "--", "sh", "-c", "echo up; exec sleep 1000", stdin=subprocess.DEVNULL,
                   stdout=subprocess.PIPE)
    equal(p.stdout.readline(), b"up\n", "start")
    p.send_signal(signal.SIGTERM)
    equal(p.wait(timeout=30), 128 + signal.SIGTERM, "terminated")


def terminal(host):
    """-t: a tty in the guest, its size, ^C as a byte, the caller's terminal restored."""
    script = 'tty; stty size; trap "echo interrupted; exit 3" INT; echo up; while :; do sleep 0.1; done'
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(host.env)
        argv = vmtest.command("run", "-t", BB, "--", "sh", "-c", script)
        os.execv(argv[0], argv)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    text = b""
    end = vmtest.clock() + 60
    while b"up\r\n" not in text and vmtest.clock() < end:
        text += os.read(fd, 4096)
    os.write(fd, b"\x03")
    try:
        while True:
            more = os.read(fd, 4096)
            if not more:
                break
            text += more
    except OSError:
        pass
    _, status = os.waitpid(pid, 0)
    true(b"/dev/pts/" in text, f"no tty: {text!r}")
    true(b"33 101" in text, f"wrong size: {text!r}")
    true(b"interrupted" in text, f"no interrupt: {text!r}")
    equal(os.waitstatus_to_exitcode(status), 3, "status")


def detached(host):
    """A detached VM lives on without the CLI; exec, logs, status, wait, stop; the second process sees it."""
    vm = host.name()
    equal(host.out("run", "-d", "--name", vm, BB, "--", "sh", "-c", "echo hello from it; exec sleep 1000"),
          vm + "\n", "the name")
    equal(host.status(vm)["state"], "running", "state")
    true(vm in host.out("ls", "-q").split(), "ls")
    equal(host.run("exec", vm, "sh", "-c", "cat; exit 5", stdin=None, input=b"abc").stdout, b"abc", "exec")
    equal(host.run("exec", vm, "--", "sh", "-c", "exit 5").returncode, 5, "exec status")
    equal(host.run("exec", vm, "none").returncode, 127, "exec not found")
    equal(host.out("exec", vm, "hostname").strip(), vm, "host name")
    true("hello from it" in host.out("logs", vm), "console log")
    p = host.run("run", "-d", "--name", vm, BB, "--", "true")
    true(p.returncode != 0 and b"already" in p.stderr, "the same name again")
    p = host.run("start", vm)
    equal(p.returncode, 4, "started twice")
    true(b"supervisor is process" in p.stderr, f"who holds it: {p.stderr!r}")
    true("clean" in host.out("stop", vm), "stop")
    equal(host.status(vm)["outcome"], "clean", "outcome")
    true("hello from it" in host.out("logs", vm), "the log of the stopped")
    host.run("start", vm, check=0)
    first = host.out("exec", vm, "cat", "/proc/sys/kernel/random/uuid")
    host.run("restart", vm, check=0)
    true(first != host.out("exec", vm, "cat", "/proc/sys/kernel/random/uuid"), "a fresh guest, fresh entropy")


def main_exit(host):
    """A detached command that ends takes its VM along; its status is kept."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sh", "-c", "sleep 1; exit 9", check=0)
    host.run("wait", vm, check=0, timeout=60)
    s = host.status(vm)
    equal((s["state"], s["outcome"], s["exit_source"], s["exit_code"]), ("stopped", "clean", "cmd", 9), "end")


def clock(host):
    p = host.run("run", BB, "--", "date", "+%s", check=0)
    true(abs(int(p.stdout) - time.time()) < 10, f"the guest's clock: {p.stdout!r}")


def pause_resume(host):
    """A paused guest does nothing and uses no CPU; a session goes on where it was, with the time of now."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    p = host.popen("exec", vm, "sh", "-c", "while sleep 0.1; do date +%s; done", stdin=subprocess.DEVNULL,
                   stdout=subprocess.PIPE)
    p.stdout.readline()
    host.run("pause", vm, check=0)
    equal(host.status(vm)["state"], "paused", "state")
    time.sleep(0.5)
    os.set_blocking(p.stdout.fileno(), False)
    while p.stdout.readline():
        pass
    pid = host.status(vm)["vmm_pid"]
    ticks = lambda: sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
    before = ticks()
    time.sleep(4)
    true(ticks() - before <= 10, "a paused VMM uses CPU")
    equal(p.stdout.readline(), b"", "a paused guest says something")
    equal(host.run("exec", vm, "true").returncode, 125, "exec")
    equal(host.run("snapshot", vm, "x").returncode, 4, "snapshot")
    host.run("resume", vm, check=0)
    equal(host.status(vm)["state"], "running", "state")
    os.set_blocking(p.stdout.fileno(), True)
    lines = [int(p.stdout.readline()) for _ in range(10)]
    true(abs(lines[-1] - time.time()) < 3, f"the guest's clock after it was resumed: {lines}")
    host.run("pause", vm, check=0)
    host.run("stop", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")
    p.kill()
    p.wait()


def resize(host):
    """Memory and CPUs come while the guest runs, and go again."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, "--memory=256M", "--max-memory=768M", "--max-cpus=3", BB, "--",
             "sleep", "1000", check=0)
    total = lambda: int(host.out("exec", vm, "sh", "-c", "grep MemTotal /proc/meminfo").split()[1]) >> 10
    cpus = lambda: int(host.out("exec", vm, "nproc"))
    first = total()
    equal(cpus(), 1, "CPUs at the start")
    host.run("set", "--memory=640M", "--cpus=3", vm, check=0)
    wait_for(lambda: total() >= first + 380, "memory does not grow")
    wait_for(lambda: cpus() == 3, "CPUs do not come")
    # used, so it is really there
    host.run("exec", vm, "sh", "-c", "mount -t tmpfs -o size=400m x /tmp && dd if=/dev/zero of=/tmp/f bs=1M count=350",
             check=0)
    host.run("exec", vm, "cmp", "-n", str(350 << 20), "/tmp/f", "/dev/zero", check=0)
    host.run("exec", vm, "umount", "/tmp", check=0)
    host.run("set", "--memory=256M", vm, check=0)
    wait_for(lambda: total() < first + 300, "memory does not go")
    equal(host.status(vm)["cpus"], 3, "status")
    if host.status(vm)["accel"] == "tcg":
        host.run("set", "--cpus=1", vm, check=6)
        return
    host.run("set", "--cpus=1", vm, check=0)
    wait_for(lambda: cpus() == 1, "CPUs do not go")
    host.run("set", "--cpus=2", vm, check=0)
    wait_for(lambda: cpus() == 2, "one does not come back")
    host.run("set", "--cpus=0", vm, check=2)


def attach(host):
    """A volume becomes a disk of a running guest, keeps what was written, and goes again."""
    vm, volume = host.name(), f"a{os.getpid()}"
    run = lambda *script: host.out("exec", vm, "sh", "-c", " ".join(script))
    disk = lambda: run("for s in /sys/block/*/serial; do", f"[ $(cat $s) = {volume} ] && echo $(basename $(dirname $s));",
                       "done; true").strip()
    host.run("run", "-d", "--name", vm, "--hotplug-slots=1", BB, "--", "sleep", "1000", check=0)
    try:
        for text in ("first", "second"):
            host.run("attach", vm, volume + ":32M", check=0)
            wait_for(disk, "the disk does not come")
            run(f"dd if=/dev/{disk()} bs=1M skip=8 count=1 2>/dev/null | head -c 5")
            before = run(f"dd if=/dev/{disk()} bs=512 skip=16384 count=1 2>/dev/null | tr -d '\\0'")
            equal(before, "" if text == "first" else "first", "what was on it")
            run(f"echo -n {text} | dd of=/dev/{disk()} bs=512 seek=16384 conv=fsync,sync 2>/dev/null")
            host.run("detach", vm, volume, check=0)
            wait_for(lambda: not disk(), "the disk does not go")
        host.run("detach", vm, volume, check=3)
    finally:
        host.run("kill", "-q", vm)
        host.run("volume", "rm", volume, check=0)


def snapshot(host):
    """A guest goes on as it was kept, with the time of now, as often as one likes; a changed byte is named."""
    vm, kept = host.name(), f"s{os.getpid()}"
    host.run("run", "-d", "--name", vm, "--memory=128M", BB, "--", "sh", "-c",
             "n=0; while sleep 0.1; do n=$((n+1)); echo $n > /tmp/.n; mv /tmp/.n /tmp/n; done", check=0)
    count = lambda: int(host.out("exec", vm, "sh", "-c", "cat /tmp/n 2>/dev/null || echo 0"))
    marked = lambda: host.run("exec", vm, "test", "-e", "/tmp/later").returncode == 0

    def goes_on(than, what):
        wait_for(lambda: count() > than, what)

    try:
        goes_on(3, "the guest counts")
        host.run("snapshot", vm, kept, check=0)
        goes_on(count(), "it goes on after it was kept")
        host.run("exec", vm, "touch", "/tmp/later", check=0)
        host.run("stop", vm, check=0)
        for _ in range(2):
            host.run("restore", kept, check=0)
            true(not marked(), "it is as it was")
            true(count() > 3, "it is the one that counted")
            true(abs(int(host.out("exec", vm, "date", "+%s")) - time.time()) < 5, "the time")
            goes_on(count(), "it goes on after it was restored")
            host.run("stop", vm, check=0)
            equal(host.status(vm)["outcome"], "clean", "outcome")
        memory = max((host.state / "snapshots" / kept / "vmm").iterdir(), key=lambda p: p.stat().st_size)
        with open(memory, "r+b") as f:
            f.seek(4096)
            byte = f.read(1)
            f.seek(4096)
            f.write(bytes([byte[0] ^ 1]))
        p = host.run("restore", kept, check=1)
        true(memory.name.encode() in p.stderr, f"said: {p.stderr!r}")
    finally:
        shutil.rmtree(host.state / "snapshots" / kept, ignore_errors=True)


def panic(host):
    vm = host.name()
    p = host.run("run", "--name", vm, BB, "--", "sh", "-c",
                 "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 1000")
    equal(p.returncode, 125, "status")
    true(b"panic" in p.stderr, f"said: {p.stderr!r}")
    equal(host.status(vm)["outcome"], "panicked", "outcome")
    true("Kernel panic" in host.out("logs", vm), "the console of the dead")


def never_ready(host):
    """The start time-out names itself, shows the console and what to do next."""
    vm = host.name()
    p = host.run("run", "-d", f"--start-timeout={6 * vmtest.SLOW:.0f}s", "--name", vm, BB)
    equal(p.returncode, 5, "status")
    true(b"this init sleeps for ever" in p.stderr and b"next:" in p.stderr, f"said: {p.stderr!r}")
    equal(host.status(vm)["outcome"], "failed", "outcome")


def flood(host):
    """Megabytes on the console: memory and disk stay bounded, what is lost is counted. (A byte is an exit of the guest,
    and where KVM is emulated an exit takes milliseconds: it is a trickle there, and has to arrive.)"""
    vm, size = host.name(), 4000000 if vmtest.SLOW == 1 else 20000
    host.run("run", "-d", "--name", vm, BB, "--", "sh", "-c",
             f"tr '\\0' x < /dev/zero | head -c {size} > /dev/ttyS0; touch /tmp/done; sleep 1000", check=0)
    s, end = host.status(vm), vmtest.clock() + 60
    while host.run("exec", vm, "test", "-e", "/tmp/done").returncode != 0:
        true(vmtest.clock() < end, f"it does not get through: {len(host.run('logs', vm).stdout)} bytes are logged")
        time.sleep(0.5)
    pause(1)
    kept = sum(p.stat().st_size for p in (host.runtime / vm).rglob("*") if p.is_file())
    true(kept < 400 * 1024, f"{kept} bytes of files")
    rss = int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{s['supervisor_pid']}/status").read_text())[1])
    true(rss < 20000, f"the supervisor holds {rss} KiB")
    true(len(host.run("logs", vm).stdout) > min(100000, size - 1), "nothing was logged")


def long_names(host):
    """64 characters under a 60-byte runtime directory: no socket path overruns."""
    vm = ("n" * 64)
    host.names.append(vm)
    deep = "/tmp/" + "d" * 55
    os.makedirs(deep, mode=0o711, exist_ok=True)
    try:
        env = dict(host.env, UVMS_RUNTIME_DIR=deep)
        old, host.env = host.env, env
        host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
        equal(host.out("exec", vm, "hostname").strip(), vm, "host name")
        host.run("stop", vm, check=0)
        host.run("rm", vm, check=0)
        host.env = old
    finally:
        subprocess.run(["rm", "-rf", deep], check=False)


def bad_names(host):
    for name in ("a/b", "..", "", "x" * 65, "-x", ".x", "a b"):
        p = host.run("run", f"--name={name}", BB, "--", "true")
        equal(p.returncode, 125, f"name {name!r}")
        true(b"cannot be used" in p.stderr, f"{name!r}: {p.stderr!r}")
    p = host.run("run", "nothing-of-that-name", "--", "true")
    true(p.returncode == 125 and b"there is no image" in p.stderr, f"image: {p.stderr!r}")
    vm = host.name()
    host.run("run", "--name", vm, "nothing-of-that-name", "--", "true", check=125)
    equal(host.run("status", vm).returncode, 3, "a VM that never lived is not kept")
    p = host.run("run", "--memory=3M", BB, "--", "true")
    true(p.returncode == 125 and b"96M" in p.stderr, f"memory: {p.stderr!r}")
    p = host.run("run", "--accel=kvm", BB, "--", "true")
    true(p.returncode in (0, 125), "kvm")
    equal(host.run("exec", "nobody-there", "true").returncode, 125, "exec")
    equal(host.run("stop", "nobody-there").returncode, 3, "stop")
    p = host.run("stpo")
    true(p.returncode == 2 and b"did you mean stop" in p.stderr, f"suggestion: {p.stderr!r}")


def dry_run(host):
    """--dry-run prints the plan that is executed, word for word, and leaves nothing."""
    vm = host.name()
    plan = host.out("run", "--dry-run", "--name", vm, "-d", BB, "--", "true")
    true(not (host.state / "vms" / vm).exists(), "it left something")
    host.run("run", "-d", "--name", vm, BB, "--", "true", check=0)
    host.run("wait", vm, check=0)
    equal((host.state / "vms" / vm / "last/trace").read_text(), plan, "the trace")


def cpu_model(host):
    """The guest sees the one that was asked for; a back-end that has none is passed over, and says so."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, "--backend=auto", "--cpu-model=qemu64,-avx", BB, "--", "sleep", "1000", check=0)
    seen = host.out("exec", vm, "cat", "/proc/cpuinfo")
    true("QEMU Virtual CPU" in seen and " avx " not in seen, seen[:500])
    s = host.status(vm)
    equal(s["backend"], "qemu", "back-end")
    true("ch: --cpu-model is not supported" in s["backend_reason"], f"{s}")
    p = host.run("run", "-d", "--backend=ch", "--cpu-model=qemu64", BB)
    equal(p.returncode, 6, "--backend=ch")
    true(b"--cpu-model is not supported" in p.stderr, f"said: {p.stderr!r}")
    p = host.run("run", "--cpu-model=qemu64;x", BB, "--", "true", check=125)
    true(b"CPU model" in p.stderr, f"said: {p.stderr!r}")


def kill_supervisor(host):
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    os.kill(host.status(vm)["supervisor_pid"], signal.SIGKILL)
    pause(1)
    equal(host.processes(), [], "processes after 1 s")
    s = host.status(vm)
    equal((s["state"], s["outcome"]), ("stopped", "crashed"), "status")
    true(host.out("logs", "--source=supervisor", vm), "the log of the dead")
    host.run("start", vm, check=0)
    host.run("stop", vm, check=0)


def kill_vmm(host):
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    os.kill(host.status(vm)["vmm_pid"], signal.SIGKILL)
    host.run("wait", "--timeout=1s", vm, check=0)
    s = host.status(vm)
    equal(s["outcome"], "crashed", "outcome")
    true("signal 9" in s["cause"], f"cause: {s['cause']}")
    host.run("start", vm, check=0)


def vsockd_pid(host):
    for line in host.processes():
        if "uvms-vsockd" in line:
            return int(line.split()[0])
    raise Failure("no vsockd")


def kill_vsockd(host):
    """It is replaced: the VM goes on, sessions work, and the agent still stops it."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    os.kill(vsockd_pid(host), signal.SIGKILL)
    host.run("exec", vm, "true", check=0)
    s = host.status(vm)
    equal((s["state"], s["vsockd_replaced"]), ("running", 1), "status")
    equal(s["vsockd_pid"], vsockd_pid(host), "the new one")
    host.run("stop", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")


def kill_cli(host):
    """A foreground VM is stopped when its CLI is killed, also while it starts; a detached one lives on."""
    p = host.popen("run", BB, "--", "sh", "-c", "echo up; exec sleep 1000", stdin=subprocess.DEVNULL,
                   stdout=subprocess.PIPE)
    equal(p.stdout.readline(), b"up\n", "start")
    p.kill()
    p.wait()
    host.audit(seconds=10)
    p = host.popen("run", BB, "--", "sleep", "1000", stdin=subprocess.DEVNULL)
    time.sleep(0.5)
    p.kill()
    p.wait()
    host.audit(seconds=20)
    vm = host.name()
    p = host.popen("run", "-d", "--name", vm, BB, "--", "sleep", "1000", stdin=subprocess.DEVNULL)
    time.sleep(1)
    p.kill()
    p.wait()
    host.run("wait", "--for=ready", vm, check=0)
    host.run("exec", vm, "true", check=0)


def stopped_vmm(host):
    """One that is stopped (SIGSTOP) is killed by `stop`."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    os.kill(host.status(vm)["vmm_pid"], signal.SIGSTOP)
    start = vmtest.clock()
    host.run("stop", "--timeout=3s", vm, check=0, timeout=60)
    true(vmtest.clock() - start < 40, "too slow")
    equal(host.status(vm)["outcome"], "forced", "outcome")


def stopped_vsockd(host):
    """One that is stopped is replaced before the guest is asked."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    os.kill(vsockd_pid(host), signal.SIGSTOP)
    start = vmtest.clock()
    host.run("stop", "--timeout=3s", vm, check=0, timeout=60)
    true(vmtest.clock() - start < 10, "too slow")
    equal(host.status(vm)["outcome"], "clean", "outcome")


def two_starters(host):
    """Fifty starts of one name at once: exactly one wins, the others say who holds it."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    host.run("stop", vm, check=0)
    many = [host.popen("start", vm, stderr=subprocess.PIPE) for _ in range(50)]
    results = [(p.communicate()[1], p.returncode) for p in many]
    equal(sum(code == 0 for _, code in results), 1, "winners")
    for text, code in results:
        true(code == 0 or (code == 4 and b"already runs" in text), f"a loser: {code} {text!r}")


def parallel(host):
    """Sixteen at once (64 in a soak), all ready, all gone."""
    count = 64 if os.environ.get("UVMS_SOAK") == "1" else 16
    names = [host.name(f"p{i}") for i in range(count)]
    starts = [host.popen("run", "-d", "-q", "--memory=128M", "--name", n, BB, "--", "sleep", "1000",
                         stderr=subprocess.PIPE) for n in names]
    failed = [(n, p.stderr.read()) for n, p in zip(names, starts) if p.wait() != 0]
    equal(failed, [], "failed starts")
    running = json.loads(host.out("ls", "--json"))
    mine = [vm for vm in running if vm["name"] in names]
    equal(len(mine), count, "running")
    equal(len({vm["cid"] for vm in mine}), count, "CIDs differ")
    equal(len({vm["uid"] for vm in mine}), count if os.geteuid() == 0 else 1, "uids")
    host.run("stop", *names, check=0, timeout=600)


def vmm_faults(host):
    """QEMU missing, one that exits at once, and one that says nothing."""
    vm = host.name()
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)

        def fake(text):
            path = pathlib.Path(d) / "qemu"
            path.write_text(text)
            path.chmod(0o755)
            host.env["UVMS_QEMU"] = str(path)

        host.env["UVMS_QEMU"] = "/nonexistent/qemu"
        p = host.run("run", "--name", vm, BB, "--", "true")
        true(p.returncode == 125 and b"cannot be started" in p.stderr, f"missing: {p.stderr!r}")
        host.run("rm", vm)
        fake("#!/bin/sh\necho no such machine >&2\nexit 1\n")
        p = host.run("run", "--name", vm, BB, "--", "true")
        true(p.returncode == 125 and b"exited with status 1" in p.stderr, f"exits: {p.stderr!r}")
        true("no such machine" in host.out("logs", "--source=vmm", vm), "its words are kept")
        host.run("rm", vm)
        fake("#!/bin/sh\nexec sleep 1000\n")
        start = vmtest.clock()
        p = host.run("run", "--name", vm, BB, "--", "true")
        true(p.returncode == 125 and b"did not answer within 30 s" in p.stderr, f"hangs: {p.stderr!r}")
        true(vmtest.clock() - start < 45, "too slow")
        del host.env["UVMS_QEMU"]


def console(host):
    """`console` shows what the guest writes, and passes what is typed."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sh", "-c",
             "while read -r line < /dev/ttyS0; do echo \"heard $line\" > /dev/ttyS0; done", check=0)
    p = host.popen("console", vm, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    pause(1)
    p.stdin.write(b"something\n")
    p.stdin.flush()
    text = b""
    end = vmtest.clock() + 20
    while b"heard something" not in text and vmtest.clock() < end:
        text += os.read(p.stdout.fileno(), 4096)
    p.kill()
    true(b"heard something" in text, f"console: {text!r}")


def isolation(host):
    """From /proc: no capability, no new privileges, a uid of the VM's own, no core dumps."""
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "1000", check=0)
    s = host.status(vm)
    pids = [s["vmm_pid"]]
    if vmtest.BACKEND != "ch":	# whose vsock device is its own
        pids.append(vsockd_pid(host))
    for pid in pids:
        tasks = [(task / "status").read_text() for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
        for text in tasks:
            if os.geteuid() == 0:
                true(re.search(rf"Uid:\t{s['uid']}\t{s['uid']}\t", text), f"uid of {pid}")
                true("CapEff:\t0000000000000000" in text, f"capabilities of {pid}")
                true("CapBnd:\t0000000000000000" in text, f"bounding set of {pid}")
            true("NoNewPrivs:\t1" in text, f"no_new_privs of {pid}")
            # Cloud Hypervisor leaves its main thread, which only waits, without a filter
            true("Seccomp:\t2" in text or (vmtest.BACKEND == "ch" and text is tasks[0]), f"seccomp of {pid}: {text}")
    limits = pathlib.Path(f"/proc/{s['vmm_pid']}/limits").read_text()
    # a snapshot is the largest file that it may write: the memory, and what else there is of a machine
    most = re.search(r"Max file size\s+(\d+)\s+(\d+)\s", limits)
    true(most and most[1] == most[2] and s["memory_bytes"] <= int(most[1]) <= s["memory_bytes"] * 1.01 + (64 << 20),
         f"limits of the VMM: {limits}")
    true(s["uid"] != 0, "root runs the VMM")
    cmdline = pathlib.Path(f"/proc/{s['vmm_pid']}/cmdline").read_bytes()
    true(b"secret" not in cmdline, "something secret on the command line")


def layer_flip(host):
    """A bit that changed in a layer since its check: refused, with its name."""
    import shutil
    mine = pathlib.Path(tempfile.mkdtemp(prefix="uvms-flip-"))
    try:
        vmtest.link_store(host, mine / "store")
        os.chmod(mine, 0o711)
        host.env["UVMS_STATE_DIR"] = str(mine)
        layers = json.loads(host.out("image", "inspect", BB))
        text = json.dumps(layers)
        for digest in re.findall(r"sha256:([0-9a-f]{64})", text):
            blob = mine / "store/blobs/sha256" / digest
            if blob.exists() and blob.stat().st_size >= 1 << 20:
                flipped = bytearray(blob.read_bytes())
                flipped[700001] ^= 4
                blob.unlink()	# it is a link to that of all tests
                blob.write_bytes(flipped)
                blob.chmod(0o444)
        p = host.run("run", BB, "--", "true")
        true(p.returncode == 125 and b"sha256:" in p.stderr, f"said: {p.stderr!r}")
    finally:
        host.env["UVMS_STATE_DIR"] = str(host.state)
        shutil.rmtree(mine)


CASES = {f.__name__.replace("_", "-"): f for f in (
    exit_codes, streams, slow_reader, signals, terminal, detached, main_exit, clock, pause_resume, resize, attach, snapshot, panic,
    never_ready, flood, long_names, bad_names, dry_run, cpu_model, kill_supervisor, kill_vmm, kill_vsockd, kill_cli,
    stopped_vmm, stopped_vsockd, two_starters, parallel, vmm_faults, console, isolation, layer_flip)}

if __name__ == "__main__":
    sys.exit(main(CASES))
