#!/usr/bin/env python3
"""`uvms exec` without a VM: the real agent behind a fake supervisor and a device that can be replaced."""
import hashlib
import os
import pathlib
import random
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
ME = str(os.getuid())


class Device:
    """Carries connections to the agent; cut() loses all of them with what is on its way."""

    def __init__(self, agent):
        self.agent, self.pairs, self.lock = agent, [], threading.Lock()
        self.stalled = self.refusing = False
        self.carried = self.opened = 0
        self.cut_at = []    # when so many bytes were carried

    def connect(self):
        if self.refusing:
            return None
        ours, theirs = socket.socketpair()
        guest = self.agent.session().sock
        guest.settimeout(None)
        with self.lock:
            self.pairs.append((ours, guest))
            self.opened += 1
        threading.Thread(target=self.carry, args=[ours, guest], daemon=True).start()
        theirs.setblocking(False)
        return theirs

    def carry(self, a, b):
        try:
            while True:
                while self.stalled:
                    time.sleep(0.01)
                for s in select.select([a, b], [], [], 0.05)[0]:
                    data = s.recv(65536)
                    if not data:
                        return
                    (b if s is a else a).sendall(data)
                    self.carried += len(data)
                if self.cut_at and self.carried >= self.cut_at[0]:
                    self.cut_at.pop(0)
                    self.cut()
        except (OSError, ValueError):
            pass
        finally:
            for s in (a, b):
                self.shut(s)
                s.close()

    def shut(self, s):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def cut(self):
        with self.lock:
            pairs, self.pairs = self.pairs, []
        for pair in pairs:
            for s in pair:
                self.shut(s)


class SessionTest(unittest.TestCase):
    version = 2

    @classmethod
    def setUpClass(cls):
        cls.a = Agent()

    @classmethod
    def tearDownClass(cls):
        cls.a.stop()

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="uvms-session-"))
        self.dir.chmod(0o711)
        self.device = Device(self.a)
        self.supervisor = Supervisor(self.dir, "vm", self.device.connect, self.version)

    def tearDown(self):
        self.device.stalled = False
        self.device.cut()
        self.supervisor.close()
        shutil.rmtree(self.dir)

    def popen(self, *args, **kw):
        kw.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([UVMS, "exec", "-u", ME, "vm", "--", *args], env=self.supervisor.env,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)

    def run_to_end(self, p, stdin=None, timeout=60):
        try:
            out, err = p.communicate(stdin, timeout=timeout)
        finally:
            p.kill()
        return p.returncode, out, err

    def begin(self, script, traps=""):
        """A shell that has said "ready", once it has set its traps."""
        p = self.popen("sh", "-c", f"{traps}echo ready; {script}")
        self.assertEqual(os.read(p.stdout.fileno(), 6), b"ready\n")
        return p


class Replaced(SessionTest):
    def test_cuts_in_both_directions(self):
        data = random.Random(5).randbytes(16 << 20)
        self.device.cut_at = sorted(random.Random(6).randrange(30 << 20) for _ in range(60))
        code, out, err = self.run_to_end(self.popen("cat", stdin=subprocess.PIPE), data)
        self.assertEqual((code, err), (0, b""))
        self.assertEqual(hashlib.sha256(out).digest(), hashlib.sha256(data).digest())
        self.assertGreater(self.device.opened, 40)

    def test_slow_reader(self):
        self.device.cut_at = list(range(10000, 2000000, 100000))
        p = self.popen("sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i of many; i=$((i+1)); done; exit 9")
        out = b""
        while True:
            part = os.read(p.stdout.fileno(), 3000)
            if not part:
                break
            out += part
            time.sleep(0.001)
        self.assertEqual(out, b"".join(b"line %d of many\n" % i for i in range(20000)))
        self.assertEqual(p.wait(10), 9)

    def test_in_silence(self):
        p = self.begin("sleep 1; echo end; exit 3")
        self.device.cut()
        self.assertEqual(self.run_to_end(p), (3, b"end\n", b""))
        self.assertEqual(self.device.opened, 2)

    def test_at_the_start(self):
        for at in (1, 60, 100, 120, 130, 140, 150):
            self.device.carried, self.device.cut_at = 0, [at]
            self.assertEqual(self.run_to_end(self.popen("sh", "-c", "echo once; exit 4")),
                             (4, b"once\n", b""), at)

    def test_refused_for_a_while(self):
        p = self.begin("sleep 0.5; echo end; exit 3")
        self.device.refusing = True
        self.device.cut()
        time.sleep(1.5)
        self.device.refusing = False
        self.assertEqual(self.run_to_end(p), (3, b"end\n", b""))

    def test_failed_command(self):
        code, _, err = self.run_to_end(self.popen("no-such-program"))
        self.assertEqual(code, 127)
        for at in (1, 60, 100, 120, 130, 140) * 3:
            self.device.carried, self.device.cut_at = 0, [at]
            code, _, err = self.run_to_end(self.popen("no-such-program"))
            self.assertEqual(code, 127, err)

    def test_signals(self):
        p = self.begin("while :; do sleep 0.02; done",
                       "n=0; trap 'n=$((n+1)); echo $n' USR1; trap 'exit 8' TERM; ")
        for i in range(1, 6):
            self.device.refusing = True
            self.device.cut()
            p.send_signal(signal.SIGUSR1)
            time.sleep(0.1)
            self.device.refusing = False
            self.assertEqual(os.read(p.stdout.fileno(), 100), b"%d\n" % i)
        p.send_signal(signal.SIGTERM)
        code, out, _ = self.run_to_end(p)
        self.assertEqual((code, out), (8, b""))

    def test_client_killed(self):
        p = self.begin("echo $$; exec sleep 100", "trap 'exit' HUP; ")
        pid = int(os.read(p.stdout.fileno(), 100))
        p.kill()
        p.wait()
        start = time.time()
        while os.path.exists("/proc/%d" % pid) and time.time() - start < 6:
            time.sleep(0.05)
        self.assertTrue(1 < time.time() - start < 4)


