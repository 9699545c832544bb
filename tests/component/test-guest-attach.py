#!/usr/bin/env python3
"""Sessions that outlive their connection: cut at every interesting moment, attached again."""
import hashlib
import os
import random
import socket
import struct
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import agentwire as w
from guestagent import Agent, accept_home

ME = str(os.getuid())


class Host:
    """A host's end of a session that can lose its connection at any byte."""

    def __init__(self, agent, argv, stdin=None, flags=0, rng=None, **kw):
        self.a, self.rng = agent, rng or random.Random(1)
        self.ident = os.urandom(16)
        self.argv, self.stdin = argv, stdin
        self.flags = flags | (w.STDIN if stdin is not None else 0)
        self.kw = dict(kw, user=ME)
        self.out, self.told = {1: b"", 2: b""}, {1: 0, 2: 0}
        self.eofs, self.exit, self.failed, self.pid = set(), None, None, None
        self.sent, self.acked, self.stdin_ended = 0, 0, stdin is None
        self.attached = 0
        self.conn = None

    def start(self):
        if self.conn:
            self.conn.close()
        self.conn = self.a.session()
        self.conn.send(w.EXEC, w.exec_payload(self.argv, self.flags, ident=self.ident, **self.kw))

    def cut(self):
        """As a device that is replaced does it: whatever is on its way is lost."""
        self.conn.close()
        self.conn = None

    def attach(self):
        self.conn = self.a.session()
        self.conn.send(w.ATTACH, w.attach_payload(self.ident, len(self.out[1]), len(self.out[2])))

    def send_stdin(self):
        if self.stdin is None or self.pid is None:
            return
        while self.sent < len(self.stdin) and self.sent - self.acked < w.WINDOW:
            n = min(self.rng.choice((1, 77, 4096, w.CHUNK)), w.WINDOW - (self.sent - self.acked))
            part = self.stdin[self.sent:self.sent + n]
            self.conn.send(w.DATA, struct.pack("<BQ", 0, self.sent) + part)
            self.sent += len(part)
        if not self.stdin_ended and self.sent == len(self.stdin):
            self.conn.send(w.EOF, struct.pack("<BQ", 0, self.sent))
            self.stdin_ended = True

    def on_attached(self, p):
        flags, pid, received, self.signals = struct.unpack("<BIQI", p)
        assert self.acked <= received <= self.sent, (self.acked, received, self.sent)
        if flags & 1:
            self.pid = pid
        self.sent = received
        self.stdin_ended = self.stdin is None or bool(flags & 2)
        self.attached += 1
        for stream in (1, 2):
            self.ack(stream)

    def ack(self, stream):
        self.told[stream] = len(self.out[stream])
        self.conn.send(w.ACK, struct.pack("<BQ", stream, self.told[stream]))

    def on_failed(self, p):
        code, errno, n = struct.unpack_from("<BII", p)
        if errno == 2 and code == 125 and self.pid is None:     # EXEC never arrived
            self.start()
            return False
        self.failed = (code, errno)
        return True

    def step(self):
        """One frame; True: the session is over."""
        kind, p = self.conn.recv()
        if kind is None:
            raise EOFError
        if kind == w.STARTED:
            self.pid, = struct.unpack("<I", p)
        elif kind == w.ATTACHED:
            self.on_attached(p)
        elif kind == w.FAILED:
            return self.on_failed(p)
        elif kind == w.DATA:
            stream, offset = struct.unpack_from("<BQ", p)
            assert offset == len(self.out[stream]), (stream, offset, len(self.out[stream]))
            self.out[stream] += p[9:]
            if self.rng.random() < 0.7 or len(self.out[stream]) - self.told[stream] > w.WINDOW // 2:
                self.ack(stream)
        elif kind == w.EOF:
            stream, offset = struct.unpack("<BQ", p)
            assert offset == len(self.out[stream])
            self.eofs.add(stream)
        elif kind == w.ACK:
            stream, acked = struct.unpack("<BQ", p)
            assert stream == 0 and self.acked <= acked <= self.sent
            self.acked = acked
        elif kind == w.EXIT:
            self.exit = struct.unpack("<BIB", p)[:2]
            return True
        return False

    def run(self, cuts=(), patience=15):
        """To the end, cut each time that so many more bytes of output have come."""
        cuts = list(cuts)
        at = cuts.pop(0) if cuts else None
        if not self.conn:
            self.start()
        self.conn.sock.settimeout(patience)
        while True:
            try:
                self.send_stdin()
                over = self.step()
            except (BrokenPipeError, ConnectionResetError, EOFError):
                if self.failed:
                    return self
                self.cut()
                self.attach()
                continue
            if over:
                if self.exit:
                    self.conn.send(w.EXIT_ACK)
                self.conn.close()
                return self
            if at is not None and len(self.out[1]) >= at:
                if self.rng.random() < 0.5:     # in the middle of a frame of ours
                    try:
                        self.conn.sock.send(w.frame(w.DATA, bytes(1000))[:self.rng.randrange(1, 900)])
                    except OSError:
                        pass
                self.cut()
                time.sleep(self.rng.choice((0, 0, 0.001, 0.02)))
                self.attach()
                at = cuts.pop(0) if cuts else None


class AttachTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.a = Agent()

    @classmethod
    def tearDownClass(cls):
        cls.a.stop()

    def setUp(self):
        self.before = self.a.fds()

    def tearDown(self):
        for _ in range(100):
            if self.a.fds() <= self.before:
                return
            time.sleep(0.1)
        self.assertLessEqual(self.a.fds(), self.before)

    def started(self, argv, **kw):
        h = Host(self.a, argv, **kw)
        h.start()
        while h.pid is None:
            h.step()
        return h

    def gone_within(self, pid, seconds):
        until = time.time() + seconds
        while os.path.exists("/proc/%d" % pid) and time.time() < until:
            time.sleep(0.02)
        return not os.path.exists("/proc/%d" % pid)

    def test_100_cuts_both_ways(self):
        data = random.Random(7).randbytes(8 << 20)
        rng = random.Random(8)
        cuts = sorted(rng.randrange(len(data)) for _ in range(100))
        h = Host(self.a, ["cat"], stdin=data, rng=rng).run(cuts)
        self.assertEqual(hashlib.sha256(h.out[1]).digest(), hashlib.sha256(data).digest())
        self.assertEqual((h.exit, h.eofs), ((1, 0), {1, 2}))
        self.assertGreater(h.attached, 60)

    def test_both_streams(self):
        script = "i=0; while [ $i -lt 3000 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done; exit 5"
        h = Host(self.a, ["sh", "-c", script], rng=random.Random(3)).run(range(100, 20000, 500))
        for stream, word in ((1, "out"), (2, "err")):
            self.assertEqual(h.out[stream].decode(), "".join("%s%d\n" % (word, i) for i in range(3000)))
        self.assertEqual(h.exit, (1, 5))

    def test_cut_before_exec_arrives(self):
        h = Host(self.a, ["echo", "once"])
        conn = self.a.session()
        frame = w.frame(w.EXEC, w.exec_payload(h.argv, 0, ident=h.ident, user=ME))
        conn.sock.sendall(frame[:-1])
        conn.close()
        h.attach()
        h.run()
        self.assertEqual((h.out[1], h.exit, h.attached), (b"once\n", (1, 0), 0))

    def test_cut_before_started_comes(self):
        for delay in (0, 0, 0.0005, 0.001, 0.003, 0.05):
            h = Host(self.a, ["sh", "-c", "echo once; exit 4"])
            h.start()
            time.sleep(delay)
            h.cut()
            h.attach()
            h.run()
            self.assertEqual((h.out[1], h.exit), (b"once\n", (1, 4)))

    def test_exec_twice_runs_once(self):
        h = self.started(["sh", "-c", "echo x; sleep 0.3"])
        for _ in range(2):      # while it is there, and when it is over
            conn = self.a.session()
            conn.send(w.EXEC, w.exec_payload(["echo", "again"], ident=h.ident, user=ME))
            kind, p = conn.recv()
            self.assertEqual((kind, p[:5]), (w.FAILED, struct.pack("<BI", 125, 17)))
            conn.close()
            if not h.exit:
                h.run()
            time.sleep(0.1)
        self.assertEqual((h.out[1], h.exit), (b"x\n", (1, 0)))

    def test_cut_after_exit_before_its_ack(self):
        h = self.started(["sh", "-c", "printf abc; exit 6"])
        for _ in range(3):
            while not h.step():
                pass
            self.assertEqual((h.exit, h.out[1]), ((1, 6), b"abc"))
            h.exit = None
            h.cut()
            time.sleep(0.05)
            h.attach()
        h.run()
        self.assertEqual((h.exit, h.out[1]), ((1, 6), b"abc"))
        conn = self.a.session()
        conn.send(w.ATTACH, w.attach_payload(h.ident, 3))
        kind, p = conn.recv()
        self.assertEqual((kind, p[:5]), (w.FAILED, struct.pack("<BI", 125, 3)))
        conn.close()

    def test_exit_is_kept_longer_than_a_process(self):
        h = self.started(["sh", "-c", "sleep 0.2; printf abc; exit 6"])
        h.cut()
        time.sleep(4)
        h.attach()
        h.run()
        self.assertEqual((h.exit, h.out[1], h.attached), ((1, 6), b"abc", 1))

    def test_output_is_kept_up_to_the_window(self):
        h = self.started(["sh", "-c", "i=0; while [ $i -lt 400 ]; do printf '%01000d' $i; i=$((i+1)); done"])
        h.cut()
        time.sleep(0.5)
        h.attach()
        h.run()
        self.assertEqual(h.out[1], b"".join(b"%01000d" % i for i in range(400)))
        self.assertEqual(h.exit, (1, 0))

    def test_back_pressure_without_connection(self):
        h = self.started(["sh", "-c", "yes | head -c 1000000; echo done >&2"])
        h.cut()
        time.sleep(1)
        h.attach()
        h.ack = lambda stream: None
        h.conn.sock.settimeout(0.5)
        with self.assertRaises(TimeoutError):       # without an ACK no more than a window comes
            while True:
                h.step()
        self.assertEqual(len(h.out[1]), w.WINDOW)
        del h.ack
        h.ack(1)
        h.run()
        self.assertEqual((len(h.out[1]), h.out[2], h.exit), (1000000, b"done\n", (1, 0)))

    def test_signals_once_each(self):
        script = "n=0; trap 'n=$((n+1))' USR1; trap 'echo $n; exit 8' TERM; echo; while :; do sleep 0.02; done"
        h = self.started(["sh", "-c", script])
        while not h.out[1]:
            h.step()
        for n in range(1, 13):
            frame = w.frame(w.SIGNAL_N, struct.pack("<IB", n, 10))
            whole = n % 3       # the acknowledgement is lost, or the signal is, or nothing
            h.conn.sock.sendall(frame if whole else frame[:-1])
            time.sleep(0.06)
            if n % 3 < 2:
                h.cut()
                h.attach()
                attached = h.attached
                while h.attached == attached:
                    h.step()
                self.assertEqual(h.signals, n if whole else n - 1)
                h.conn.sock.sendall(frame)
                time.sleep(0.06)
        h.conn.send(w.SIGNAL_N, struct.pack("<IB", n + 1, 15))
        h.run()
        self.assertEqual((h.out[1].split(), h.exit), ([b"%d" % n], (1, 8)))

    def test_signal_numbers_are_in_order(self):
        h = self.started(["sleep", "100"])
        h.conn.send(w.SIGNAL_N, struct.pack("<IB", 2, 15))      # 1 is missing
        with self.assertRaises(EOFError):
            h.step()
        h.cut()
        h.attach()
        h.conn.send(w.SIGNAL_N, struct.pack("<IB", 1, 15))
        h.run()
        self.assertEqual(h.exit, (2, 15))

    def test_tty(self):
        h = self.started(["sh", "-c", "stty -echo; echo go; read x; echo got $x; read y; echo end; stty size"],
                         flags=w.TTY, rows=10, cols=20)
        while b"go" not in h.out[1]:
            h.step()
        h.stdin, h.stdin_ended = b"hello\n", True   # its end is sent by hand below
        h.conn.send(w.DATA, struct.pack("<BQ", 0, 0) + b"hel")
        h.sent = 3
        h.cut()
        h.attach()
        while not h.attached:
            h.step()
        self.assertIn(h.sent, (0, 3))
        h.conn.send(w.DATA, struct.pack("<BQ", 0, h.sent) + h.stdin[h.sent:])
        h.conn.send(w.WINSIZE, struct.pack("<HH", 5, 6))
        h.sent = 6
        while b"got hello" not in h.out[1]:
            h.step()
        h.conn.send(w.EOF, struct.pack("<BQ", 0, 6))
        time.sleep(0.1)
        h.cut()
        h.attach()
        while h.attached < 2:
            h.step()
        self.assertTrue(h.stdin_ended)      # one ^D, not two
        h.run()
        self.assertTrue(h.out[1].endswith(b"got hello\r\nend\r\n5 6\r\n"), h.out[1])

    def test_attach_takes_it_from_another(self):
        h = self.started(["cat"], stdin=b"")
        old = h.conn
        h.attach()
        while not h.attached:
            h.step()
        self.assertIsNone(old.recv()[0])
        old.close()
        h.run()
        self.assertEqual(h.exit, (1, 0))

    def test_attach_storm(self):
        data = random.Random(9).randbytes(300000)
        h = self.started(["cat"], stdin=data)
        while len(h.out[1]) < 100000:
            h.send_stdin()
            h.step()
        others = []
        for i in range(200):
            conn = self.a.session()
            conn.send(w.ATTACH, w.attach_payload(h.ident, len(h.out[1])))
            others.append(conn)
            if len(others) > 10:
                others.pop(0).close()
        h.conn.close()
        h.attach()
        for conn in others:
            conn.close()
        h.run()
        self.assertEqual((h.out[1], h.exit), (data, (1, 0)))

    def test_unknown_id_and_bad_offsets(self):
        conn = self.a.session()
        conn.send(w.ATTACH, w.attach_payload(os.urandom(16)))
        kind, p = conn.recv()
        self.assertEqual((kind, p[:5]), (w.FAILED, struct.pack("<BI", 125, 2)))
        conn.close()
        h = self.started(["sh", "-c", "printf abcdef; read x; echo $x"], stdin=b"z\n")
        while len(h.out[1]) < 6:
            h.step()
        if h.told[1] < 4:       # step() acknowledges by chance; never backwards
            h.conn.send(w.ACK, struct.pack("<BQ", 1, 4))
        h.send_stdin()
        time.sleep(0.1)
        for stdin, out, err in ((0, 3, 0), (0, 99, 0), (0, 6, 1), (1, 6, 0), (0, 1 << 63, 0)):
            conn = self.a.session()
            conn.send(w.ATTACH, w.attach_payload(h.ident, out, err, stdin))
            self.assertIsNone(conn.recv()[0])
            conn.close()
        h.run()         # nothing of that has harmed it
        self.assertEqual((h.out[1], h.exit), (b"abcdefz\n", (1, 0)))

    def test_attach_needs_the_secret(self):
        h = self.started(["sleep", "100"])
        conn = self.a.connect()
        conn.send(w.ATTACH, w.attach_payload(h.ident))
        self.assertIsNone(conn.recv()[0])
        conn.close()
        h.conn.send(w.HANGUP)
        h.conn.close()
        self.assertTrue(self.gone_within(h.pid, 1))

    def test_hung_up_is_final(self):
        h = self.started(["sh", "-c", "trap '' HUP; while :; do sleep 0.1; done"])
        h.conn.send(w.HANGUP)
        h.conn.close()
        time.sleep(0.2)
        h.attach()
        h.run()
        self.assertEqual(h.failed, (125, 3))
        self.assertTrue(self.gone_within(h.pid, 6))

    def test_too_many(self):
        hosts = [self.started(["sleep", "0.5"]) for _ in range(64)]
        for h in hosts:
            h.cut()
        time.sleep(1)       # all have ended, none was told: the next EXEC takes the oldest's place
        for _ in range(3):
            self.assertEqual(self.a.run(["true"]).exit, (1, 0))
        kept = 0
        for h in hosts:
            h.attach()
            h.run()
            kept += h.exit == (1, 0)
            self.assertTrue(h.exit or h.failed == (125, 3))
        self.assertGreaterEqual(kept, 61)


