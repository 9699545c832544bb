#!/usr/bin/env python3
"""`uvms cp` without a VM: a fake supervisor hands over connections to the real agent, or to an evil one."""
import io
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import agentwire as w  # noqa: E402
from fakesupervisor import Supervisor  # noqa: E402
from guestagent import Agent  # noqa: E402


UVMS = os.environ.get("UVMS", "build/uvms")
LIST = ("find . -printf '%P|%y|%m|%T@|%l|%n|%s|%U:%G\\n' | LC_ALL=C sort")


class Case(unittest.TestCase):
    def connect(self):
        raise NotImplementedError

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="uvms-cp-"))
        self.dir.chmod(0o711)
        self.supervisor = Supervisor(self.dir, "vm", self.connect)
        self.host, self.guest = self.dir / "host", self.dir / "guest"
        self.host.mkdir()
        self.guest.mkdir()

    def tearDown(self):
        self.supervisor.close()
        shutil.rmtree(self.dir)

    def popen(self, *args, **kw):
        return subprocess.Popen([UVMS, "cp", *map(str, args)], env=self.supervisor.env, cwd=self.host, **kw)

    def cp(self, *args, want=0, **kw):
        p = subprocess.run([UVMS, "cp", *map(str, args)], env=self.supervisor.env, cwd=self.host,
                           capture_output=True, timeout=60, **kw)
        self.assertEqual(p.returncode, want, p.stderr)
        return p

    def vm(self, path=""):
        return f"vm:{self.guest}/{path}".rstrip("/")


