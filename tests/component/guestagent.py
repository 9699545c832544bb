"""The guest agent on this host, without a VM: uvms-guest agent with UNIX sockets for vsock."""
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time

import agentwire as w

GUEST = os.environ.get("UVMS_GUEST", "build/uvms-guest")


def accept_home(listener, secret):
    sock, _ = listener.accept()
    conn = w.Conn(sock)
    kind, p = conn.recv()
    assert kind == w.HELLO and p[5:37] == secret and len(p) == 53, (kind, p)
    conn.send(w.WELCOME, struct.pack("<IQ", 1, time.time_ns()) + bytes(64))
    return conn, p[4]


class Agent:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="uvms-agent-")
        self.secret = os.urandom(32)
        path = lambda name: os.path.join(self.dir, name)
        with open(path("secret"), "wb") as f:
            f.write(self.secret)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.settimeout(10)
        self.listener.bind(path("home"))
        self.listener.listen()
        self.path = path("agent")
        self.proc = subprocess.Popen([GUEST, "agent", "--test-socket", self.path, "--test-home",
                                      path("home"), "--secret-file", path("secret")])
        self.home, self.stage = accept_home(self.listener, self.secret)
        self.home.sock.settimeout(10)
        self.ready = self.home.recv()

    def connect(self):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(15)
        sock.connect(self.path)
        return w.Conn(sock)

    def session(self, secret=None):
        conn = self.connect()
        conn.send(w.AUTH, struct.pack("<I", 1) + (secret or self.secret))
        kind, _ = conn.recv()
        if kind is None:
            conn.close()
            return None
        assert kind == w.AUTH_OK
        return conn

    def run(self, argv, **kw):
        kw.setdefault("user", str(os.getuid()))
        conn = self.session()
        try:
            return w.run(conn, argv, **kw)
        finally:
            conn.close()

    def fds(self):
        return len(os.listdir("/proc/%d/fd" % self.proc.pid))

    def stop(self):
        self.proc.kill()
        self.proc.wait()
        self.listener.close()
        self.home.close()
        shutil.rmtree(self.dir)
