#!/usr/bin/env python3
"""What a host can lose under its VMs: /dev/kvm, a volume's file, a layer of the store. A VM that runs goes on or ends in
a named state, one that starts says what is missing, and when it is there again all is as before."""
import contextlib
import json
import os
import subprocess
import sys

import hostcase
import vmtest
from hostcase import BB
from vmtest import equal, true

BACKEND, ACCEL = vmtest.BACKEND, vmtest.ACCEL


@contextlib.contextmanager
def taken_away(path):
    aside = f"{path}.aside"
    os.rename(path, aside)
    try:
        yield
    finally:
        os.rename(aside, path)


def lives(host, vm, what):
    equal(host.out("exec", vm, "echo", "yes"), "yes\n", what)
    equal(host.status(vm)["state"], "running", what)


def stops(host, vm):
    host.run("stop", vm, check=0)
    equal(host.status(vm)["outcome"], "clean", "outcome")


def kvm_gone(host):
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "100000", check=0)
    with taken_away("/dev/kvm"):
        lives(host, vm, "who has it keeps it")
        plan = host.out("run", "--dry-run", "--backend=auto", "--accel=auto", BB, "--", "true")
        true("-accel tcg" in plan, f"by emulation then: {plan}")
        p = host.run("run", "-d", f"--backend={BACKEND}", "--accel=kvm", BB)
        true(p.returncode == 6 and b"/dev/kvm" in p.stderr, f"{p.returncode} {p.stderr!r}")
        doctor = subprocess.run([vmtest.UVMS, "doctor"], env=host.env, capture_output=True, text=True, timeout=60).stdout
        true("/dev/kvm" in doctor, doctor)
        stops(host, vm)
        p = host.run("start", vm)
        true(p.returncode == 6 and b"/dev/kvm" in p.stderr, f"{p.returncode} {p.stderr!r}")
    host.run("start", vm, check=0)
    lives(host, vm, "it is there again")
    stops(host, vm)


def volume_gone(host):
    """Its file is cut under the guest, which may see errors from then on, and nobody else; the next start says so."""
    vm = host.name()
    volume = f"v{os.getpid()}"
    disk = host.state / "volumes" / volume / "disk"
    host.run("run", "-d", "--name", vm, "-v", f"{volume}:/v:64M", BB, "--", "sleep", "100000", check=0)
    try:
        os.truncate(disk, 1 << 20)
        host.run("exec", vm, "sh", "-c", "dd if=/dev/urandom of=/v/x bs=1M count=8; sync; echo 3 > /proc/sys/vm/drop_caches; cat /v/x")
        lives(host, vm, "after its volume was cut")
        host.run("stop", vm, check=0)
        os.truncate(disk, 1 << 20)
        p = host.run("start", vm)
        true(p.returncode != 0 and volume.encode() in p.stderr, f"{p.returncode} {p.stderr!r}")
    finally:
        host.run("kill", "-q", vm)
        host.run("rm", vm)
        host.run("volume", "rm", "-f", volume)
    true(not disk.parent.exists(), "the volume can be removed")


def layer_gone(host):
    vm = host.name()
    host.run("run", "-d", "--name", vm, BB, "--", "sleep", "100000", check=0)
    blobs = host.state / "store/blobs/sha256"
    manifest = json.loads((blobs / host.status(vm)["image_digest"].removeprefix("sha256:")).read_text())
    layer = blobs / manifest["layers"][0]["digest"].removeprefix("sha256:")
    with taken_away(layer):
        lives(host, vm, "who has it keeps it")
        stops(host, vm)
        p = host.run("start", vm)
        true(p.returncode == 1 and layer.name[:12].encode() in p.stderr, f"{p.returncode} {p.stderr!r}")
    host.run("start", vm, check=0)
    stops(host, vm)


CASES = {"kvm-gone": kvm_gone, "volume-gone": volume_gone, "layer-gone": layer_gone}

if __name__ == "__main__":
    sys.exit(vmtest.main(CASES, hostcase.System))
