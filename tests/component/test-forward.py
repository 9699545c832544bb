#!/usr/bin/env python3
"""`uvms forward` without a VM: the real agent behind a fake supervisor."""
import hashlib
import os
import pathlib
import random
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from fakesupervisor import Supervisor  # noqa: E402
from guestagent import Agent  # noqa: E402

UVMS = os.environ.get("UVMS", "build/uvms")
SANITIZED = os.environ.get("UVMS_SANITIZED") == "1"
MIB = int(os.environ.get("UVMS_FORWARD_MIB", "64"))


def digest_of(sock):
    d, n = hashlib.sha256(), 0
    while chunk := sock.recv(1 << 18):
        d.update(chunk)
        n += len(chunk)
    return n, d.hexdigest()


class Service:
    """In the "guest": calls FN in a thread for each connection."""

    def __init__(self, fn):
        self.fn = fn
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(1024)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=[s], daemon=True).start()

    def one(self, s):
        try:
            self.fn(s)
        except OSError:
            pass
        s.close()

    def close(self):
        self.listener.close()


def echo(s):
    while chunk := s.recv(65536):
        s.sendall(chunk)


class ForwardTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, hard), hard))
        cls.a = Agent()

    @classmethod
    def tearDownClass(cls):
        cls.a.stop()

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="uvms-forward-"))
        self.dir.chmod(0o711)
        self.supervisor = Supervisor(self.dir, "vm", self.connect)
        self.fds = self.a.fds()
        self.p = None

    def tearDown(self):
        if self.p and self.p.poll() is None:
            self.p.terminate()
            self.assertEqual(self.p.wait(5), 0)
        if self.p:
            self.p.stderr.close()
        self.supervisor.close()
        for _ in range(100):
            if self.a.fds() <= self.fds:
                break
            time.sleep(0.05)
        self.assertLessEqual(self.a.fds(), self.fds)
        shutil.rmtree(self.dir)

    def connect(self, port=None):
        if port:    # as if it were the guest's vsock
            s = socket.create_connection(("127.0.0.1", port))
        else:
            s = self.a.session().sock
        s.setblocking(False)
        return s

    def forward(self, target, **kw):
        self.path = str(self.dir / "socket")
        self.p = subprocess.Popen([UVMS, "forward", "vm", "unix:" + self.path, str(target)],
                                  env=self.supervisor.env, stderr=subprocess.PIPE, **kw)
        return self.p.stderr.readline()

    def dial(self):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30)
        s.connect(self.path)
        return s

    def rss_kb(self, pid, field="VmRSS:"):
        with open("/proc/%d/status" % pid) as f:
            return int(next(l for l in f if l.startswith(field)).split()[1])

    def test_half_close_both_ways(self):
        def client_first(s):
            s.sendall(b"%d %s" % digest_of_bytes(s))

        def digest_of_bytes(s):
            n, d = digest_of(s)
            return n, d.encode()
        service = Service(client_first)
        self.forward(service.port)
        data = random.Random(1).randbytes(1 << 20)
        with self.dial() as s:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(s.recv(1000), b"%d %s" % (len(data), hashlib.sha256(data).hexdigest().encode()))
            self.assertEqual(s.recv(1), b"")
        service.close()
        got = []

        def server_first(s):
            s.sendall(b"greeting")
            s.shutdown(socket.SHUT_WR)
            got.append(digest_of(s))
        service = Service(server_first)
        self.tearDown()
        self.setUp()
        self.forward(f"tcp:{service.port}")
        with self.dial() as s:
            self.assertEqual((s.recv(100), s.recv(1)), (b"greeting", b""))
            s.sendall(data)
        for _ in range(100):
            if got:
                break
            time.sleep(0.05)
        self.assertEqual(got, [(len(data), hashlib.sha256(data).hexdigest())])
        service.close()

    def test_much_each_way(self):
        block = random.Random(2).randbytes(1 << 20)
        want = hashlib.sha256(block * MIB).hexdigest()

        def both(s):
            t = threading.Thread(target=lambda: [s.sendall(block) for _ in range(MIB)] and s.shutdown(socket.SHUT_WR))
            t.start()
            got.append(digest_of(s))
            t.join()
        for kind in ("", "vsock:"):
            got, service = [], Service(both)
            if kind:
                self.tearDown()
                self.setUp()
            self.forward(f"{kind}{service.port}")
            with self.dial() as s:
                t = threading.Thread(target=lambda: [s.sendall(block) for _ in range(MIB)] and s.shutdown(socket.SHUT_WR))
                t.start()
                self.assertEqual(digest_of(s), (MIB << 20, want))
                t.join()
            time.sleep(0.1)
            self.assertEqual(got, [(MIB << 20, want)])
            service.close()

    def test_1000_at_once(self):
        service = Service(echo)
        self.forward(service.port)
        start = time.time()
        conns = [self.dial() for _ in range(1000)]
        for i, s in enumerate(conns):
            s.sendall(b"%d" % i)
        for i, s in enumerate(conns):
            self.assertEqual(s.recv(100), b"%d" % i)
        self.assertLess(time.time() - start, 30)
        self.assertGreaterEqual(len(os.listdir("/proc/%d/fd" % self.p.pid)), 2000)
        for s in conns:
            s.close()
        for _ in range(100):
            left = len(os.listdir("/proc/%d/fd" % self.p.pid))
            if left < 40:
                break
            time.sleep(0.05)
        self.assertLess(left, 40)
        service.close()

    def test_receiver_that_does_not_read(self):
        """The sender stops, nothing grows, and the others are served."""
        wake = threading.Event()

        def lazy(s):
            first = s.recv(1)
            if first == b"L":
                wake.wait(60)
            s.sendall(b"%d %s" % tuple(x if isinstance(x, int) else x.encode() for x in digest_of(s)))
        service = Service(lazy)
        self.forward(service.port)
        with self.dial() as s:      # both are warm
            s.sendall(b"Qx")
            s.shutdown(socket.SHUT_WR)
            s.recv(100)
        before = self.rss_kb(self.p.pid), self.rss_kb(self.a.proc.pid)
        stalled = []
        for _ in range(100):
            s = self.dial()
            s.sendall(b"L")
            s.setblocking(False)
            sent, quiet = 0, 0
            while quiet < 2:
                try:
                    sent += s.send(bytes(1 << 16))
                    quiet = 0
                except BlockingIOError:
                    quiet += 1
                    select.select([], [s], [], 0.02)
            self.assertLess(sent, 16 << 20)
            stalled.append((s, sent))
        if not SANITIZED:
            self.assertLess(self.rss_kb(self.p.pid) - before[0], 24 << 10)
            self.assertLess(self.rss_kb(self.a.proc.pid) - before[1], 24 << 10)
        with open("/proc/%d/stat" % self.p.pid) as f:
            ticks = sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
        time.sleep(1)
        with open("/proc/%d/stat" % self.p.pid) as f:
            self.assertLess(sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13])) - ticks, 10)
        with self.dial() as s:
            s.sendall(b"Qabc")
            s.shutdown(socket.SHUT_WR)
            self.assertTrue(s.recv(100).startswith(b"3 "))
        wake.set()
        for s, sent in stalled:
            s.setblocking(True)
            s.settimeout(30)
            s.shutdown(socket.SHUT_WR)
            n, d = s.recv(100).split()
            self.assertEqual((int(n), d.decode()), (sent, hashlib.sha256(bytes(sent)).hexdigest()))
            s.close()
        service.close()

    def test_client_that_resets(self):
        """One that closes with bytes unread, and one whose service does: nothing spins, nothing is left."""
        service = Service(lambda s: (s.recv(1), s.sendall(bytes(1 << 20)), time.sleep(0.2)))
        self.forward(service.port)
        for _ in range(50):
            s = self.dial()
            s.sendall(b"x")
            s.recv(10)
            s.close()
        for _ in range(100):
            left = len(os.listdir("/proc/%d/fd" % self.p.pid))
            if left < 40:
                break
            time.sleep(0.05)
        self.assertLess(left, 40)
        service.close()

    def test_reset_mixes_nothing(self):
        """What one that left in the middle was to get reaches nobody else."""
        service = Service(lambda s: s.sendall(s.recv(1) * (1 << 20)))
        self.forward(f"vsock:{service.port}")
        for i in range(100):
            leaver, stayer = self.dial(), self.dial()
            leaver.sendall(b"L")
            stayer.sendall(b"S")
            leaver.recv(1 + i * 500)
            leaver.close()
            got = b""
            while chunk := stayer.recv(1 << 18):
                got += chunk
            self.assertEqual((len(got), got.count(b"S")), (1 << 20, 1 << 20))
            stayer.close()
        service.close()

    def test_refused(self):
        self.forward(1)
        for _ in range(3):
            with self.dial() as s:
                self.assertEqual(s.recv(10), b"")
            self.assertIn(b"a connection was refused: Connection refused", self.p.stderr.readline())

    def test_many_one_after_the_other(self):
        service = Service(lambda s: s.sendall(s.recv(10)))
        self.forward(service.port)
        for i in range(500):
            with self.dial() as s:
                s.sendall(b"ping")
                self.assertEqual(s.recv(10), b"ping")
        time.sleep(0.2)
        self.assertLess(len(os.listdir("/proc/%d/fd" % self.p.pid)), 40)
        service.close()

    def test_vm_ends(self):
        service = Service(echo)
        self.forward(service.port)
        s = self.dial()
        s.sendall(b"x")
        self.assertEqual(s.recv(1), b"x")
        self.supervisor.close()
        self.supervisor.close = lambda: None
        self.assertEqual(self.p.wait(3), 0)
        self.assertIn(b"vm ended, and the forward with it", self.p.stderr.read())
        self.assertFalse(os.path.exists(self.path))
        s.close()
        service.close()

    def test_cli_ends(self):
        service = Service(echo)
        for signo in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL):
            self.forward(service.port)
            s = self.dial()
            s.sendall(b"x")
            self.assertEqual(s.recv(1), b"x")
            self.p.send_signal(signo)
            self.assertEqual(self.p.wait(3), -9 if signo == signal.SIGKILL else 0)
            self.assertEqual(os.path.exists(self.path), signo == signal.SIGKILL)
            s.settimeout(3)
            self.assertIn(s.recv(1), (b"",))
            s.close()
        os.unlink(self.path)
        service.close()

    def test_low_limit(self):
        """What the descriptors do not suffice for waits, and that is said."""
        service = Service(echo)
        line = self.forward(service.port, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
        self.assertIn(b"warning: vm: at most 32 connections at once", line)
        conns = [self.dial() for _ in range(40)]
        for s in conns:
            s.sendall(b"x")
        for s in conns[:32]:
            self.assertEqual(s.recv(1), b"x")
        ready = select.select(conns[32:], [], [], 0.5)[0]
        self.assertEqual(ready, [])
        for s in conns[:32]:
            s.close()
        for s in conns[32:]:
            self.assertEqual(s.recv(1), b"x")
            s.close()
        service.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