class AttachLifeTest(unittest.TestCase):
    def setUp(self):
        self.a = Agent()

    def tearDown(self):
        self.a.stop()

    def test_waits_for_a_replaced_device(self):
        """The call home was lost too: the session waits for that, and 10 s longer."""
        h = Host(self.a, ["sh", "-c", "sleep 5; echo later"])
        h.start()
        while h.pid is None:
            h.step()
        self.a.home.close()
        h.cut()
        silent, _ = self.a.listener.accept()    # no WELCOME yet
        time.sleep(4)
        silent.close()
        self.a.home, _ = accept_home(self.a.listener, self.a.secret)
        time.sleep(3)
        h.attach()
        h.run()
        self.assertEqual((h.out[1], h.exit, h.attached), (b"later\n", (1, 0), 1))

    def test_main(self):
        h = Host(self.a, ["sh", "-c", "sleep 0.3; exit 3"], flags=w.MAIN)
        h.start()
        while h.pid is None:
            h.step()
        for _ in range(3):
            h.cut()
            h.attach()
            while not h.attached:
                h.step()
        time.sleep(0.5)
        h.cut()
        time.sleep(0.5)
        self.assertIsNone(self.a.proc.poll())   # its status has not been fetched
        h.attach()
        h.run()
        self.assertEqual(h.exit, (1, 3))
        self.assertEqual(self.a.proc.wait(5), 0)

    def test_main_without_its_host(self):
        h = Host(self.a, ["true"], flags=w.MAIN)
        h.start()
        while h.pid is None:
            h.step()
        h.cut()
        start = time.time()
        self.assertEqual(self.a.proc.wait(5), 0)
        self.assertGreater(time.time() - start, 1.5)


if __name__ == "__main__":
    unittest.main(verbosity=2)
