"""A supervisor as the CLI's verbs see it, without a VM: OpenAgent gives what the test likes."""
import json
import os
import pathlib
import socket
import threading


class Supervisor:
    """Listens where the one of NAME would; gives each caller of OpenAgent what CONNECT returns, and of
    OpenPort what it returns for that port."""

    def __init__(self, directory, name, connect, version=2):
        self.connect, self.version = connect, version
        run = pathlib.Path(directory) / "run"
        (run / name / "0").mkdir(parents=True, mode=0o711, exist_ok=True)
        (run / name / "current").symlink_to("0")
        run.chmod(0o711)
        (pathlib.Path(directory) / "state").mkdir(exist_ok=True, mode=0o711)
        self.env = dict(os.environ, UVMS_RUNTIME_DIR=str(run), UVMS_STATE_DIR=f"{directory}/state")
        self.path = str(run / name / "0/control")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(128)
        self.callers = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:
                return
            self.callers.append(caller)
            threading.Thread(target=self.serve_one, args=[caller], daemon=True).start()

    def serve_one(self, caller):
        try:
            while self.answer(caller):
                pass
        except OSError:
            pass
        caller.close()

    def answer(self, caller):
        """False: the caller has left."""
        call = b""
        while not call.endswith(b"\0"):
            more = caller.recv(4096)
            if not more:
                return False
            call += more
        call = json.loads(call[:-1])
        if call["method"] == "io.uvms.VM.OpenPort":
            sock = self.connect(call["parameters"]["port"])
        else:
            assert call["method"] == "io.uvms.VM.OpenAgent"
            sock = self.connect()
        if not sock:
            caller.sendall(b'{"error":"io.uvms.VM.Refused","parameters":{"message":"not now"}}\0')
            return True
        reply = {"version": self.version} if self.version > 1 else {}
        try:
            socket.send_fds(caller, [json.dumps({"parameters": reply}).encode() + b"\0"],
                            [sock.fileno()])
        finally:
            sock.close()
        return True

    def close(self):
        """As when the VM ends."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for caller in self.callers:
            try:
                caller.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if os.path.exists(self.path):
            os.unlink(self.path)
