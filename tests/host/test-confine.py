#!/usr/bin/env python3
"""What confines the processes of a VM, from /proc of the running ones: every thread, every descriptor."""
import os
import pathlib
import re
import shutil
import stat
import sys

import hostcase
import vmtest
from hostcase import known, systemctl
from vmtest import equal, true

NONE = "0000000000000000"


def linux():
    return tuple(int(n) for n in os.uname().release.split(".")[:2])


def start(host):
    vm = known(host)
    systemctl("start", f"uvms@{vm}")
    s = host.status(vm)
    processes = {"vmm": s["vmm_pid"]}
    if s.get("vsockd_pid"):
        processes["vsockd"] = s["vsockd_pid"]
    true(("vsockd" in processes) == (vmtest.BACKEND == "qemu"), f"{processes}")
    program = {"qemu": "qemu-system", "ch": "cloud-hypervisor"}[vmtest.BACKEND]
    true(program in os.readlink(f"/proc/{s['vmm_pid']}/exe"), f"the VMM is {program}")
    return s, processes


def words_of(path):
    return {line.split(":", 1)[0]: line.split(":", 1)[1].split() for line in path.read_text().splitlines() if ":" in line}


def thread(who, task, s, first):
    status = words_of(task / "status")
    uid = [str(s["uid"])] * 4
    equal(status["Uid"], uid, f"{who}: uid")
    equal(status["Gid"], uid, f"{who}: gid")
    kvm = str(os.stat("/dev/kvm").st_gid)
    true(set(status["Groups"]) <= {str(s["uid"]), kvm}, f"{who}: groups {status['Groups']}")
    for word in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        equal(status[word], [NONE], f"{who}: {word}")
    equal(status["NoNewPrivs"], ["1"], f"{who}: no_new_privs")
    # Cloud Hypervisor leaves its main thread, which only waits, without a filter of its own; the unit's are on all
    if not (first and vmtest.BACKEND == "ch" and who.startswith("vmm")):
        equal(status["Seccomp"], ["2"], f"{who}: seccomp")
    for ns in ("net", "ipc", "pid"):
        true(os.readlink(task / "ns" / ns) != os.readlink(f"/proc/self/ns/{ns}"), f"{who}: {ns} is the host's")


def limits(who, pid):
    text = pathlib.Path(f"/proc/{pid}/limits").read_text()
    found = {m[1].strip(): (m[2], m[3]) for m in re.finditer(r"^(Max [a-z ]+?)\s{2,}(\S+)\s+(\S+)", text, re.M)}
    equal(found["Max core file size"], ("0", "0"), f"{who}: core")
    equal(found["Max open files"], ("4096", "4096"), f"{who}: files")


def threads(s, processes):
    """uid, groups, capabilities, no_new_privs, seccomp, namespaces and limits."""
    seen = 0
    for who, pid in processes.items():
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            thread(f"{who} thread {task.name}", task, s, int(task.name) == pid)
            seen += 1
        limits(who, pid)
    true(seen >= 3, f"{seen} threads")
    isolation = s["isolation"].split()
    for word in ("pid-namespace", "own-uid", "no-new-privs", "no-capabilities", "net-namespace", "seccomp"):
        true(word in isolation, f"status says {isolation}")
    if vmtest.BACKEND == "ch":
        equal(("landlock" in isolation, "landlock:unavailable" in isolation), (linux() >= (6, 2), linux() < (6, 2)),
              f"status says {isolation}")


# What a descriptor of a VMM or of vsockd may be: kernel objects without a name, KVM, memory, layers and volumes, its own log.
ALLOWED = re.compile(r"(socket|pipe):\[\d+\]|anon_inode:.*|/dev/(null|kvm|urandom|random)|/dev/(pts/)?ptmx|/dev/pts/\d+|"
                     r"/memfd:[^/]+ \(deleted\)|/var/lib/uvms/store/blobs/sha256/[0-9a-f]{64}|"
                     r"/run/uvms/[^/]+/(lock|i-[^/]+(/.*)?)|/proc/\d+/.*")


def descriptors(s, processes):
    """None that leads elsewhere, and no file of the store that could be written."""
    for who, pid in processes.items():
        for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(entry)
                mode = os.stat(entry).st_mode
            except FileNotFoundError:
                continue
            true(ALLOWED.fullmatch(target), f"{who}: descriptor {entry.name} is {target}")
            flags = int(words_of(pathlib.Path(f"/proc/{pid}/fdinfo/{entry.name}"))["flags"][0], 8)
            if target.startswith("/var/lib/uvms/store"):
                equal(flags & os.O_ACCMODE, os.O_RDONLY, f"{who}: {target}")
            true(not stat.S_ISDIR(mode) or target.startswith("/run/uvms/"), f"{who}: the directory {target}")
        cwd = os.readlink(f"/proc/{pid}/cwd")
        true(cwd.startswith(f"/run/uvms/{s['name']}/"), f"{who}: working directory {cwd}")
    cmdline = pathlib.Path(f"/proc/{s['vmm_pid']}/cmdline").read_bytes()
    true(b"secret" not in cmdline and b"/var/lib" not in cmdline, f"{cmdline}")


def processes(host):
    s, found = start(host)
    threads(s, found)
    descriptors(s, found)


def landlock(host):
    """A VMM that Landlock holds does all that one without it does, and its thread that runs the guest is held."""
    if linux() < (6, 2):
        raise vmtest.Skip(f"Linux {os.uname().release}: Cloud Hypervisor asks for the Landlock of 6.2")
    vm = known(host, hotplug_slots=2, memory_bytes=128 << 20)
    host.run("start", vm, check=0)
    s = host.status(vm)
    true("landlock" in s["isolation"].split(), s["isolation"])
    equal(host.out("exec", vm, "echo", "hello"), "hello\n", "exec")
    volume = f"landlock{os.getpid()}"
    try:
        host.run("attach", vm, volume + ":32M", check=0)
        host.run("detach", vm, volume, check=0)
        host.run("attach", "--net=user", vm, check=0)
        host.run("detach", "--net", vm, check=0)
        host.run("attach", vm, "--image", "busybox:/mnt/x", check=0)
        equal(host.out("exec", vm, "/mnt/x/bin/busybox", "echo", "there"), "there\n", "an image")
        host.run("detach", vm, "--image", "/mnt/x", check=0)
        host.run("snapshot", "--stop", vm, volume, check=0)
        host.run("restore", volume, check=0)
        equal(host.out("exec", vm, "echo", "again"), "again\n", "exec after a restore")
        true("landlock" in host.status(vm)["isolation"].split(), "after a restore")
    finally:
        host.run("kill", "-q", vm)
        host.run("volume", "rm", volume)
        shutil.rmtree(host.state / "snapshots" / volume, ignore_errors=True)
    vm = known(host, vsock="uvms", hotplug_slots=1)
    host.run("start", vm, check=0)
    true("landlock" in host.status(vm)["isolation"].split(), "with uvms's own vsock device")
    shared = host.runtime / f"shared{os.getpid()}"
    shared.mkdir()
    try:
        (shared / "file").write_text("here")
        host.run("attach", vm, "--share", f"{shared}:/mnt/x", check=0)
        equal(host.out("exec", vm, "cat", "/mnt/x/file"), "here", "a share")
        host.run("detach", vm, "--share", "/mnt/x", check=0)
    finally:
        host.run("kill", "-q", vm)
        shutil.rmtree(shared)


if __name__ == "__main__":
    sys.exit(vmtest.main({"processes": processes, "landlock": landlock}, hostcase.System))
