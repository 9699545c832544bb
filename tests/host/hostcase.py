"""What the tests in the host VM share: the system's own realm, with the programs that are installed, and its units."""
import json
import pathlib
import subprocess
import time

import vmtest
from vmtest import clock, equal

vmtest.UVMS = "/usr/local/bin/uvms"
BB = "busybox"


class System(vmtest.Host):
    # this host is a guest itself, with its agent in the same directory
    LASTING = (*vmtest.Host.LASTING, "secret", "uvms-guest")

    def __init__(self, case):
        pathlib.Path("/run/uvms").mkdir(mode=0o711, exist_ok=True)
        super().__init__(case, runtime="/run/uvms", state="/var/lib/uvms")

    def processes(self):
        """Those of units of VMs, and those with a directory of the realm as working directory."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    continue
                if "/uvms@" in (entry / "cgroup").read_text() or str((entry / "cwd").readlink()).startswith("/run/uvms/"):
                    found.append(f"{entry.name} {(entry / 'cmdline').read_bytes()[:120]!r}")
            except OSError:
                continue
        return found

    def close(self):
        for name in self.names:
            systemctl("stop", f"uvms@{name}", check=None)
            systemctl("reset-failed", f"uvms@{name}", check=None)
            self.run("kill", "-q", name)
            self.run("rm", name)


def systemctl(*args, check=0):
    p = subprocess.run(["systemctl", *args], capture_output=True, text=True, timeout=300 * vmtest.SLOW)
    if check is not None:
        equal(p.returncode, check, f"systemctl {' '.join(args)}: {p.stdout[-500:]}{p.stderr[-500:]}")
    return p.stdout


def show(vm, *properties):
    text = systemctl("show", "-p", ",".join(properties), f"uvms@{vm}")
    return dict(line.split("=", 1) for line in text.splitlines())


def known(host, **fields):
    """A VM that is known and has never run, as `uvms run --name` would have described it; its name."""
    vm = host.name()
    directory = host.state / "vms" / vm
    directory.mkdir(parents=True, mode=0o711)
    spec = {"name": vm, "image": BB, "command": ["sleep", "100000"], "cpus": 1, "memory_bytes": 512 << 20,
            "start_timeout_usec": 180000000, "stop_timeout_usec": 90000000, "hotplug_slots": 0, "keep": True,
            "backend": vmtest.BACKEND, "accel": vmtest.ACCEL, **fields}
    (directory / "spec.json").write_text(json.dumps(spec))
    return vm


def until(what, seconds, message):
    end = clock() + seconds
    while not what():
        if clock() > end:
            raise vmtest.Failure(message() if callable(message) else message)
        time.sleep(0.05)


def none_is_left(host, seconds=2):
    until(lambda: not host.processes(), seconds, lambda: f"processes after {seconds} s: {host.processes()}")
