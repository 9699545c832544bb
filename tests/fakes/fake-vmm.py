#!/usr/bin/env python3
"""A VMM with a guest's agent in it, for the `null` back-end: no guest, all its manners and bad ones.

usage: fake-vmm.py FD    (the control socket; the initrd is descriptor 8, cwd the incarnation)
$FAKE holds words that change what it does; see the uses of `fake` below.
"""
import os
import select
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "component"))
import agentwire as wire  # noqa: E402

INITRD = 8
fake = set(os.environ.get("FAKE", "").split())
control = socket.socket(fileno=int(sys.argv[1]))


def say(line):
    control.sendall(line.encode() + b"\n")


def secret():
    data = os.pread(INITRD, os.fstat(INITRD).st_size, 0)
    at = data.rindex(b"UVMSBOOT")	# the last: the program has the word in it, too
    return data[at + 8 + 4 + 1 + 4:][:32]


def call_home(stage, key):
    s = socket.socket(socket.AF_UNIX)
    s.connect("vsock/v_1023")
    c = wire.Conn(s)
    c.send(wire.HELLO, struct.pack("<IB", 2 if "oldagent" in fake else 4, stage) + key + bytes(16))
    kind, _ = c.recv()
    return c if kind == wire.WELCOME else None


def agent():
    """The proven connection after READY, or None."""
    key = secret()
    if "wrongsecret" in fake:
        key = bytes(32)
    first = call_home(1, key)
    if first is None:
        return None
    first.close()
    c = call_home(2, key)
    if "junk" in fake:
        c.sock.sendall(b"\xff" * 64)
        time.sleep(0.3)
        c = call_home(2, key)
    if "mainexit" in fake:
        c.send(wire.MAIN_EXIT, struct.pack("<BIB", 1, 9, 0))
    if "wordy" in fake:	# more than a small buffer has, in pieces, with a small one behind it
        frames = wire.frame(wire.LOG, wire.text("x" * 3000)) + wire.frame(wire.PONG, bytes(8))
        for at in range(0, len(frames), 700):
            c.sock.sendall(frames[at:at + 700])
            time.sleep(0.02)
    if "unready" not in fake:
        unit = b"b\xff\xe2\x80\xc2\x9b.service\n" if "bytes" in fake else b"bad.service\n"
        state, text = (3, unit) if "degraded" in fake else (2, b"")
        c.send(wire.READY, struct.pack("<B", state) + wire.text(text))
    return c


def power_off():
    say("shutdown")
    sys.exit(0)


def on_stop(c):
    if "deaf" in fake:
        return
    c.send(wire.DONE, struct.pack("<BI", wire.STOP, 5 if "refuse" in fake else 0))
    if "refuse" not in fake and "slow" not in fake:
        power_off()


def on_mount(c, kind, payload):
    """What is mounted is only noted; WORD-error=N is answered once, by the first of the kind."""
    word = "mount" if kind == wire.MOUNT else "unmount"
    print(word, payload.split(b"/", 1)[1].decode(), file=sys.stderr, flush=True)
    errors = [w for w in fake if w.startswith(f"{word}-error=")]
    fake.difference_update(errors)
    if f"{word}-deaf" not in fake:
        c.send(wire.DONE, struct.pack("<BI", kind, int(errors[0].split("=")[1]) if errors else 0))


paused = out = False
memory = "what the guest had in mind\n"


def on_line(line):
    global paused, out
    word, _, rest = line.strip().partition(b" ")
    if word in (b"pause", b"resume"):
        paused = word == b"pause"
    if word == b"snapshot":
        if "diesaving" in fake:
            sys.exit(3)
        with open(os.path.join(rest.decode(), "memory"), "w") as f:
            f.write(memory)
    out = word == b"vsock-out" or (out and word != b"vsock-in")
    if word.startswith(b"vsock"):
        print(word.decode(), file=sys.stderr, flush=True)
    if line == b"power-button" and "acpi" in fake:
        say("powerdown")
        power_off()
    if line == b"quit" and "noquit" not in fake:
        sys.exit(0)


def main():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "die" in fake:
        print("cannot do that", file=sys.stderr, flush=True)
        if "bytes" in fake:
            os.write(2, b"\xff\xe2\x80\xa6\xc2\x9b1m\xe2\x80")
        sys.exit(1)
    if "mute" not in fake:
        say("up")
    c, was_out = agent() if "noagent" not in fake else None, False
    if "panic" in fake:
        time.sleep(0.2)
        say("panicked")
    if "crash" in fake:
        time.sleep(0.2)
        sys.exit(3)
    if "off" in fake:
        time.sleep(0.2)
        power_off()
    if "hangup" in fake:
        time.sleep(0.2)
        control.shutdown(socket.SHUT_RDWR)
        time.sleep(1000)
    if "babble" in fake:
        time.sleep(0.2)
        control.sendall(b"x" * 1000)
    if "reset" in fake:
        time.sleep(0.3)
        say("reset")
        c = agent()
    while "resetgo" in fake and not os.path.exists(os.environ["UVMS_RUNTIME_DIR"] + "/go"):
        time.sleep(0.05)
    if "resetgo" in fake:
        say("reset")
        c = agent()
    for _ in range(200 if "resets" in fake else 0):
        say("reset")
        c.sock.close()
        c = agent()
    while True:
        sources = [control] + ([c.sock] if c and not paused else [])
        # what came together with WELCOME is there already
        ready, _, _ = select.select(sources, [], [], 0 if c and c.buf and not paused else None)
        if control in ready:
            data = control.recv(4096)
            if not data:
                sys.exit(0)
            for line in data.split(b"\n"):
                on_line(line)
            if out and c:
                c.close()
                c, was_out = None, True
            elif was_out and not out and not paused:
                c, was_out = agent(), False
        while c and (c.sock in ready or c.buf):
            ready = []
            kind, payload = c.recv()
            if kind is None:
                c = None
            elif kind == wire.STOP:
                on_stop(c)
            elif kind in (wire.MOUNT, wire.UNMOUNT):
                on_mount(c, kind, payload)
            elif kind in (wire.CLOCK, wire.ENTROPY):
                print("renewed:", "clock" if kind == wire.CLOCK else "entropy", file=sys.stderr, flush=True)
            elif kind in (wire.FREEZE, wire.THAW):
                print("frozen" if kind == wire.FREEZE else "thawed", file=sys.stderr, flush=True)
                error = 95 if "nofreeze" in fake and kind == wire.FREEZE else 0
                error = 1 << 12 if "oddfreeze" in fake and kind == wire.FREEZE else error	# no errno at all
                error = 16 if "nothaw" in fake and kind == wire.THAW else error
                if "deaffreeze" not in fake:
                    c.send(wire.DONE, struct.pack("<BI", kind, error))


main()
