#!/usr/bin/env python3
"""A whole Debian system with systemd and a web server in a VM."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

from vmtest import Failure, clock, equal, main, pause, true

IMAGE = "debian"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(host, *options):
    vm = host.name()
    host.run("run", "-d", "--name", vm, "-m", "1G", *options, IMAGE, check=0, timeout=400)
    return vm


class Forward:
    def __init__(self, host, vm, target, where=None):
        self.where = where or f"127.0.0.1:{free_port()}"
        self.p = host.popen("forward", vm, self.where, target, stderr=subprocess.PIPE)
        self.p.stderr.readline()	# it listens

    def connect(self):
        host, port = self.where.rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.p.terminate()
        self.p.wait()


def ready_and_stop(host):
    """Ready when the start-up has ended; host name, machine-id, clock; exec, a page, a clean stop."""
    vm = start(host)
    s = host.status(vm)
    true(s["ready"] in ("running", "degraded"), f"ready: {s}")
    equal(host.out("exec", vm, "hostname").strip(), vm, "host name")
    equal(host.out("exec", vm, "cat", "/proc/1/comm").strip(), "systemd", "init")
    ident = host.out("exec", vm, "cat", "/etc/machine-id").strip()
    equal(len(ident), 32, "machine-id")
    true(abs(int(host.out("exec", vm, "date", "+%s")) - time.time()) < 10, "clock")
    with Forward(host, vm, "80") as f:
        with f.connect() as c:
            c.sendall(b"GET / HTTP/1.0\r\n\r\n")
            page = b""
            while chunk := c.recv(65536):
                page += chunk
        true(b"200 OK" in page and b"nginx" in page, f"page: {page[:200]!r}")
    equal(host.out("stop", vm).split("(")[1].split(":")[0], "clean", "stop")
    host.run("start", vm, check=0, timeout=400)
    equal(host.out("exec", vm, "cat", "/etc/machine-id").strip(), ident, "machine-id of the next life")
    host.run("stop", vm, check=0)


def degraded(host):
    """A failed unit: ready, with a warning that names it."""
    vm = host.name()
    p = host.run("run", "-d", "--name", vm, "-m", "1G", IMAGE, timeout=400)
    equal(p.returncode, 0, "start")
    host.run("exec", vm, "sh", "-c",
             "printf '[Service]\\nExecStart=/bin/false\\n' > /etc/systemd/system/broken.service; "
             "systemctl daemon-reload; systemctl start broken.service; systemctl is-system-running", check=1)
    equal(host.status(vm)["state"], "running", "state")


def reboot(host):
    """A reboot inside the guest keeps the VM: the agent calls again."""
    vm = start(host)
    first = host.out("exec", vm, "cat", "/proc/sys/kernel/random/boot_id")
    host.run("exec", vm, "systemctl", "reboot")
    end = clock() + 120
    while clock() < end and host.status(vm)["boots"] < 2:
        time.sleep(0.5)
    host.run("wait", "--for=ready", "--timeout=180s", vm, check=0)
    true(first != host.out("exec", vm, "cat", "/proc/sys/kernel/random/boot_id"), "no new boot")
    true("clean" in host.out("stop", vm), "stop")


def poweroff_inside(host):
    vm = start(host)
    host.run("exec", vm, "systemctl", "poweroff")
    host.run("wait", "--timeout=90s", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")


def power_button(host):
    """Without its agent the guest obeys the ACPI power button."""
    vm = start(host)
    host.run("exec", vm, "sh", "-c", "systemctl stop uvms-agent.service & sleep 0.1")
    pause(3)
    text = host.out("stop", "--timeout=20s", vm, timeout=120)
    true("(acpi" in text, f"stop: {text}")


def half_close(host):
    """Both directions of a forward end separately; many connections; a UNIX socket on the host side."""
    vm = start(host)
    server = ("import socket,threading\n"
              "s=socket.socket();s.setsockopt(1,2,1);s.bind(('127.0.0.1',7000));s.listen(200)\n"
              "def one(c):\n"
              "  d=b''\n"
              "  while x:=c.recv(65536): d+=x\n"
              "  c.sendall(b'%d:'%len(d)+d[::-1][:10]);c.close()\n"
              "while True: threading.Thread(target=one,args=(s.accept()[0],)).start()\n")
    p = host.popen("exec", vm, "python3", "-c", server)
    pause(2)
    blob = os.urandom(1 << 20)

    def talk(c):
        c.sendall(blob)
        c.shutdown(socket.SHUT_WR)
        got = b""
        while chunk := c.recv(65536):
            got += chunk
        return got

    want = b"%d:" % len(blob) + blob[::-1][:10]
    with Forward(host, vm, "7000") as f:
        with f.connect() as c:
            equal(talk(c), want, "half-close")
        results = []
        threads = [threading.Thread(target=lambda: results.append(talk(f.connect()))) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        equal(results, [want] * 8, "eight at once")
    path = f"{host.runtime}-sock"
    with Forward(host, vm, "7000", where=f"unix:{path}"):
        c = socket.socket(socket.AF_UNIX)
        c.connect(path)
        equal(talk(c), want, "from a UNIX socket")
        c.close()
    with Forward(host, vm, "7001") as f:
        with f.connect() as c:
            equal(c.recv(10), b"", "a port where nothing listens")
    p.kill()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        p = host.run("forward", vm, f"127.0.0.1:{port}", "80")
        true(p.returncode == 1 and b"in use" in p.stderr, f"port in use: {p.stderr!r}")


def false_agent(host):
    """A program in the guest that plays the agent, by port and by words, gets nothing and breaks nothing."""
    vm = start(host)
    script = ("import socket,struct,os\n"
              "def dial(data):\n"
              "  s=socket.socket(socket.AF_VSOCK,socket.SOCK_STREAM);s.settimeout(30);s.connect((2,1023))\n"
              "  s.sendall(data)\n"
              "  try: return s.recv(100)\n"
              "  except OSError: return b''\n"
              "hello=struct.pack('<IBBH',4+1+32+16,1,0,0)+struct.pack('<IB',1,2)+os.urandom(32)+bytes(16)\n"
              "print(dial(hello), dial(hello[:20]+bytes(40)), dial(os.urandom(300)), dial(b'\\xff'*64))\n"
              "for i in range(60): dial(os.urandom(i+1)+b'\\xff'*16)\n"
              "print('done')\n")
    out = host.out("exec", vm, "python3", "-c", script, timeout=600)
    equal(out, "b'' b'' b'' b''\ndone\n", "answers")
    equal(host.status(vm)["state"], "running", "state")
    equal(host.out("exec", vm, "echo", "fine"), "fine\n", "the true agent")
    true("clean" in host.out("stop", vm), "stop")


def kill_supervisor(host):
    vm = start(host)
    os.kill(host.status(vm)["supervisor_pid"], signal.SIGKILL)
    pause(1)
    equal(host.processes(), [], "processes after 1 s")
    host.run("start", vm, check=0, timeout=400)


CASES = {f.__name__.replace("_", "-"): f for f in (
    ready_and_stop, degraded, reboot, poweroff_inside, power_button, half_close, false_agent,
    kill_supervisor)}

if __name__ == "__main__":
    sys.exit(main(CASES))
