"""The vsock device of fake-ch by generic_vhost_user: Cloud Hypervisor's front-end, and Linux' driver on its rings.

The front-end connects to the socket as a client, says what v53 says in its order, and after a hang-up connects again, as it
does, every 100 ms for 60 s; SET_VRING_BASE has the driver's own index then, so that a device that believes it passes over
all buffers that wait. The driver gives its connections to the fake guest as ends of socket pairs.
"""
import collections
import mmap
import os
import queue
import select
import socket
import struct
import threading
import time

OWN_FEATURES = 1 << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 26 | 1 << 38
PROTOCOL_FEATURES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12 | 1 << 15 | 1 << 19
REPLY_ACK, MQ, CONFIG = 3, 0, 9
QUEUES, NUM = 3, 128
RX, TX, EVENT = range(QUEUES)
MEM_BYTES, USER = 16 << 20, 0x7f1200000000
SLOT = 4096	# of a buffer, both ways
BUFFERS = (0x100000, 0x200000, 0x300000)
HEADER = struct.Struct("<QQIIIHHIII")
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT, CREDIT_ASK = range(1, 8)
ROOM = 256 << 10	# what the host may send before it is read
SETS_STATE = {"NUM": 8, "BASE": 10, "ENABLE": 18}


class Gone(Exception):
    pass


class FrontEnd:
    def __init__(self, path):
        self.path, self.need_reply = path, 0
        end = time.monotonic() + 60
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(path)
                return
            except OSError:
                self.sock.close()
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def say(self, request, payload=b"", fds=(), reply=None):
        """Its reply of REPLY bytes, or, where there is none, the acknowledgement that it was done."""
        head = struct.pack("<III", request, 1 | self.need_reply, len(payload))
        try:
            socket.send_fds(self.sock, [head, payload], fds)
            if reply is None and not self.need_reply:
                return b""
            answer = self.exactly(12)
            size = struct.unpack("<III", answer)[2]
            body = self.exactly(size)
        except OSError as e:
            raise Gone(str(e)) from e
        if reply is None and body != bytes(8):
            raise Gone(f"request {request} was refused")
        if reply is not None and size != reply:
            raise Gone(f"request {request}: a reply of {size} bytes")
        return body

    def exactly(self, n):
        data = b""
        while len(data) < n:
            part = self.sock.recv(n - len(data))
            if not part:
                raise Gone("it hung up")
            data += part
        return data

    def u64(self, request):
        return struct.unpack("<Q", self.say(request, reply=8))[0]

    def negotiate(self):
        self.say(3)
        features = OWN_FEATURES & self.u64(1)
        protocol = PROTOCOL_FEATURES & self.u64(15)
        self.say(16, struct.pack("<Q", protocol))
        if protocol >> REPLY_ACK & 1:
            self.need_reply = 8
        if protocol >> MQ & 1 and self.u64(17) < QUEUES:
            raise Gone("Queue number is not correct")
        if not protocol >> CONFIG & 1:
            raise Gone("it has no configuration space")
        return features, protocol

    def config(self, offset, size):
        """A refusal panics the real one."""
        body = self.say(24, struct.pack("<III", offset, size, 0) + bytes(size), reply=12 + size)
        return body[12:]


class Ring:
    def __init__(self, mem, index):
        self.mem, self.at = mem, 0x10000 * (index + 1)
        self.avail = self.used = 0
        self.kick, self.call = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(2))

    def offer(self, i, addr, size, writable):
        struct.pack_into("<QIHH", self.mem, self.at + 16 * i, addr, size, 2 if writable else 0, 0)
        struct.pack_into("<H", self.mem, self.at + 0x1000 + 4 + 2 * (self.avail % NUM), i)
        self.avail = (self.avail + 1) & 0xffff
        struct.pack_into("<H", self.mem, self.at + 0x1000 + 2, self.avail)

    def collect(self):
        while self.used != struct.unpack_from("<H", self.mem, self.at + 0x2000 + 2)[0]:
            yield struct.unpack_from("<II", self.mem, self.at + 0x2000 + 4 + 8 * (self.used % NUM))
            self.used = (self.used + 1) & 0xffff
            struct.pack_into("<H", self.mem, self.at + 0x1000 + 4 + 2 * NUM, self.used)	# an interrupt for the next

    def notify(self):
        os.eventfd_write(self.kick, 1)


