#!/usr/bin/env python3
"""Makes the kernel and the images of the VM tests, once: `busybox` and `debian`.

usage: prepare.py [busybox|debian]...
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import vmtest

PACKAGES = "systemd,systemd-sysv,udev,dbus,nginx-light,python3"


def known(host, verb):
    return host.out(verb, "ls", "-q").split()


def kernel(host):
    if known(host, "kernel"):
        return
    host.run("kernel", "add", "--from-deb", check=0, timeout=600)


def busybox(host):
    """/bin with every applet, /etc/passwd, a user of its own, and init scripts for the odd cases."""
    vmtest.need("busybox", "mkfs.erofs")
    if "busybox" in known(host, "image"):
        return
    with tempfile.TemporaryDirectory() as d:
        root = pathlib.Path(d)
        root.chmod(0o755)
        for sub in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr/lib/systemd"):
            (root / sub).mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        shutil.copy(shutil.which("busybox"), root / "bin/busybox")
        for applet in subprocess.check_output([root / "bin/busybox", "--list"], text=True).split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/tmp:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\nann:x:1000:\nextra:x:2000:ann\n")
        # looks like systemd, but never gets anywhere
        never = root / "usr/lib/systemd/systemd"
        never.write_text("#!/bin/sh\necho 'this init sleeps for ever'\nexec sleep 100000\n")
        never.chmod(0o755)
        (root / "bin/init").unlink(missing_ok=True)
        (root / "sbin").symlink_to("bin")
        (root / "bin/init").symlink_to("/usr/lib/systemd/systemd")
        host.run("image", "build", "busybox", "--from-dir", d, check=0)


def debian(host):
    vmtest.need("mmdebstrap", "mkfs.erofs")
    if "debian" in known(host, "image"):
        return
    host.run("image", "build", "debian", "--from-debian", "bookworm", "--include", PACKAGES, check=0,
             timeout=900)


def main():
    host = vmtest.Host("prepare")
    try:
        kernel(host)
        for what in sys.argv[1:] or ["busybox", "debian"]:
            {"busybox": busybox, "debian": debian}[what](host)
    except vmtest.Skip as e:
        print(f"skipped: {e}")
        return 1 if vmtest.MUST_RUN else vmtest.SKIP
    except vmtest.Failure as e:
        print(f"FAILED: {e}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(host.runtime, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
