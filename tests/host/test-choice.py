#!/usr/bin/env python3
"""--backend=auto on a host with KVM: Cloud Hypervisor by itself where it is installed, and why not where it is not."""
import os
import shutil
import subprocess
import sys

import hostcase
import vmtest
from hostcase import BB, known
from vmtest import equal, true


def auto(host):
    have = shutil.which("cloud-hypervisor")
    vm = known(host, backend="auto", accel="auto")
    vmtest.BACKEND = vmtest.ACCEL = ""	# it is what the status says that is looked at
    host.run("start", vm, check=0)
    s = host.status(vm)
    equal((s["backend"], s["accel"]), ("ch" if have else "qemu", "kvm"), "the choice")
    true(s["backend_reason"] == "the first choice" if have else "not installed" in s["backend_reason"], f"{s}")
    if have:
        true("cloud-hypervisor" in os.readlink(f"/proc/{s['vmm_pid']}/exe"), "its program")
    host.run("stop", vm, check=0)
    host.env["UVMS_CLOUD_HYPERVISOR"] = "/nonexistent"
    host.run("start", vm, check=0)
    s = host.status(vm)
    equal((s["backend"], s["accel"]), ("qemu", "kvm"), "without Cloud Hypervisor")
    true("/nonexistent" in s["backend_reason"], f"{s}")
    host.run("stop", vm, check=0)
    p = host.run("run", "-d", "--backend=ch", BB)
    true(p.returncode != 0 and b"/nonexistent" in p.stderr, f"{p.stderr!r}")
    del host.env["UVMS_CLOUD_HYPERVISOR"]
    plan = host.out("run", "--dry-run", "--accel=tcg", BB, "--", "true")
    true("-accel tcg" in plan, "emulation was asked for")
    os.chmod("/dev/kvm", 0o600)
    try:
        plan = host.out("run", "--dry-run", BB, "--", "true")
        true("-accel tcg" in plan, "KVM is closed to VMs")
        p = host.run("run", "-d", "--backend=ch", BB)
        status, why = (6, b"closed to its group") if have else (3, b"not installed")
        true(p.returncode == status and why in p.stderr, f"{p.returncode} {p.stderr!r}")
    finally:
        os.chmod("/dev/kvm", 0o660)
    doctor = subprocess.run([vmtest.UVMS, "doctor"], env=host.env, capture_output=True, text=True, timeout=60).stdout
    true("cloud-hypervisor" in doctor.lower() or "cloud hypervisor" in doctor.lower(), doctor)


if __name__ == "__main__":
    sys.exit(vmtest.main({"auto": auto}, hostcase.System))