class Connection:
    def __init__(self, sock):
        self.sock = sock
        self.room, self.fwd, self.sent, self.got = 0, 0, 0, 0	# the host's, and ours
        self.ours_over = self.theirs_over = False

    def may_send(self):
        return self.room - (self.sent - self.fwd & 0xffffffff)


class VhostGuest:
    """ON_CALL(port, sock) takes what the host calls; a call that nobody wants is reset."""

    def __init__(self, path, on_call, wants):
        self.path, self.on_call, self.wants = path, on_call, wants
        self.front = FrontEnd(path)
        self.features, self.protocol = self.front.negotiate()
        self.mem_fd = os.memfd_create("ch_ram", os.MFD_CLOEXEC)	# it cannot be sealed
        os.ftruncate(self.mem_fd, MEM_BYTES)
        self.mem = mmap.mmap(self.mem_fd, MEM_BYTES)
        self.rings = [Ring(self.mem, i) for i in range(QUEUES)]
        self.connections, self.out, self.free = {}, collections.deque(), list(range(NUM))
        self.asks, self.next_port, self.over = queue.SimpleQueue(), 1000, False
        self.wake_fd, self.waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.cid = struct.unpack("<Q", self.front.config(0, 4) + self.front.config(4, 4))[0]
        self.activate()
        for q, n in ((RX, NUM), (EVENT, 8)):
            for i in range(n):
                self.rings[q].offer(i, BUFFERS[q] + i * SLOT, SLOT if q == RX else 4, True)
            self.rings[q].notify()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def state(self, what, index, n):
        self.front.say(SETS_STATE[what], struct.pack("<II", index, n))

    def activate(self):
        say = self.front.say
        say(2, struct.pack("<Q", self.features))
        say(5, struct.pack("<IIQQQQ", 1, 0, 0, MEM_BYTES, USER, 0), [self.mem_fd])
        for i in range(QUEUES):
            self.state("NUM", i, NUM)
        for i, r in enumerate(self.rings):
            say(9, struct.pack("<IIQQQQ", i, 0, USER + r.at, USER + r.at + 0x2000, USER + r.at + 0x1000, 0))
            self.state("BASE", i, r.avail)
            say(13, struct.pack("<Q", i), [r.call])
            say(12, struct.pack("<Q", i), [r.kick])
        self.enable(1)

    def enable(self, on):
        for i in range(QUEUES):
            self.state("ENABLE", i, on)

    def again(self):
        """It has hung up."""
        self.front.sock.close()
        self.front = FrontEnd(self.path)
        self.front.say(3)
        self.front.u64(1)
        self.front.say(16, struct.pack("<Q", self.protocol))
        self.front.need_reply = 8
        self.activate()

    # for other threads

    def ask(self, what):
        self.asks.put(what)
        os.write(self.waker, b"a")

    def connect(self, port):
        """A connection to the host's PORT, or ConnectionResetError."""
        ours, theirs = socket.socketpair()
        answer = queue.SimpleQueue()
        self.ask(lambda: self.call(port, theirs, answer))
        if not answer.get(timeout=30):
            raise ConnectionResetError(f"port {port}")
        return ours

    def pause(self, paused):
        done = threading.Event()
        self.ask(lambda: (self.enable(not paused), done.set()))
        done.wait(10)

    def close(self):
        if threading.current_thread() is not self.thread and self.thread.is_alive():
            self.ask(self.stop)
            self.thread.join(10)

    def shrink(self):
        """As a hostile one does; nothing of it is touched here any more."""
        def cut():
            os.ftruncate(self.mem_fd, 0)
            self.rings[TX].notify()
            self.over = True
            self.thread.name = "cut"
        self.ask(cut)

    # in its own thread

    def stop(self):
        self.over = True
        self.front.sock.close()
        for key in list(self.connections):
            self.drop(key)

    def run(self):
        while not self.over:
            try:
                self.turn()
            except Gone:
                self.again()

    def turn(self):
        poll = select.poll()
        poll.register(self.wake_fd, select.POLLIN)
        poll.register(self.front.sock, 0)
        for r in self.rings:
            poll.register(r.call, select.POLLIN)
        keys = {c.sock.fileno(): k for k, c in self.connections.items() if c.may_send() and not c.ours_over and c.room}
        for fd in keys:
            poll.register(fd, select.POLLIN)
        for fd, what in poll.poll():
            if fd == self.wake_fd:
                os.read(fd, 4096)
            elif fd == self.front.sock.fileno():
                raise Gone
            elif fd in keys:
                self.from_agent(keys[fd])
            else:
                os.eventfd_read(fd)
        while not self.asks.empty():
            self.asks.get()()
        if self.over:
            return
        for head, size in self.rings[RX].collect():
            at = BUFFERS[RX] + head * SLOT
            self.packet(bytes(self.mem[at:at + size]))
            self.rings[RX].offer(head, at, SLOT, True)
            self.rings[RX].notify()
        for head, _ in self.rings[EVENT].collect():
            for key in list(self.connections):	# the transport was reset
                self.drop(key)
            self.rings[EVENT].offer(head, BUFFERS[EVENT] + head * SLOT, 4, True)
            self.rings[EVENT].notify()
        self.free += [head for head, _ in self.rings[TX].collect()]
        self.flush()

    def flush(self):
        n = len(self.out)
        while self.out and self.free:
            data, i = self.out.popleft(), self.free.pop()
            at = BUFFERS[TX] + i * SLOT
            self.mem[at:at + len(data)] = data
            self.rings[TX].offer(i, at, len(data), False)
        if n != len(self.out):
            self.rings[TX].notify()

    def send(self, key, op, payload=b"", flags=0):
        c = self.connections.get(key)
        self.out.append(HEADER.pack(self.cid, 2, *key, len(payload), 1, op, flags, ROOM, c.got & 0xffffffff if c else 0)
                        + payload)

    def drop(self, key):
        c = self.connections.pop(key)
        if hasattr(c, "answer"):
            c.answer.put(False)
        c.sock.close()

    def call(self, port, sock, answer):
        key = (self.next_port, port)
        self.next_port -= 1	# below 1024, as root has it
        if self.next_port < 512:
            self.next_port = 1000
        self.connections[key] = Connection(sock)
        self.connections[key].answer = answer
        self.send(key, REQUEST)
        self.flush()

    def from_agent(self, key):
        c = self.connections.get(key)
        if not c:
            return
        try:
            data = c.sock.recv(min(c.may_send(), SLOT - HEADER.size))
        except OSError:
            data = b""
        if data:
            c.sent = c.sent + len(data) & 0xffffffff
            self.send(key, RW, data)
        else:
            c.ours_over = True
            self.send(key, SHUTDOWN, flags=3)

    def packet(self, data):
        _, cid, host_port, port, size, _, op, flags, room, fwd = HEADER.unpack_from(data)
        key = (port, host_port)
        c = self.connections.get(key)
        if op == REQUEST and not c and self.wants(port):
            ours, theirs = socket.socketpair()
            c = self.connections[key] = Connection(theirs)
            c.room, c.fwd = room, fwd
            self.send(key, RESPONSE)
            self.on_call(port, ours)
        elif not c:
            if op != RST:
                self.send(key, RST)
        else:
            c.room, c.fwd = room, fwd
            self.on_packet(key, c, op, flags, data[HEADER.size:HEADER.size + size])

    def on_packet(self, key, c, op, flags, payload):
        if op == RESPONSE:
            c.answer.put(True)
            del c.answer
        elif op == RW:
            try:
                c.sock.sendall(payload)
            except OSError:
                pass
            c.got += len(payload)
            self.send(key, CREDIT)
        elif op == CREDIT_ASK:
            self.send(key, CREDIT)
        elif op == SHUTDOWN and flags & 3 == 3:
            self.send(key, RST)
            self.drop(key)
        elif op == SHUTDOWN and flags & 2:
            try:
                c.sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass
        elif op == RST:
            self.drop(key)
