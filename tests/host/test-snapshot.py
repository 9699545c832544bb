#!/usr/bin/env python3
"""How the memory of a snapshot comes: on demand where the host lets the VM's user have it, else before the guest runs."""
import os
import shutil
import sys

import hostcase
import vmtest
from vmtest import equal, true

DEVICE = "/dev/userfaultfd"


def on_demand(host):
    vm, kept = host.name(), f"d{os.getpid()}"
    restored = lambda: host.status(vm)["restored"]
    before = os.stat(DEVICE)
    host.run("run", "-d", "--name", vm, "--memory=128M", hostcase.BB, "--", "sh", "-c",
             "head -c 8000000 /dev/urandom > /tmp/a; md5sum < /tmp/a > /tmp/sum; sleep 100000", check=0)
    host.run("exec", vm, "sh", "-c", "until [ -s /tmp/sum ]; do sleep 0.1; done", check=0)
    try:
        host.run("snapshot", "--stop", vm, kept, check=0)
        for group, mode, how in ((0, 0o600, "copied: /dev/userfaultfd is closed"), (os.stat("/dev/kvm").st_gid, 0o660, "on demand:")):
            os.chown(DEVICE, 0, group)
            os.chmod(DEVICE, mode)
            host.run("restore", kept, check=0)
            true(restored().startswith(how), f"{oct(mode)}: {restored()}")
            equal(host.out("exec", vm, "sh", "-c", "md5sum < /tmp/a | diff - /tmp/sum && echo same"), "same\n", "its memory")
            if mode == 0o660:
                host.run("snapshot", "rm", kept, check=4)
            host.run("stop", vm, check=0)
            equal(host.status(vm)["outcome"], "clean", "outcome")
    finally:
        os.chown(DEVICE, before.st_uid, before.st_gid)
        os.chmod(DEVICE, before.st_mode & 0o777)
        shutil.rmtree(host.state / "snapshots" / kept, ignore_errors=True)


CASES = {"on-demand": on_demand}

if __name__ == "__main__":
    sys.exit(vmtest.main(CASES, hostcase.System))