class Lost(SessionTest):
    def test_vm_ends(self):
        p = self.begin("sleep 100")
        self.supervisor.close()
        self.supervisor.close = lambda: None
        start = time.time()
        self.device.cut()
        code, _, err = self.run_to_end(p)
        self.assertEqual(code, 125, err)
        self.assertIn(b"the VM ended", err)
        self.assertLess(time.time() - start, 3)

    def test_device_stays_away(self):
        p = self.begin("sleep 100")
        self.device.refusing = True
        start = time.time()
        self.device.cut()
        code, _, err = self.run_to_end(p)
        self.assertEqual(code, 125, err)
        self.assertIn(b"the guest or its connection ended", err)
        self.assertTrue(9 < time.time() - start < 12)

    def test_given_up_by_the_guest(self):
        p = self.begin("sleep 100")
        self.device.refusing = True
        self.device.cut()
        time.sleep(3)
        self.device.refusing = False
        code, _, err = self.run_to_end(p)
        self.assertEqual(code, 125, err)
        self.assertIn(b"was given up", err)


class Unanswered(SessionTest):
    def test_silent_guest(self):
        p = self.begin("sleep 100")
        self.device.stalled = True
        start = time.time()
        p.send_signal(signal.SIGTERM)
        code, _, err = self.run_to_end(p)
        self.assertEqual(code, 128 + 15)
        self.assertIn(b"does not answer", err)
        self.assertTrue(4.5 < time.time() - start < 7)

    def test_second_signal(self):
        p = self.begin("sleep 100")
        self.device.stalled = True
        start = time.time()
        p.send_signal(signal.SIGTERM)
        time.sleep(1.2)
        p.send_signal(signal.SIGINT)
        code, _, err = self.run_to_end(p)
        self.assertEqual(code, 128 + 2)
        self.assertLess(time.time() - start, 3)

    def test_before_it_has_started(self):
        self.device.stalled = True
        p = self.popen("sleep", "100")
        time.sleep(0.3)
        p.send_signal(signal.SIGINT)
        self.assertEqual(self.run_to_end(p)[0], 128 + 2)

    def test_command_that_ignores_it(self):
        p = self.begin("sleep 6; exit 7", "trap '' TERM; ")
        p.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        p.send_signal(signal.SIGTERM)
        self.assertEqual(self.run_to_end(p)[0], 7)

    def test_nobody_takes_the_output(self):
        p = self.popen("head", "-c", "60000", "/dev/zero", pipesize=4096)
        time.sleep(0.7)
        self.assertIsNone(p.poll())         # the command has ended, its output waits for a reader
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(2), 128 + 15)

    def test_hung_up_when_abandoned(self):
        p = self.begin("echo $$; exec sleep 100")
        pid = int(os.read(p.stdout.fileno(), 100))
        self.device.stalled = True
        p.send_signal(signal.SIGTERM)
        time.sleep(1.1)
        p.send_signal(signal.SIGTERM)
        p.wait(5)
        self.device.stalled = False
        time.sleep(0.5)
        self.assertFalse(os.path.exists("/proc/%d" % pid))


class OldAgent(SessionTest):
    """The supervisor says no version: nothing new may be sent, and a lost connection is the end."""
    version = 1

    def test_signal(self):
        p = self.begin("while :; do sleep 0.05; done", "trap 'exit 5' TERM; ")
        p.send_signal(signal.SIGTERM)
        self.assertEqual(self.run_to_end(p)[0], 5)

    def test_lost(self):
        p = self.begin("sleep 100")
        self.device.cut()
        start = time.time()
        code, _, err = self.run_to_end(p)
        self.assertEqual(code, 125)
        self.assertLess(time.time() - start, 2)


del SessionTest

if __name__ == "__main__":
    unittest.main(verbosity=2)
