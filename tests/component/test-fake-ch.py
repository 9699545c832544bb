#!/usr/bin/env python3
"""Whether tests/fakes/fake-ch is honest: the same requests to it and to a real Cloud Hypervisor, call by call.

The real one is `cloud-hypervisor` on the PATH or $UVMS_CLOUD_HYPERVISOR; KVM is not needed, as no guest is run. What both say is
compared by bytes: status line, header fields, body. Left out is what no two processes have in common: process ids, times,
the build's name, descriptor numbers, and what the kernel said when a file or KVM could not be opened.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
FAKE = HERE.parent / "fakes/fake-ch"
SKIP = 77
VERSION = 53	# whose bytes the fake has
LIMIT = 5	# seconds for any answer
BODIES = ("vm.create", "vm.add-net", "vm.add-disk", "vm.add-pmem", "vm.add-fs", "vm.add-vsock", "vm.remove-device", "vm.resize",
          "vm.resize-disk", "vm.resize-zone", "vm.snapshot", "vm.restore")
PUTS = ("vm.boot", "vm.pause", "vm.resume", "vm.power-button", "vm.nmi", "vm.shutdown", "vm.reboot", "vm.delete")
GETS = ("vmm.ping", "vm.info", "vm.counters")


class Vmm:
    """A process as the supervisor starts it."""

    def __init__(self, program, directory):
        self.d = directory
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{directory}/api")
        listener.listen(16)
        self.events_fd, writer = os.pipe()
        env = {k: v for k, v in os.environ.items() if k != "FAKE"}
        self.p = subprocess.Popen(
            [program, "--api-socket", f"fd={listener.fileno()}", "--event-monitor", f"fd={writer}", "--seccomp", "true",
             "--no-shutdown"], pass_fds=(listener.fileno(), writer), cwd=directory, env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        listener.close()
        os.close(writer)
        self.stream = b""

    def dial(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(LIMIT)
        s.connect(f"{self.d}/api")
        return s

    def reply(self, s):
        """The next one as bytes; the end and an error by their names."""
        data = b""
        try:
            while b"\r\n\r\n" not in data:
                part = s.recv(1)
                if not part:
                    return data + b"<end>"
                data += part
            length = re.search(rb"Content-Length: (\d+)\r\n", data)
            left = int(length[1]) if length else 0
            while left > 0:
                part = s.recv(left)
                if not part:
                    return data + b"<end>"
                data += part
                left -= len(part)
        except TimeoutError:
            return data + b"<silence>"
        except ConnectionResetError:
            return data + b"<reset>"
        return data

    def raw(self, data, n=1, s=None, fds=()):
        """N replies to what was sent; on a connection of its own."""
        c = s or self.dial()
        socket.send_fds(c, [data], list(fds)) if fds else c.sendall(data)
        replies = [self.reply(c) for _ in range(n)]
        if not s:
            c.close()
        return replies if n != 1 else replies[0]

    def call(self, method, name, body=None, **kw):
        text = f"{method} /api/v1/{name} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
        if body is not None:
            text += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return self.raw((text + "\r\n" + (body or "")).encode(), **kw)

    def silent(self, data):
        s = self.dial()
        s.sendall(data)
        s.settimeout(0.3)
        return self.reply(s)

    def events(self, last):
        """What has come of the stream up to the event LAST, times left out; at the end of the process all of it."""
        end = time.monotonic() + LIMIT
        os.set_blocking(self.events_fd, False)
        while last.encode() not in self.stream and time.monotonic() < end:
            try:
                part = os.read(self.events_fd, 65536)
                if not part:
                    break
                self.stream += part
            except BlockingIOError:
                time.sleep(0.005)
        stream, self.stream = self.stream, b""
        return re.sub(rb'"(secs|nanos)": \d+', rb'"\1": N', stream)

    def wait(self):
        try:
            return self.p.wait(LIMIT)
        except subprocess.TimeoutExpired:
            return "lives"

    def close(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        os.close(self.events_fd)


def no_vm(v):
    """Every call, with no body, with none that is needed, and with too little in it."""
    for method in ("GET", "PUT", "PATCH", "DELETE", "POST"):
        for name in GETS + PUTS + BODIES + ("vm.none", "vm.coredump", "vmm.ping?x", "", "vmm.ping/"):
            yield f"{method} {name}", v.call(method, name)
    yield "GET vmm.shutdown", v.call("GET", "vmm.shutdown")
    for name in PUTS + BODIES:
        for body in ("{", "{}", '{"id":"x"}') if name != "vm.create" else ("{",):
            yield f"PUT {name} {body}", v.call("PUT", name, body)
    yield "restore", v.call("PUT", "vm.restore", '{"source_url":"file:///nowhere/at/all"}')
    yield "a word that it does not know", v.call("PUT", "vm.create", '{"payload":{},"serial":{"mode":"tty"}}')
    yield "no VM came of it", v.call("GET", "vm.info")


def created(v):
    """A VM that is not booted: what is checked, and what is not."""
    yield "create", v.call("PUT", "vm.create", '{"payload":{"kernel":"/nowhere"},"junk":1,"memory":{"size":67108864}}')
    yield "again", v.call("PUT", "vm.create", '{"payload":{"kernel":"/nowhere"}}')
    yield "info", v.call("GET", "vm.info")
    with open("/dev/null", "rb") as a, open("/dev/zero", "rb") as b:
        net = '{"id":"net0","mac":"02:00:00:00:00:01"}'
        yield "a link with its descriptor", v.call("PUT", "vm.add-net", net, fds=(a.fileno(),))
        yield "the same again", v.call("PUT", "vm.add-net", net, fds=(a.fileno(),))
        yield "one descriptor too many", v.call("PUT", "vm.add-net", '{"id":"n2"}', fds=(a.fileno(), b.fileno()))
    yield "a link without one", v.call("PUT", "vm.add-net", '{"id":"net1","mac":"02:00:00:00:00:02","fds":[7]}')
    yield "a disk", v.call("PUT", "vm.add-disk", '{"id":"d0","path":"/nowhere/at/all"}')
    yield "memory of a file", v.call("PUT", "vm.add-pmem", '{"id":"p0","file":"/nowhere/at/all","size":4194304,"discard_writes":true}')
    yield "the same again", v.call("PUT", "vm.add-pmem", '{"id":"p0","file":"/nowhere/at/all"}')
    yield "with a disk's id", v.call("PUT", "vm.add-pmem", '{"id":"d0","file":"/nowhere/at/all"}')
    yield "without a file", v.call("PUT", "vm.add-pmem", '{"id":"p1"}')
    yield "of no whole size, which is found out later", v.call("PUT", "vm.add-pmem", '{"id":"p2","file":"x","size":4096}')
    yield "a directory, but with private memory", v.call("PUT", "vm.add-fs", '{"id":"f0","tag":"t","socket":"/nowhere"}')
    yield "info of all", v.call("GET", "vm.info")
    yield "remove what is not there", v.call("PUT", "vm.remove-device", '{"id":"x"}')
    yield "resize to nothing", v.call("PUT", "vm.resize", "{}")
    yield "resize a disk", v.call("PUT", "vm.resize-disk", '{"id":"x","desired_size":1}')
    yield "resize a zone", v.call("PUT", "vm.resize-zone", '{"id":"x","desired_ram":1}')
    yield "snapshot", v.call("PUT", "vm.snapshot", '{"destination_url":"file:///nowhere/at/all"}')
    yield "restore", v.call("PUT", "vm.restore", '{"source_url":"file:///nowhere/at/all"}')
    for method, name in (("GET", "vm.counters"), *(("PUT", n) for n in PUTS if n not in ("vm.boot", "vm.delete"))):
        yield name, v.call(method, name)
    yield "boot", v.call("PUT", "vm.boot")
    yield "too many vCPUs are taken", v.call("PUT", "vm.resize", '{"desired_vcpus":9}')
    for name, body in (("vm.add-net", "{}"), ("vm.add-disk", '{"path":"x"}'), ("vm.add-vsock", '{"cid":3,"socket":"v"}')):
        yield f"and {name} pays for it", v.call("PUT", name, body)
    yield "delete", v.call("PUT", "vm.delete")
    yield "and again", v.call("PUT", "vm.delete")
    yield "gone", v.call("GET", "vm.info")
    yield "an empty one", v.call("PUT", "vm.create", "{}")


def vhost_user(v):
    """The device that connects to a socket: only with shared memory, which is found out at the boot."""
    device = '"generic_vhost_user":[{"id":"v0","socket":"/nowhere","device_type":19,"queue_sizes":[128,128,128]}]'
    yield "private memory", v.call("PUT", "vm.create", '{"payload":{"kernel":"/nowhere"},"memory":{"size":67108864},' + device + "}")
    yield "info", v.call("GET", "vm.info")
    yield "boot", v.call("PUT", "vm.boot")
    yield "delete", v.call("PUT", "vm.delete")
    yield "shared memory", v.call(
        "PUT", "vm.create", '{"payload":{"kernel":"/nowhere"},"memory":{"size":67108864,"shared":true},' + device + "}")
    yield "a directory", v.call("PUT", "vm.add-fs", '{"id":"f0","tag":"t","socket":"/nowhere","num_queues":1,"queue_size":1024}')
    yield "with the id of the device", v.call("PUT", "vm.add-fs", '{"id":"v0","tag":"t","socket":"/nowhere"}')
    yield "with its own again", v.call("PUT", "vm.add-fs", '{"id":"f0","tag":"u","socket":"/nowhere"}')
    yield "without a tag", v.call("PUT", "vm.add-fs", '{"id":"f1","socket":"/nowhere"}')
    yield "more queues than CPUs", v.call("PUT", "vm.add-fs", '{"id":"f2","tag":"v","socket":"/nowhere","num_queues":2}')
    yield "info of it", v.call("GET", "vm.info")
    yield "without the directory", v.call("PUT", "vm.remove-device", '{"id":"f0"}')


def parser(v):
    """What makes a request."""
    ping, end = b"GET /api/v1/vmm.ping HTTP/1.1\r\n", b"\r\n"
    for head in (b"GET /api/v1/vmm.ping HTTP/1.0\r\n", ping + b"Connection: close\r\n", ping + b"CONTENT-LENGTH: 0\r\n",
                 ping + b"Accept: text/html\r\nContent-Type: text/html\r\n", b"GET http://x/api/v1/vmm.ping HTTP/1.1\r\n",
                 b"GET http://x HTTP/1.1\r\n", b"GET vmm.ping HTTP/1.1\r\n", b"GET  HTTP/1.1\r\n", b"GET /api/v1/vmm.ping HTTP/2.0\r\n",
                 b"get /api/v1/vmm.ping HTTP/1.1\r\n", b"junk\r\n", b"junk junk\r\n", b"GET /" + b"x" * 1000 + b" HTTP/1.1\r\n",
                 ping + b"no colon here\r\n", ping + b"X: " + b"x" * 980 + b"\r\n"):
        yield repr(head), v.raw(head + end)
    put = b"PUT /api/v1/vm.add-net HTTP/1.1\r\n"
    for head in (b"Content-Length: x\r\n", b"Content-Length: -1\r\n", b"Content-Length: 4294967296\r\n", b"Content-Length:\r\n",
                 b"Content-Length: 51201\r\n", b"Content-Length: 4194304\r\n"):
        yield repr(head), v.raw(put + head + end)
    yield "a body with GET", v.raw(ping + b"Content-Length: 2\r\n\r\n{}")
    yield "expect", v.raw(put + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}", 2)
    yield "chunked", v.raw(put + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 2)
    yield "a long line", v.raw(b"GET /" + b"x" * 1100 + b" HTTP/1.1\r\n\r\n", 2)
    yield "a long field", v.raw(ping + b"X: " + b"x" * 1100 + b"\r\n\r\n", 2)
    body = b'{"id":"' + b"x" * (51200 - 9) + b'"}'
    yield "the largest body", v.raw(b"PUT /api/v1/vm.remove-device HTTP/1.1\r\nContent-Length: 51200\r\n\r\n" + body)
    yield "lines without CR", v.silent(b"GET /api/v1/vmm.ping HTTP/1.1\n\n")


def connections(v):
    """Kept, shared out, closed by one side."""
    ping = b"GET /api/v1/vmm.ping HTTP/1.1\r\n\r\n"
    delete = b"PUT /api/v1/vm.delete HTTP/1.1\r\n\r\n"
    yield "three at once", v.raw(ping + delete + ping, 3)
    s = v.dial()
    for i in range(3):
        yield f"one after the other: {i}", v.raw(delete, 1, s)
    yield "after a bad one", v.raw(b"junk\r\n\r\n", 1, s)
    yield "a good one", v.raw(ping, 1, s)
    s.sendall(ping[:20])
    time.sleep(0.05)
    yield "in two pieces", v.raw(ping[20:], 1, s)
    s.shutdown(socket.SHUT_WR)
    yield "half closed", v.reply(s)
    s = v.dial()
    s.shutdown(socket.SHUT_WR)
    yield "half closed at once", v.reply(s)
    all_ = [v.dial() for _ in range(10)]
    yield "ten", [v.raw(ping, 1, s) for s in all_]
    s = v.dial()
    yield "the eleventh", [v.reply(s), v.reply(s)]
    all_.pop().close()
    time.sleep(0.1)
    s = v.dial()
    yield "room again", v.raw(ping, 1, s)
    for s in all_:
        s.close()


def events(v):
    yield "starting", v.events("starting")
    v.call("PUT", "vm.boot")
    yield "a boot of nothing", v.events("booting")
    v.call("PUT", "vm.reboot")
    yield "a reboot of nothing", v.events("rebooting")
    v.call("PUT", "vm.delete")
    v.call("PUT", "vm.create", '{"payload":{"kernel":"/nowhere"},"disks":[{"path":"/nowhere/at/all"}]}')
    yield "a boot that fails", v.call("PUT", "vm.boot")
    yield "its event", v.events("booting")
    v.call("PUT", "vm.delete")
    yield "deleted", v.events("deleted")
    v.call("PUT", "vm.create", '{"payload":{"kernel":"/nowhere"}}')
    v.p.terminate()
    yield "SIGTERM", v.wait()
    yield "last events", v.events("no such event")


def ended_by(signo):
    def ended(v):
        v.call("GET", "vmm.ping")
        v.p.send_signal(signo)
        yield "status", v.wait()
        yield "last events", v.events("no such event")
    ended.__name__ = signo.name
    return ended


def shutdown(v):
    s = v.dial()
    yield "vmm.shutdown", v.raw(b"PUT /api/v1/vmm.shutdown HTTP/1.1\r\n\r\n", 1, s)
    yield "the end", v.reply(s)
    yield "status", v.wait()
    yield "last events", v.events("no such event")


def shutdown_with_a_body(v):
    yield "vmm.shutdown", v.raw(b"PUT /api/v1/vmm.shutdown HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
    yield "status", v.wait()


SCENES = (no_vm, created, vhost_user, parser, connections, events, *(ended_by(s) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
                                                                                signal.SIGKILL)),
          shutdown, shutdown_with_a_body)
USAGES = (["--nothing"], ["--seccomp", "what"], ["--api-socket"], ["--version"])


def shape(value):
    """Keys in their order and kinds of values, without the values."""
    if isinstance(value, dict):
        return [(k, shape(v)) for k, v in value.items()]
    return [shape(v) for v in value] if isinstance(value, list) else type(value).__name__


def common(seen):
    """What of it two processes can have in common."""
    if isinstance(seen, list):
        return [common(s) for s in seen]
    if not isinstance(seen, bytes) or b"\r\n\r\n" not in seen:
        return seen
    head, body = seen.split(b"\r\n\r\n", 1)
    try:
        value = json.loads(body)
    except ValueError:
        return seen
    head = re.sub(rb"Content-Length: \d+", b"Content-Length: N", head)
    if isinstance(value, dict) and "pid" in value:
        return head, shape(value), value["version"], value["features"]
    if isinstance(value, dict) and "state" in value:
        return head, shape(value), value["state"], value["memory_actual_size"]
    if isinstance(value, list) and value[:1] == ["Failed to deserialize JSON"]:
        return head, value[0]
    if isinstance(value, list) and "The VM could not boot" in value and len(value) > 3:
        return head, value[:2]	# what the host's kernel and KVM have to say follows
    return seen


def play(program, scene):
    with tempfile.TemporaryDirectory() as d:
        v = Vmm(program, d)
        try:
            return [(label, common(seen)) for label, seen in scene(v)]
        finally:
            v.close()


def usage(program, args):
    p = subprocess.run([program, *args], capture_output=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    return (p.returncode, re.sub(rb"v53\.0\S*", b"v53.0", p.stdout).splitlines()[:1], p.stderr.splitlines()[:1])


def real_version(program):
    text = subprocess.run([program, "--version"], capture_output=True, stdin=subprocess.DEVNULL, timeout=LIMIT).stdout.decode()
    found = re.search(r"v(\d+)\.", text)
    return int(found[1]) if found else 0


def main():
    real = os.environ.get("UVMS_CLOUD_HYPERVISOR") or shutil.which("cloud-hypervisor")
    version = real_version(real) if real else 0
    if version != VERSION:
        print(f"skipped: {'this is v%d, the fake plays v%d' % (version, VERSION) if real else 'there is no cloud-hypervisor'}")
        return 1 if os.environ.get("UVMS_TESTS_MUST_RUN") == "1" else SKIP
    n = wrong = 0
    pairs = [(scene.__name__, play(real, scene), play(str(FAKE), scene)) for scene in SCENES]
    pairs.append(("usage", *([(str(a), usage(p, a)) for a in USAGES] for p in (real, str(FAKE)))))
    for scene, theirs, ours in pairs:
        for (label, want), (_, got) in zip(theirs, ours, strict=True):
            n += 1
            # a thread writes them, and does not get to all of them before the end
            if got != want and not (label == "last events" and got.startswith(want)):
                wrong += 1
                print(f"{scene}: {label}:\n  real {want!r}\n  fake {got!r}", file=sys.stderr)
    print(f"{n} answers compared, {wrong} differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
