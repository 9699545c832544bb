#!/usr/bin/env python3
"""A VM as the service uvms@NAME, under a real systemd."""
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import hostcase
import vmtest
from hostcase import known, none_is_left, show, systemctl, until
from vmtest import clock, equal, true


def lifecycle(host):
    """Started means ready; everything is in the unit; a stop asks the guest, by systemctl and by uvms alike."""
    vm = known(host)
    systemctl("start", f"uvms@{vm}")
    s, unit = host.status(vm), show(vm, "ActiveState", "SubState", "MainPID", "StatusText", "ControlGroup")
    equal((unit["ActiveState"], unit["SubState"], unit["StatusText"]), ("active", "running", "running"), "unit")
    equal((s["state"], s["supervisor_pid"]), ("running", int(unit["MainPID"])), "status")
    true("uvms" in unit["ControlGroup"] and unit["ControlGroup"].startswith("/machine.slice/"), f"{unit}")
    for pid in (s["vmm_pid"], s["supervisor_pid"], s.get("vsockd_pid") or s["vmm_pid"]):
        true(unit["ControlGroup"] in pathlib.Path(f"/proc/{pid}/cgroup").read_text(), f"{pid} is in the unit")
    equal(host.out("exec", vm, "hostname").strip(), vm, "exec")
    equal(host.run("start", vm).returncode, 4, "started twice")
    systemctl("stop", f"uvms@{vm}")
    equal(host.status(vm)["outcome"], "clean", "outcome")
    unit = show(vm, "ActiveState", "Result", "ExecMainStatus")
    equal(unit, {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0"}, "stopped by systemctl")
    none_is_left(host)
    systemctl("start", f"uvms@{vm}")
    true("clean" in host.out("stop", vm), "uvms stop")
    until(lambda: show(vm, "ActiveState")["ActiveState"] == "inactive", 3, "the unit knows it")
    equal(show(vm, "Result"), {"Result": "success"}, "stopped by uvms")


def killed(host):
    """SIGKILL for all of the unit, then for its main process alone: nothing is left, and it starts again."""
    vm = known(host)
    for whom in ("all", "main"):
        systemctl("start", f"uvms@{vm}")
        systemctl("kill", "-s", "KILL", f"--kill-who={whom}", f"uvms@{vm}")
        none_is_left(host)
        until(lambda: show(vm, "ActiveState")["ActiveState"] == "failed", 3, "the unit has failed")
        equal(show(vm, "Result", "NRestarts"), {"Result": "signal", "NRestarts": "0"}, "unit")
        s = host.status(vm)
        equal((s["state"], s["outcome"], s["cause"]), ("stopped", "crashed", "the supervisor was killed"), "status")
        systemctl("reset-failed", f"uvms@{vm}")


def vmm_killed(host):
    """The VMM's death is the service's failure."""
    vm = known(host)
    systemctl("start", f"uvms@{vm}")
    os.kill(host.status(vm)["vmm_pid"], signal.SIGKILL)
    until(lambda: show(vm, "ActiveState")["ActiveState"] == "failed", 5, "the unit has failed")
    equal(show(vm, "Result", "ExecMainStatus"), {"Result": "exit-code", "ExecMainStatus": "1"}, "unit")
    true("signal 9" in host.status(vm)["cause"], f"{host.status(vm)}")
    none_is_left(host)


def restart_on_failure(host):
    """A drop-in with Restart=on-failure: a killed one is there again by itself, one that powers off is not."""
    vm = known(host)
    directory = pathlib.Path(f"/run/systemd/system/uvms@{vm}.service.d")
    directory.mkdir(parents=True)
    (directory / "restart.conf").write_text("[Service]\nRestart=on-failure\nRestartSec=100ms\n")
    try:
        systemctl("daemon-reload")
        systemctl("start", f"uvms@{vm}")
        first = host.status(vm)["supervisor_pid"]
        os.kill(first, signal.SIGKILL)
        until(lambda: show(vm, "NRestarts", "ActiveState") == {"NRestarts": "1", "ActiveState": "active"}, 30,
              lambda: f"it is back: {show(vm, 'NRestarts', 'ActiveState')}")
        s = host.status(vm)
        true(s["state"] == "running" and s["supervisor_pid"] != first, f"{s}")
        host.run("exec", vm, "true", check=0)
        host.run("exec", vm, "kill", "1")	# as the power button; the session may be lost with it
        until(lambda: show(vm, "ActiveState")["ActiveState"] == "inactive", 20, lambda: f"{show(vm, 'ActiveState')}")
        vmtest.pause(0.2)
        equal(show(vm, "ActiveState", "Result"), {"ActiveState": "inactive", "Result": "success"}, "after a power-off")
    finally:
        (directory / "restart.conf").unlink()
        directory.rmdir()
        systemctl("daemon-reload")


def reload(host):
    """`systemctl reload` and `uvms refresh`: the process, the VMM and a session go on."""
    vm = known(host)
    systemctl("start", f"uvms@{vm}")
    before, main = host.status(vm), show(vm, "MainPID")
    session = host.popen("exec", vm, "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    for i, how in enumerate((["systemctl", "reload", f"uvms@{vm}"], [vmtest.UVMS, "refresh", vm])):
        session.stdin.write(b"%d\n" % i)
        session.stdin.flush()
        equal(session.stdout.readline(), b"%d\n" % i, "the session")
        p = subprocess.run(how, env=host.env, capture_output=True, timeout=60 * vmtest.SLOW)
        equal(p.returncode, 0, f"{how}: {p.stderr!r}")
        until(lambda: show(vm, "ActiveState")["ActiveState"] == "active", 5, lambda: f"{show(vm, 'ActiveState')}")
    session.stdin.close()
    equal(session.wait(timeout=20), 0, "the session's end")
    now = host.status(vm)
    equal({k: now[k] for k in ("supervisor_pid", "vmm_pid", "boots", "state")},
          {k: before[k] for k in ("supervisor_pid", "vmm_pid", "boots", "state")}, "status")
    equal(show(vm, "MainPID"), main, "main process")
    systemctl("stop", f"uvms@{vm}")
    equal(host.status(vm)["outcome"], "clean", "outcome")


def words(host):
    """`systemctl status` has the VM's state: while it starts, runs and stops."""
    vm, seen = known(host), []

    def look(state):
        unit = show(vm, "StatusText", "ActiveState")
        text = unit["StatusText"]
        if text and (not seen or seen[-1] != text):
            seen.append(text)
        return unit["ActiveState"] == state

    systemctl("start", "--no-block", f"uvms@{vm}")
    until(lambda: look("active") and seen[-1] == "running", 60, lambda: f"started: {seen}")
    true('Status: "running"' in systemctl("status", f"uvms@{vm}"), "systemctl status")
    systemctl("stop", "--no-block", f"uvms@{vm}")
    until(lambda: look("inactive"), 30, "stopped")
    equal([w for w in seen if w in ("booting", "running")], ["booting", "running"], f"{seen}")
    true(any(w.startswith("stopping") for w in seen), f"{seen}")


def network(host):
    """--net=user as a service: what the unit forbids must not be what it needs."""
    vm = known(host, net="user")
    systemctl("start", f"uvms@{vm}")
    equal(host.status(vm)["network"], "user 10.0.2.15", "status")
    true("10.0.2.15" in host.out("exec", vm, "ip", "address"), "address")
    systemctl("stop", f"uvms@{vm}")
    none_is_left(host)


def share(host):
    """A directory and an image for a service: what the unit forbids must not be what virtiofsd needs, and holds for it, too."""
    vm = known(host, hotplug_slots=2, vsock="uvms")
    systemctl("start", f"uvms@{vm}")
    shared = host.state / f"shared{os.getpid()}"	# below a directory that the unit may write
    shared.mkdir()
    try:
        (shared / "file").write_text("here")
        host.run("attach", vm, "--share", f"{shared}:/mnt/x", check=0)
        equal(host.out("exec", vm, "cat", "/mnt/x/file"), "here", "read in the guest")
        host.run("exec", vm, "sh", "-c", "echo there >/mnt/x/new && chown 7:7 /mnt/x/new", check=0)
        equal(((shared / "new").read_text(), (shared / "new").stat().st_uid), ("there\n", 7), "written in the guest")
        true(host.run("exec", vm, "chmod", "4755", "/mnt/x/new").returncode != 0, "RestrictSUIDSGID= does not hold for virtiofsd")
        host.run("attach", vm, "--image", "busybox:/mnt/i", check=0)
        equal(host.out("exec", vm, "/mnt/i/bin/busybox", "echo", "hello"), "hello\n", "an image")
        host.run("detach", vm, "--share", "/mnt/x", check=0)
        systemctl("stop", f"uvms@{vm}")
        none_is_left(host)
    finally:
        shutil.rmtree(shared)


CASES = {f.__name__.replace("_", "-"): f for f in (
    lifecycle, killed, vmm_killed, restart_on_failure, reload, words, network, share)}

if __name__ == "__main__":
    sys.exit(vmtest.main(CASES, hostcase.System))
