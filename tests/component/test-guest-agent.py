#!/usr/bin/env python3
"""The guest agent on this host, without a VM: uvms-guest agent with UNIX sockets for vsock."""
import errno
import hashlib
import os
import resource
import socket
import struct
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import agentwire as w
from guestagent import Agent, accept_home

ME = str(os.getuid())


class AgentTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        cls.a = Agent()
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))

    @classmethod
    def tearDownClass(cls):
        cls.a.stop()

    def settle(self, want):
        for _ in range(100):    # lost sessions wait 2 s
            if self.a.fds() <= want:
                break
            time.sleep(0.05)
        self.assertLessEqual(self.a.fds(), want)

    def test_ready(self):
        self.assertEqual(self.a.stage, 2)
        self.assertEqual(self.a.ready, (w.READY, struct.pack("<BI", 1, 0)))

    def test_streams_are_separate(self):
        r = self.a.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
        self.assertEqual((r.out[1], r.out[2], r.exit, r.eofs), (b"out\n", b"err\n", (1, 7), {1, 2}))

    def test_binary_clean_through_cat(self):
        data = os.urandom(4 << 20)
        r = self.a.run(["cat"], stdin=data)
        self.assertEqual(hashlib.sha256(r.out[1]).digest(), hashlib.sha256(data).digest())
        self.assertEqual(r.exit, (1, 0))

    def test_stdin_eof_and_none(self):
        self.assertEqual(self.a.run(["wc", "-c"], stdin=b"").out[1].strip(), b"0")
        self.assertEqual(self.a.run(["wc", "-c"]).out[1].strip(), b"0")

    def test_stdin_that_nobody_reads(self):
        self.assertEqual(self.a.run(["true"], stdin=bytes(300000)).exit, (1, 0))

    def test_exit_codes(self):
        self.assertEqual(self.a.run(["no-such-program"]).failed[:2], (127, 2))
        self.assertEqual(self.a.run(["/etc/passwd"]).failed[:2], (126, 13))
        self.assertEqual(self.a.run(["/etc"]).failed[:2], (126, 13))
        self.assertEqual(self.a.run(["true"], user="no-such-user").failed[0], 125)
        self.assertEqual(self.a.run(["true"], workdir="/nonexistent").failed[:2], (125, 2))
        self.assertEqual(self.a.run(["sh", "-c", "kill -9 $$"]).exit, (2, 9))

    def test_environment(self):
        r = self.a.run(["env"], env=["A=1", "HOME=/x", "A=2"])
        lines = r.out[1].decode().split("\n")
        self.assertIn("A=2", lines)
        self.assertIn("HOME=/x", lines)
        self.assertIn("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", lines)
        self.assertEqual(self.a.run(["pwd"], workdir="/tmp").out[1], b"/tmp\n")
        self.assertEqual(self.a.run(["pwd"]).out[1], b"/\n")
        self.assertEqual(self.a.run(["true"], env=["PATH=/nonexistent"]).failed[0], 127)

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_user(self):
        r = self.a.run(["id"], user="nobody")
        self.assertTrue(r.out[1].startswith(b"uid=65534(nobody)"), r.out)
        r = self.a.run(["sh", "-c", "id -u; id -g; id -G"], user="1234:4321")
        self.assertEqual(r.out[1].split(), [b"1234", b"4321", b"4321"])

    def test_tty(self):
        r = self.a.run(["sh", "-c", "tty; stty size; echo $TERM; echo err >&2"], flags=w.TTY, rows=33,
                       cols=101, term="vt100")
        self.assertTrue(r.out[1].startswith(b"/dev/pts/"), r.out)
        self.assertIn(b"33 101\r\nvt100\r\nerr\r\n", r.out[1])
        self.assertEqual((r.out[2], r.exit), (b"", (1, 0)))

    def test_tty_input_signal_winsize(self):
        r = self.a.run(["cat"], flags=w.TTY, stdin=b"hello\n")
        self.assertIn(b"hello\r\nhello\r\n", r.out[1])

        def later(conn):
            conn.send(w.WINSIZE, struct.pack("<HH", 5, 6))
            time.sleep(0.3)
            conn.send(w.SIGNAL, b"\x02")
        r = self.a.run(["sh", "-c", "trap 'stty size; exit 9' INT; while :; do sleep 0.1; done"],
                       flags=w.TTY, on_start=later)
        self.assertIn(b"5 6", r.out[1])
        self.assertEqual(r.exit, (1, 9))

    def test_signal(self):
        r = self.a.run(["sleep", "100"], on_start=lambda c: c.send(w.SIGNAL, b"\x0f"))
        self.assertEqual(r.exit, (2, 15))

    def test_grandchild_holds_the_stream(self):
        t = time.time()
        r = self.a.run(["sh", "-c", "sleep 3 & echo x"])
        self.assertEqual((r.out[1], r.exit, r.eofs), (b"x\n", (1, 0), set()))
        self.assertLess(time.time() - t, 1.5)

    def test_back_pressure(self):
        conn = self.a.session()
        conn.send(w.EXEC, w.exec_payload(["sh", "-c", "yes | head -c 1000000"], user=ME))
        conn.sock.settimeout(1)
        got = 0
        try:
            while True:
                kind, p = conn.recv()
                if kind == w.DATA:
                    got += len(p) - 9
        except TimeoutError:
            pass
        self.assertEqual(got, w.WINDOW)
        conn.sock.settimeout(10)
        while True:
            conn.send(w.ACK, struct.pack("<BQ", 1, got))
            kind, p = conn.recv()
            if kind == w.DATA:
                got += len(p) - 9
            if kind == w.EXIT:
                break
        self.assertEqual(got, 1000000)
        conn.close()

    def test_peer_beyond_its_window(self):
        conn = self.a.session()
        conn.send(w.EXEC, w.exec_payload(["sleep", "100"], w.STDIN, user=ME))
        for i in range(10):
            try:
                conn.send(w.DATA, struct.pack("<BQ", 0, i * w.CHUNK) + bytes(w.CHUNK))
            except (BrokenPipeError, ConnectionResetError):
                break
        while conn.recv()[0] is not None:
            pass
        conn.close()

    def test_hangup(self):
        self.end_without_exit(lambda conn: conn.send(w.HANGUP), 0, 1)

    def test_lost_connection_hangs_up(self):
        self.end_without_exit(lambda conn: None, 1.9, 4)

    def end_without_exit(self, last_words, at_least, at_most):
        conn = self.a.session()
        conn.send(w.EXEC, w.exec_payload(["sleep", "100"], user=ME))
        kind, p = conn.recv()
        self.assertEqual(kind, w.STARTED)
        pid = struct.unpack("<I", p)[0]
        start = time.time()
        last_words(conn)
        conn.close()
        while os.path.exists("/proc/%d" % pid) and time.time() - start < at_most:
            time.sleep(0.02)
        self.assertTrue(at_least < time.time() - start < at_most)

    def test_forward(self):
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve():
            s, _ = server.accept()
            n = 0
            while True:
                b = s.recv(65536)
                if not b:
                    break
                n += len(b)
            s.sendall(b"%d" % n + bytes(500000))
            s.close()
        t = threading.Thread(target=serve)
        t.start()
        conn = self.a.session()
        conn.send(w.FORWARD, struct.pack("<BI", 1, server.getsockname()[1]) + w.text(""))
        self.assertEqual(conn.recv()[0], w.FORWARD_OK)
        conn.sock.sendall(bytes(1000000))
        conn.sock.shutdown(socket.SHUT_WR)
        got = conn.buf
        while True:
            b = conn.sock.recv(65536)
            if not b:
                break
            got += b
        self.assertEqual(got, b"1000000" + bytes(500000))
        t.join()
        server.close()
        conn.close()

    def test_forward_server_ends_first(self):
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        server.listen()
        conn = self.a.session()
        conn.send(w.FORWARD, struct.pack("<BI", 1, server.getsockname()[1]) + w.text(""))
        s, _ = server.accept()
        self.assertEqual(conn.recv()[0], w.FORWARD_OK)
        s.shutdown(socket.SHUT_WR)
        self.assertEqual(conn.sock.recv(10), b"")
        conn.sock.sendall(b"late")
        conn.sock.shutdown(socket.SHUT_WR)
        self.assertEqual(s.recv(10), b"late")
        self.assertEqual(s.recv(10), b"")
        for x in (s, server, conn):
            x.close()

    def test_forward_refused(self):
        for payload in (struct.pack("<BI", 1, 1) + w.text(""), struct.pack("<BI", 1, 0) + w.text(""),
                        struct.pack("<BI", 2, 0) + w.text("/nonexistent"),
                        struct.pack("<BI", 2, 0) + w.text("relative")):
            conn = self.a.session()
            conn.send(w.FORWARD, payload)
            kind, p = conn.recv()
            self.assertEqual((kind, p[0]), (w.FAILED, 1))
            self.assertIsNone(conn.recv()[0])
            conn.close()

    def test_info(self):
        conn = self.a.session()
        conn.send(w.INFO)
        kind, p = conn.recv()
        self.assertEqual(kind, w.INFO_REPLY)
        info = dict(l.split("=", 1) for l in p[4:].decode().splitlines())
        self.assertGreater(int(info["mem_total_kb"]), 0)
        self.assertIn("kernel", info)
        conn.close()

    def test_wrong_secret(self):
        self.assertIsNone(self.a.session(os.urandom(32)))
        conn = self.a.connect()
        conn.send(w.EXEC, w.exec_payload(["true"]))
        self.assertIsNone(conn.recv()[0])
        conn.close()

    def test_unauthenticated_are_bounded(self):
        idle = [self.a.connect() for _ in range(100)]
        self.assertEqual(self.a.run(["true"]).exit, (1, 0))
        start = time.time()
        for c in idle:
            self.assertIsNone(c.recv()[0])
            c.close()
        self.assertLess(time.time() - start, 5)

    def test_sessions_are_bounded(self):
        before = self.a.fds()
        conns = []
        for _ in range(64):
            conn = self.a.session()
            conn.send(w.EXEC, w.exec_payload(["sleep", "100"], w.STDIN, user=ME))
            self.assertEqual(conn.recv()[0], w.STARTED)
            conns.append(conn)
        self.assertEqual(self.a.run(["true"]).failed, (125, 11, "too many sessions: 64 are open"))
        self.ping()
        conns.pop().close()     # its process has to die before its place is free
        for _ in range(100):
            r = self.a.run(["true"])
            if r.failed is None:
                break
            time.sleep(0.05)
        self.assertEqual(r.exit, (1, 0))
        for conn in conns:
            conn.close()
        self.settle(before)

    def test_forwards_are_bounded(self):
        before = self.a.fds()
        server = socket.socket()
        server.bind(("127.0.0.1", 0))
        server.listen(200)
        request = struct.pack("<BI", 1, server.getsockname()[1]) + w.text("")
        conns = []
        for _ in range(1024):
            conn = self.a.session()
            conn.send(w.FORWARD, request)
            self.assertEqual(conn.recv()[0], w.FORWARD_OK)
            conns.append((conn, server.accept()[0]))
        conn = self.a.session()
        conn.send(w.FORWARD, request)
        kind, p = conn.recv()
        self.assertEqual((kind, p[:5], p[9:]), (w.FAILED, struct.pack("<BI", 1, 11),
                                                b"too many forwards: 1024 are open"))
        self.assertIsNone(conn.recv()[0])
        conn.close()
        self.ping()
        self.assertEqual(self.a.run(["sh", "-c", "ulimit -n"]).out[1], b"1024\n")
        for conn, service in conns:
            conn.close()
            service.close()
        server.close()
        self.settle(before)

    def test_request_has_a_deadline(self):
        conn = self.a.session()
        start = time.time()
        self.assertIsNone(conn.recv()[0])
        self.assertTrue(9 < time.time() - start < 12)
        conn.close()

    def rss_kb(self):
        with open("/proc/%d/status" % self.a.proc.pid) as f:
            return int(next(l for l in f if l.startswith("VmRSS:")).split()[1])

    def test_host_that_never_reads(self):
        """Whatever it asks for, nothing grows, and the others are served."""
        before, fds = self.rss_kb(), self.a.fds()
        loud = self.a.session()
        loud.send(w.EXEC, w.exec_payload(["yes"], user=ME))
        echo = self.a.session()
        echo.send(w.EXEC, w.exec_payload(["cat"], w.STDIN, user=ME))
        echo.sock.settimeout(0.5)
        for i in range(10000):
            try:
                echo.send(w.DATA, struct.pack("<BQ", 0, i * 16) + bytes(16))
            except (TimeoutError, BrokenPipeError, ConnectionResetError):
                break
        ping = w.frame(w.PING, bytes(8))
        self.a.home.sock.settimeout(0.5)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += self.a.home.sock.send(ping * 4096)
        except TimeoutError:
            pass
        self.assertLess(sent, 64 << 20)
        self.assertEqual(self.a.run(["true"]).exit, (1, 0))
        if not os.environ.get("UVMS_SANITIZED"):
            self.assertLess(self.rss_kb() - before, 2048)
        # it reads at last: each whole PING that was sent has its answer
        self.a.home.sock.settimeout(10)
        for _ in range(sent // len(ping)):
            self.assertEqual(self.a.home.recv()[0], w.PONG)
        rest = -sent % len(ping)
        if rest:
            self.a.home.sock.sendall(ping[-rest:])
            self.assertEqual(self.a.home.recv()[0], w.PONG)
        for conn in (loud, echo):
            conn.close()
        self.settle(fds)

    def test_client_vanishes_mid_stream(self):
        before = self.a.fds()
        for argv, flags in ((["yes"], 0), (["cat"], w.STDIN), (["sh", "-c", "trap '' HUP; yes"], 0),
                            (["yes"], w.TTY)):
            conn = self.a.session()
            conn.send(w.EXEC, w.exec_payload(argv, flags, user=ME))
            kind, p = conn.recv()
            self.assertEqual(kind, w.STARTED)
            pid = struct.unpack("<I", p)[0]
            if flags & w.STDIN:
                conn.send(w.DATA, struct.pack("<BQ", 0, 0) + bytes(w.CHUNK))
            self.assertIn(conn.recv()[0], (w.DATA, w.ACK))
            conn.close()        # with data of the agent's unread: a reset
            for _ in range(160):
                if not os.path.exists("/proc/%d" % pid):
                    break
                time.sleep(0.05)
            else:
                self.fail("%s is still there" % argv)
        self.settle(before)

    def ping(self):
        self.a.home.send(w.PING, b"12345678")
        self.assertEqual(self.a.home.recv(), (w.PONG, b"12345678"))

    def test_garbage(self):
        good = w.frame(w.EXEC, w.exec_payload(["true"], user=ME))
        for cut in range(1, len(good)):
            conn = self.a.session()
            head = struct.pack("<IBBH", cut, w.EXEC, 0, 0)
            conn.sock.sendall(head + good[8:8 + cut] + bytes(max(0, cut - len(good) + 8)))
            kind, _ = conn.recv()
            if 8 + cut != len(good):
                self.assertIsNone(kind, cut)
            conn.close()
        for raw in (b"\xff" * 64, struct.pack("<IBBH", 65601, 1, 0, 0), struct.pack("<IBBH", 0, 0x25, 1, 0),
                    struct.pack("<IBBH", 0, 0x99, 0, 0)):
            conn = self.a.session()
            conn.sock.sendall(raw)
            self.assertIsNone(conn.recv()[0])
            conn.close()
        self.assertEqual(self.a.run(["true"]).exit, (1, 0))

    def test_many_execs_leak_nothing(self):
        self.a.run(["true"])
        time.sleep(2.2)
        before = self.a.fds()
        for i in range(1000):
            self.assertEqual(self.a.run(["true"]).exit, (1, 0))
        self.settle(before)

    def test_control_channel(self):
        for kind, payload in ((w.CLOCK, struct.pack("<Q", time.time_ns())), (w.ENTROPY, bytes(64))):
            self.a.home.send(kind, payload)
            self.assertEqual(self.a.home.recv(), (w.DONE, struct.pack("<BI", kind, 0)))
        self.a.home.send(w.PING, b"12345678")
        self.assertEqual(self.a.home.recv(), (w.PONG, b"12345678"))

    def test_the_hosts_mounts_are_no_business_of_a_test(self):
        what = struct.pack("<BQ", 2, 2 << 20) + w.text("") + w.text("/nowhere")
        for kind, payload in ((w.MOUNT, what), (w.UNMOUNT, w.text("/"))):
            self.a.home.send(kind, payload)
            self.assertEqual(self.a.home.recv(), (w.DONE, struct.pack("<BI", kind, errno.EPERM)))

    def test_nothing_begins_while_frozen(self):
        def home(kind):
            self.a.home.send(kind)
            self.assertEqual(self.a.home.recv(), (w.DONE, struct.pack("<BI", kind, 0)))

        def silent(conn):
            conn.sock.settimeout(0.5)
            with self.assertRaises(TimeoutError):
                conn.recv()
            conn.sock.settimeout(10)

        before, idle, stranger, running = self.a.session(), self.a.session(), self.a.connect(), self.a.session()
        running.send(w.EXEC, w.exec_payload(["sh", "-c", "read x; echo $x"], flags=w.STDIN, user=ME))
        self.assertEqual(running.recv()[0], w.STARTED)
        home(w.FREEZE)
        home(w.FREEZE)
        before.send(w.EXEC, w.exec_payload(["echo", "x"], user=ME))
        silent(before)
        stranger.send(w.AUTH, struct.pack("<I", 1) + self.a.secret)
        silent(stranger)
        new = self.a.connect()
        new.send(w.AUTH, struct.pack("<I", 1) + self.a.secret)
        silent(new)
        time.sleep(1)   # more than a stranger has
        running.send(w.DATA, b"\0" + struct.pack("<Q", 0) + b"y\n")
        self.assertEqual(next(p for kind, p in iter(running.recv, None) if kind == w.DATA)[-2:], b"y\n")
        home(w.THAW)
        home(w.THAW)
        self.assertEqual(before.recv()[0], w.STARTED)
        for conn in (stranger, new):
            self.assertEqual(conn.recv()[0], w.AUTH_OK)
            conn.send(w.EXEC, w.exec_payload(["true"], user=ME))
            self.assertEqual(conn.recv()[0], w.STARTED)
        idle.send(w.EXEC, w.exec_payload(["true"], user=ME))
        self.assertEqual(idle.recv()[0], w.STARTED)
        for conn in (before, idle, stranger, new, running):
            conn.close()


class AgentLifeTest(unittest.TestCase):
    def setUp(self):
        self.a = Agent()

    def tearDown(self):
        self.a.stop()

    def test_dials_again(self):
        self.a.home.close()
        self.a.home, _ = accept_home(self.a.listener, self.a.secret)
        self.a.home.sock.settimeout(10)
        self.assertEqual(self.a.home.recv()[0], w.READY)

    def test_sessions_outlive_the_control_channel(self):
        conn = self.a.session()
        conn.send(w.EXEC, w.exec_payload(["cat"], w.STDIN, user=ME))
        self.assertEqual(conn.recv()[0], w.STARTED)
        for i in range(3):      # and a host that ends it without a word, again and again
            self.a.home.close()
            sock, _ = self.a.listener.accept()
            if i < 2:
                self.a.home = w.Conn(sock)
                self.assertEqual(self.a.home.recv()[0], w.HELLO)
        self.a.home = w.Conn(sock)
        self.assertEqual(self.a.home.recv()[0], w.HELLO)
        self.a.home.send(w.WELCOME, struct.pack("<IQ", 1, time.time_ns()) + bytes(64))
        self.assertEqual(self.a.home.recv()[0], w.READY)
        conn.send(w.DATA, struct.pack("<BQ", 0, 0) + b"still here")
        got = [conn.recv() for _ in range(2)]
        self.assertIn((w.DATA, struct.pack("<BQ", 1, 0) + b"still here"), got)
        conn.close()

    def test_host_that_does_not_welcome(self):
        self.a.home.close()
        silent, _ = self.a.listener.accept()
        self.a.listener.settimeout(15)
        start = time.time()
        self.a.home, _ = accept_home(self.a.listener, self.a.secret)    # it gives up and dials again
        self.assertTrue(9 < time.time() - start < 12)
        silent.close()
        self.a.home.sock.settimeout(10)
        self.assertEqual(self.a.home.recv()[0], w.READY)

    def test_main_ends_the_agent(self):
        self.assertEqual(self.a.run(["sh", "-c", "exit 3"], flags=w.MAIN).exit, (1, 3))
        self.assertEqual(self.a.proc.wait(5), 0)

    def test_stop_terminates_and_tells_the_exit(self):
        conn = self.a.session()
        got = []
        t = threading.Thread(target=lambda: got.append(w.run(conn, ["sleep", "100"], flags=w.MAIN, user=ME)))
        t.start()
        time.sleep(0.3)
        self.a.home.send(w.STOP, struct.pack("<BI", 1, 2000))
        self.assertEqual(self.a.home.recv(), (w.DONE, struct.pack("<BI", w.STOP, 0)))
        t.join(5)
        self.assertEqual(got[0].exit, (2, 15))
        self.assertEqual(self.a.proc.wait(5), 0)
        conn.close()

    def test_stop_kills_the_stubborn(self):
        conn = self.a.session()
        conn.send(w.EXEC, w.exec_payload(["sh", "-c", "trap '' TERM; echo x; while :; do sleep 1; done"],
                                         user=ME))
        while conn.recv()[0] != w.DATA:
            pass
        start = time.time()
        self.a.home.send(w.STOP, struct.pack("<BI", 1, 500))
        self.assertEqual(self.a.home.recv()[0], w.DONE)
        while conn.recv()[0] != w.EXIT:
            pass
        self.assertGreater(time.time() - start, 0.4)
        conn.send(w.EXIT_ACK)
        conn.close()
        self.a.home.close()
        self.assertEqual(self.a.proc.wait(5), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
