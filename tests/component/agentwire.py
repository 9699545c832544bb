"""The agent wire (src/proto/agent-wire.h) for tests: a second, independent reading of it."""
import os
import socket
import struct

HELLO, WELCOME, READY, MAIN_EXIT, LOG, STOP, DONE, CLOCK, ENTROPY, PING, PONG, NETWORK, FREEZE, THAW, MOUNT, UNMOUNT = range(1, 17)
AUTH, AUTH_OK, EXEC, ATTACH, FORWARD, INFO = range(0x20, 0x26)
COPY_GET, COPY_PUT, COPY_OK, COPY_DATA, COPY_END, COPY_NOTE, COPY_DONE = range(0x26, 0x2d)
STARTED, FAILED, FORWARD_OK, INFO_REPLY, ATTACHED = range(0x30, 0x35)
DATA, EOF, ACK, SIGNAL, WINSIZE, EXIT, EXIT_ACK, SIGNAL_N, SIGNAL_ACK, HANGUP = range(0x40, 0x4a)
TTY, STDIN, MAIN = 1, 2, 4
WINDOW, CHUNK = 65536, 32768


def text(s):
    b = s.encode() if isinstance(s, str) else s
    return struct.pack("<I", len(b)) + b


def vector(v):
    return struct.pack("<I", len(v)) + b"".join(text(s) for s in v)


def frame(kind, payload=b""):
    return struct.pack("<IBBH", len(payload), kind, 0, 0) + payload


class Conn:
    def __init__(self, sock):
        self.sock = sock
        self.buf = b""

    def send(self, kind, payload=b""):
        self.sock.sendall(frame(kind, payload))

    def recv(self):
        """(type, payload), or (None, b"") at the end."""
        while True:
            if len(self.buf) >= 8:
                n, kind, _, _ = struct.unpack_from("<IBBH", self.buf)
                if len(self.buf) >= 8 + n:
                    payload, self.buf = self.buf[8:8 + n], self.buf[8 + n:]
                    return kind, payload
            try:
                more = self.sock.recv(1 << 17)
            except ConnectionResetError:
                more = b""
            if not more:
                return None, b""
            self.buf += more

    def close(self):
        self.sock.close()


def attach_payload(ident, out=0, err=0, stdin=0):
    return ident + struct.pack("<QQQ", stdin, out, err)


def exec_payload(argv, flags=0, user="", workdir="", term="", env=(), rows=0, cols=0, ident=None):
    return (struct.pack("<I", flags) + (ident or os.urandom(16)) + struct.pack("<HH", rows, cols)
            + text(user) + text(workdir) + text(term) + vector(argv) + vector(env))


class Result:
    def __init__(self):
        self.out = {1: b"", 2: b""}
        self.failed = self.exit = None
        self.eofs = set()


def run(conn, argv, stdin=None, ack=True, on_start=None, **kw):
    """A whole session: returns a Result. STDIN: bytes."""
    flags = kw.pop("flags", 0) | (STDIN if stdin is not None else 0)
    conn.send(EXEC, exec_payload(argv, flags, **kw))
    r = Result()
    sent = acked = 0
    stdin_eof = stdin is None
    while True:
        while stdin is not None and r.failed is None and sent < len(stdin) and sent - acked < WINDOW:
            part = stdin[sent:sent + min(CHUNK, WINDOW - (sent - acked))]
            conn.send(DATA, struct.pack("<BQ", 0, sent) + part)
            sent += len(part)
        if not stdin_eof and sent == len(stdin):
            conn.send(EOF, struct.pack("<BQ", 0, sent))
            stdin_eof = True
        kind, p = conn.recv()
        if kind is None:
            raise EOFError("connection ended")
        if kind == STARTED and on_start:
            on_start(conn)
        elif kind == FAILED:
            code, errno, n = struct.unpack_from("<BII", p)
            r.failed = (code, errno, p[9:9 + n].decode())
            return r
        elif kind == DATA:
            stream, offset = struct.unpack_from("<BQ", p)
            assert offset == len(r.out[stream]), "offset"
            r.out[stream] += p[9:]
            if ack:
                conn.send(ACK, struct.pack("<BQ", stream, len(r.out[stream])))
        elif kind == EOF:
            stream, offset = struct.unpack("<BQ", p)
            assert offset == len(r.out[stream])
            r.eofs.add(stream)
        elif kind == ACK:
            _, acked = struct.unpack("<BQ", p)
            assert acked <= sent
        elif kind == EXIT:
            k, code, core = struct.unpack("<BIB", p)
            r.exit = (k, code)
            conn.send(EXIT_ACK)
            return r
