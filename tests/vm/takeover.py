"""What test-takeover.py and bench/takeover share: a guest that reads, and the time from a kill to what follows."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import time

PORT = 5000


class Guest:
    """A running VM, in it a program that is blocked in read() on a connection to us. READER None: it runs there already."""

    def __init__(self, host, name, image, reader):
        self.dir = host.runtime / name / "current"
        self.pid_of_supervisor = host.status(name)["supervisor_pid"]
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.dir / f"vsock/v_{PORT}"))
        os.chmod(self.dir / f"vsock/v_{PORT}", 0o777)
        self.listener.listen(16)
        self.listener.settimeout(30)
        program = self.bring(host, name, reader) if reader else None
        self.reader, _ = self.listener.accept()
        if program:
            program.wait()

    @staticmethod
    def bring(host, name, reader):
        with open(reader, "rb") as f:
            host.run("exec", name, "sh", "-c", "cat > /tmp/reader && chmod 755 /tmp/reader", stdin=f, check=0)
        return host.popen("exec", name, "sh", "-c", f"/tmp/reader {PORT} </dev/null >/dev/null 2>&1 & echo up",
                          stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def status(self):
        return json.loads((self.dir / "status").read_text())

    def count_fds(self):
        try:
            return len(os.listdir(f"/proc/{self.pid_of_supervisor}/fd"))
        except PermissionError:	# a user's supervisor is non-dumpable
            return None

    def dial(self, port=1023):
        """A connection of the host to the guest, once the guest has accepted."""
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(30)
        s.connect(str(self.dir / "vsock/v"))
        s.sendall(b"CONNECT %d\n" % port)
        answer = s.recv(32)
        s.close()
        return answer.startswith(b"OK ")

    def kill(self):
        """Milliseconds from the kill to: a new call of the host is served; the reader has seen its end and called
        again (so these are the time of its end and that of a new call of the guest, together)."""
        before = self.status()["vsockd_replaced"]
        start = time.monotonic()
        os.kill(self.status()["vsockd_pid"], signal.SIGKILL)
        while not self.dial():	# one that the dead had accepted
            time.sleep(0.001)
        served = time.monotonic()
        self.reader.close()
        self.reader, _ = self.listener.accept()
        ended = time.monotonic()
        while self.status()["vsockd_replaced"] == before:
            time.sleep(0.001)
        return (served - start) * 1e3, (ended - start) * 1e3


def memfd_of_supervisor(pid, name):
    """Opened for writing: what only vsockd should write. For root."""
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        if f"memfd:{name} " in os.readlink(entry) + " ":
            return open(entry, "r+b", buffering=0)
    raise FileNotFoundError(name)