class HonestGuest(Case):
    @classmethod
    def setUpClass(cls):
        cls.a = Agent()

    @classmethod
    def tearDownClass(cls):
        cls.a.stop()

    def connect(self):
        return self.a.session().sock

    def tree(self, top):
        d = top / "tree"
        (d / "a/empty").mkdir(parents=True)
        (d / "a/file").write_bytes(os.urandom(300000))
        os.link(d / "a/file", d / "hard")
        (d / "abs").symlink_to("/etc/passwd")
        (d / "rel").symlink_to("../../nowhere")
        os.mkfifo(d / "fifo")
        (d / os.fsdecode(b"odd\n\x1b[31m\xff")).write_bytes(b"x")
        (d / ("n" * 255)).write_bytes(b"")
        with open(d / "sparse", "wb") as f:
            f.seek(50 << 20)
            f.write(b"end")
            f.truncate(60 << 20)
        (d / "a/file").chmod(0o640)
        (d / "a").chmod(0o1750)
        os.utime(d / "a/empty", ns=(0, 1234567890123456789))
        os.utime(d / "hard", ns=(0, 987654321))
        return d

    def listing(self, directory):
        return subprocess.check_output(LIST, shell=True, cwd=directory)

    def test_there_and_back(self):
        tree = self.tree(self.host)
        self.cp("tree", self.vm())
        self.assertEqual(self.listing(tree), self.listing(self.guest / "tree"))
        self.assertLess((self.guest / "tree/sparse").stat().st_blocks, 200)
        self.cp(self.vm("tree"), "back")
        self.assertEqual(self.listing(tree), self.listing(self.host / "back"))
        self.assertLess((self.host / "back/sparse").stat().st_blocks, 200)
        for name in ("a/file", "sparse"):
            self.assertTrue((tree / name).read_bytes() == (self.host / "back" / name).read_bytes())

    def test_where_things_go(self):
        (self.host / "f").write_text("one")
        (self.host / "d/sub").mkdir(parents=True)
        (self.host / "l").symlink_to("f")
        self.cp("f", self.vm("new"))
        self.cp("f", self.vm())
        self.cp("f", "d", self.vm())
        self.cp("d", self.vm("e"))
        self.cp("d/.", self.vm("contents"))
        self.cp("l", self.vm("link"))
        self.cp("-L", "l", self.vm("followed"))
        self.cp("d", self.vm("slash") + "/")
        self.assertEqual(sorted(str(p.relative_to(self.guest)) for p in self.guest.rglob("*")),
                         ["contents", "contents/sub", "d", "d/sub", "e", "e/sub", "f", "followed",
                          "link", "new", "slash", "slash/sub"])
        self.assertEqual(os.readlink(self.guest / "link"), "f")
        self.assertEqual((self.guest / "followed").read_text(), "one")
        for bad in (("f", self.vm("no/such")), ("f", "d", self.vm("new")), ("f", self.vm("new") + "/"),
                    ("f", self.vm("d")[:-1] + "d/sub/x/"), ("d", self.vm("f")), ("nosuch", self.vm()),
                    (self.vm("nosuch"), "."), (self.vm("f"), "no/such"), (self.vm("f"), self.vm("d"), "x")):
            self.cp(*bad, want=1)
        for bad in (("f", "d"), ("f", "x/f", self.vm()), ("vm:", "."), ("f", "vm:"), ("-", "f", self.vm())):
            self.cp(*bad, want=2)
        self.cp("vm:a", "vm:b", want=6)
        self.cp(self.vm("f"), "./with:colon")
        self.assertEqual((self.host / "with:colon").read_text(), "one")
        self.assertEqual(len(list(self.guest.rglob("*"))), 12)

    def test_relative_and_root(self):
        relative = str(self.guest).lstrip("/")
        (self.guest / "f").write_text("x")
        (self.guest / "up").symlink_to("../" * 40 + str(self.guest).lstrip("/"))
        self.cp(f"vm:{relative}/f", "a")
        self.cp(f"vm:/../..{self.guest}/up/f", "b")
        self.assertTrue((self.host / "a").exists() and (self.host / "b").exists())

    def test_streams(self):
        self.tree(self.host)
        tar = subprocess.check_output(["tar", "c", "-S", "tree"], cwd=self.host)
        self.cp("-", self.vm(), input=tar)
        out = self.cp(self.vm("tree"), self.vm("tree/a"), "-").stdout
        names = tarfile.open(fileobj=io.BytesIO(out)).getnames()
        self.assertIn("tree/a/file", names)
        self.assertIn("a/file", names)
        listed = subprocess.run(["tar", "tv"], input=out, capture_output=True, check=True)
        self.assertEqual(listed.stderr, b"")
        p = self.cp("-", self.vm(), input=tar[:40000], want=1)
        self.assertIn(b"ends too early", p.stderr)
        p = self.cp("-", self.vm(), input=b"this is no tar" * 100, want=1)
        self.assertIn(b"malformed", p.stderr)
        self.cp("-", self.vm("nosuch"), input=tar, want=1)

    def test_setuid_and_owners(self):
        (self.guest / "f").write_text("x")
        (self.guest / "f").chmod(0o6755)
        self.cp(self.vm("f"), "a")
        self.cp("-a", self.vm("f"), "b")
        self.assertEqual((self.host / "a").stat().st_mode & 0o7777, 0o755)
        self.assertEqual((self.host / "b").stat().st_mode & 0o7777, 0o6755)
        self.cp("--no-owner", "b", self.vm("c"))
        self.assertEqual((self.guest / "c").stat().st_mode & 0o7777, 0o755)
        if os.geteuid() == 0:
            os.chown(self.host / "b", 1234, 4321)
            self.cp("b", self.vm("d"))
            self.assertEqual((self.guest / "d").stat().st_uid, 1234)
            self.cp(self.vm("d"), "e")
            self.assertEqual((self.host / "e").stat().st_uid, 0)

    def test_failures_are_counted_and_named(self):
        (self.host / "t").mkdir()
        for name in ("a", "b", "c"):
            (self.host / "t" / name).write_text(name)
            (self.guest / "t" / name).mkdir(parents=True)
        p = self.cp("t/.", self.vm("t"), want=1)
        self.assertIn(b"3 failed; the first was vm:", p.stderr)
        self.assertIn(b"Is a directory", p.stderr)
        s = socket.socket(socket.AF_UNIX)
        s.bind(str(self.host / "t/socket"))
        p = self.cp("t/socket", "t/a", self.vm())
        self.assertIn(b"warning: socket: left out: a socket", p.stderr)
        s.close()

    def test_limits_of_the_host(self):
        (self.guest / "t").mkdir()
        for name, size in (("a", 100), ("b", 5 << 20), ("c", 100)):
            (self.guest / "t" / name).write_bytes(bytes(size))
        p = subprocess.run(["bash", "-c", f"ulimit -f 1024 -n 24; exec {UVMS} cp {self.vm('t')} ."], cwd=self.host,
                           env=self.supervisor.env, capture_output=True)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertIn(b"t/b: File too large", p.stderr)
        self.assertEqual(sorted(os.listdir(self.host / "t")), ["a", "c"])

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_full_disk_of_the_host(self):
        (self.guest / "big").write_bytes(bytes(3 << 20))
        script = (f"mount -t tmpfs -o size=1m none {self.host} && cd {self.host} && {UVMS} cp {self.vm('big')} . ; "
                  "s=$?; ls; exit $s")
        p = subprocess.run(["unshare", "-m", "sh", "-c", script], env=self.supervisor.env, capture_output=True)
        self.assertEqual((p.returncode, p.stdout), (1, b""), p.stderr)
        self.assertIn(b"No space left on device", p.stderr)
        self.assertIn(b"the host's disk is full", p.stderr)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_device_nodes_stay(self):
        try:
            os.mknod(self.guest / "null", 0o20666, os.makedev(1, 3))
        except OSError as e:
            self.skipTest(str(e))
        (self.host / "f").write_text("x")
        p = self.cp("f", self.vm("null"), want=1)
        self.assertIn(b"File exists", p.stderr)
        p = self.cp(self.vm("null"), "x")
        self.assertIn(b"left out: a device node", p.stderr)
        self.assertFalse((self.host / "x").exists())

    def test_interrupted(self):
        """The half of a file goes, on the guest's side, when the host stops or dies."""
        tar = io.BytesIO()
        with tarfile.open(fileobj=tar, mode="w") as t:
            info = tarfile.TarInfo("half")
            info.size = 1 << 20
            t.addfile(info, io.BytesIO(bytes(1 << 20)))
        for signo, want in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
            p = self.popen("-", self.vm(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
            p.stdin.write(tar.getvalue()[:500000])
            p.stdin.flush()
            self.until(lambda: (self.guest / "half").exists())
            self.assertEqual(self.a.run(["true"]).exit, (1, 0))     # a session beside it
            p.send_signal(signo)
            self.assertEqual(p.wait(10), want)
            if want > 0:
                self.assertIn(b"interrupted", p.stderr.read())
            self.until(lambda: not (self.guest / "half").exists())
            p.stdin.close()
            p.stderr.close()

    def until(self, true, seconds=10):
        end = time.monotonic() + seconds
        while not true():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def test_hostile_host(self):
        """It costs its own copy; nothing is left of it, and the agent goes on."""
        fds = self.a.fds()
        put = struct.pack("<I", 0) + w.text(str(self.guest) + "/x")
        block = bytes([0xff]) * 512
        for frames in ([(w.COPY_DATA, block)], [(w.COPY_END, b""), (w.COPY_END, b"")], [(w.COPY_OK, b"")],
                       [(w.COPY_DATA, b"")], [(w.EXEC, b"")], [(w.COPY_DATA, bytes(65537))], []):
            conn = self.a.session()
            conn.send(w.COPY_PUT, put)
            self.assertEqual(conn.recv()[0], w.COPY_OK)
            for kind, payload in frames:
                try:
                    conn.send(kind, payload)
                except BrokenPipeError:
                    break
            conn.sock.shutdown(socket.SHUT_WR)
            kind = conn.recv()[0]
            self.assertIn(kind, (w.COPY_DONE, None))
            conn.close()
        for flags, path in ((32, b"/tmp"), (0, b""), (0, b"a" * 4096), (0, b"\0")):
            conn = self.a.session()
            conn.send(w.COPY_PUT, struct.pack("<I", flags) + w.text(path))
            self.assertIn(conn.recv()[0], (None, w.FAILED))
            conn.close()
        self.assertEqual(list(self.guest.iterdir()), [])
        self.until(lambda: self.a.fds() <= fds)
        self.assertEqual(self.a.run(["true"]).exit, (1, 0))

    def test_limit(self):
        put = struct.pack("<I", 8) + w.text(str(self.guest))
        conns = [self.a.session() for _ in range(16)]
        for conn in conns:
            conn.send(w.COPY_PUT, put)
            self.assertEqual(conn.recv()[0], w.COPY_OK)
        p = self.cp(self.vm(), ".", want=1)
        self.assertIn(b"too many copies: 16 are at work", p.stderr)
        for conn in conns:
            conn.close()
        self.until(lambda: self.cp_works())

    def cp_works(self):
        return subprocess.run([UVMS, "cp", self.vm(), "."], env=self.supervisor.env, cwd=self.host,
                              capture_output=True).returncode == 0


class HostileGuest(Case):
    """What an evil agent sends to somebody who asked for vm:/x."""

    def connect(self):
        ours, theirs = socket.socketpair()
        threading.Thread(target=self.play, args=(w.Conn(ours),), daemon=True).start()
        return theirs

    def play(self, conn):
        self.asked = conn.recv()
        try:
            self.evil(conn)
        except (BrokenPipeError, ConnectionResetError):
            pass
        conn.close()

    def stream(self, data, error=0, done=True):
        def evil(conn):
            conn.send(w.COPY_OK)
            for at in range(0, len(data), 65536):
                conn.send(w.COPY_DATA, data[at:at + 65536])
            if done:
                conn.send(w.COPY_DONE, struct.pack("<IQ", error, 1) + w.text("where\n"))
            conn.sock.shutdown(socket.SHUT_WR)
            conn.recv()
        self.evil = evil

    def tar(self, *entries):
        out = io.BytesIO()
        t = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)
        for name, kind, link, data in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o6777
            t.addfile(info, io.BytesIO(data))
        t.close()
        return out.getvalue()

    def untouched(self):
        self.assertEqual((self.dir / "victim").read_text(), "mine")
        self.assertEqual((self.dir / "victim").stat().st_nlink, 1)
        self.assertEqual((self.host / ".profile").read_text(), "mine")
        self.assertEqual(sorted(os.listdir(self.dir)), ["guest", "host", "run", "state", "victim"])
        self.assertLessEqual(set(os.listdir(self.host)), {".profile", "x"})

    def get(self, want=1):
        shutil.rmtree(self.host / "x", ignore_errors=True)
        if (self.host / "x").is_symlink() or (self.host / "x").exists():
            (self.host / "x").unlink()
        p = self.cp("vm:/x", ".", want=want)
        self.untouched()
        self.assertNotIn(b"\x1b", p.stderr)
        return p.stderr

    def setUp(self):
        super().setUp()
        (self.dir / "victim").write_text("mine")
        (self.host / ".profile").write_text("mine")

    def test_archives(self):
        f, d, l, h = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
        evil = (b"", b"evil")
        for entries in (
                [(".profile", f, "", b"evil")], [("../victim", f, "", b"evil")],
                [("x/../../victim", f, "", b"evil")], [(f"{self.dir}/victim", f, "", b"evil")],
                [("x", l, "..", b""), ("x/victim", f, "", b"evil")],
                [("x", d, "", b""), ("x/l", l, "../..", b""), ("x/l/victim", f, "", b"evil")],
                [("x", d, "", b""), ("x/l", l, str(self.dir), b""), ("x/l/new", d, "", b"")],
                [("x", d, "", b""), ("x/h", h, "../victim", b"")],
                [("x", d, "", b""), ("x/h", h, ".profile", b""), ("x/h", f, "", b"evil")],
                [("x", tarfile.CHRTYPE, "", b"")], [("x", tarfile.BLKTYPE, "", b"")],
                [("x/" + "n" * 65536, f, "", b"")], [("y\x1b[31m\n", f, "", b"")],
                [("x", b"Z", "", b"")]):
            self.stream(self.tar(*entries))
            self.get()
        self.stream(self.tar(("x", f, "", b"good")))
        self.get(want=0)
        self.assertEqual((self.host / "x").stat().st_mode & 0o7777, 0o777)

    def test_streams(self):
        good = self.tar(("x", tarfile.REGTYPE, "", bytes(5000)))
        for data in (good[:3000], b"\xff" * 512, bytes(3 << 20), good[:512] + b"\xff" * 4096):
            self.stream(data)
            self.get()
            self.assertFalse((self.host / "x").exists())
        self.stream(good, error=5)
        self.assertIn(b"where\\x0a", self.get())
        self.stream(good[:3000], done=False)
        self.assertIn(b"the copy is incomplete", self.get())
        self.assertFalse((self.host / "x").exists())

    def test_frames(self):
        def old(conn):
            pass

        def refuse(conn):
            conn.send(w.FAILED, struct.pack("<BI", 1, 2) + w.text("no\x1b[31m\n"))
            conn.recv()

        def garbage(conn):
            conn.sock.sendall(os.urandom(4096))

        def data_first(conn):
            conn.send(w.COPY_DATA, b"x" * 512)

        def flood(conn):
            conn.send(w.COPY_OK)
            for i in range(100000):
                conn.send(w.COPY_NOTE, struct.pack("<BI", 1, 13) + w.text("bad\x1b[31m"))
            conn.send(w.COPY_DONE, struct.pack("<IQ", 0, 1) + w.text(""))
            conn.recv()

        def exec_frames(conn):
            conn.send(w.COPY_OK)
            conn.send(w.EXIT, struct.pack("<BIB", 1, 0, 0))

        for self.evil, said in ((old, b"older than this"), (refuse, b"no\\x1b[31m"), (garbage, b"uvms: "),
                                (data_first, b"broke the protocol"), (exec_frames, b"broke the protocol"),
                                (flood, b"100000 failed; the first was vm:bad\\x1b[31m")):
            text = self.get()
            self.assertIn(said, text)
            self.assertLess(len(text), 4096)

    def test_silent_guest_and_signal(self):
        """^C while the guest stalls: the half file goes."""
        good = self.tar(("x", tarfile.REGTYPE, "", bytes(5000)))

        def stall(conn):
            conn.send(w.COPY_OK)
            conn.send(w.COPY_DATA, good[:3000])
            conn.recv()
        self.evil = stall
        p = self.popen("vm:/x", ".", stderr=subprocess.PIPE)
        end = time.monotonic() + 10
        while not (self.host / "x").exists():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(5), 130)
        self.assertIn(b"x was not finished", p.stderr.read())
        p.stderr.close()
        self.assertFalse((self.host / "x").exists())

    def test_endless_guest_and_signal(self):
        """A guest that never pauses: ^C is heard all the same, and nothing grows."""
        note = w.frame(w.COPY_NOTE, struct.pack("<BI", 1, 13) + w.text("bad")) * 1000
        entry = self.tar(("x", tarfile.DIRTYPE, "", b""))[:512] * 100
        data = w.frame(w.COPY_DATA, entry)

        def flood(conn):
            conn.send(w.COPY_OK)
            while True:
                conn.sock.sendall(note + data)
        self.evil = flood
        p = self.popen("vm:/x", ".", stderr=subprocess.PIPE)
        time.sleep(1)
        status = pathlib.Path(f"/proc/{p.pid}/status").read_text()
        rss = int(next(l for l in status.splitlines() if l.startswith("VmRSS")).split()[1])
        p.send_signal(signal.SIGINT)
        self.assertEqual(p.wait(5), 130)
        p.stderr.close()
        if not os.environ.get("UVMS_SANITIZED"):
            self.assertLess(rss, 20000)

    def test_put_that_is_refused_midway(self):
        """The guest's disk is full: said at once, although nobody reads the rest."""
        def full(conn):
            conn.send(w.COPY_OK)
            conn.recv()
            conn.send(w.COPY_DONE, struct.pack("<IQ", 28, 1) + w.text("x/big"))
            conn.sock.shutdown(socket.SHUT_WR)
            while conn.recv()[0]:
                pass
        self.evil = full
        (self.guest / "big").write_bytes(bytes(8 << 20))
        p = self.cp(self.guest / "big", "vm:/x", want=1)
        self.assertIn(b"the guest's disk is full", p.stderr)
        self.assertIn(b"x/big", p.stderr)

    def test_progress_on_a_terminal(self):
        good = self.tar(("x", tarfile.REGTYPE, "", bytes(5000)))

        def slow(conn):
            conn.send(w.COPY_OK)
            for at in range(0, len(good), 1024):
                conn.send(w.COPY_DATA, good[at:at + 1024])
                time.sleep(0.15)
            conn.send(w.COPY_DONE, struct.pack("<IQ", 0, 1) + w.text(""))
            conn.recv()
        self.evil = slow
        for options, shown in (((), True), (("-q",), False)):
            ours, theirs = os.openpty()
            p = self.popen(*options, "vm:/x", ".", stderr=theirs)
            self.assertEqual(p.wait(20), 0)
            os.close(theirs)
            try:
                text = os.read(ours, 65536)
            except OSError:
                text = b""
            os.close(ours)
            self.assertEqual(b"KiB/s  x" in text or b"B/s  x" in text, shown, text)


if __name__ == "__main__":
    unittest.main(verbosity=2)
