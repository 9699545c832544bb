#!/usr/bin/env python3
"""`uvms cp` with real guests: trees both ways, large files, a full disk, a VM that ends meanwhile."""
import hashlib
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from vmtest import UVMS, clock, equal, main, need, true

BB = "busybox"
LIST = "find . -printf '%P|%y|%m|%T@|%l|%n|%s|%U:%G\\n' | LC_ALL=C sort"


def start(host, *options, tag="vm"):
    vm = host.name(tag)
    host.run("run", "-d", "--name", vm, *options, BB, "--", "sleep", "1000", check=0)
    return vm


def guest(host, vm, script):
    return host.out("exec", vm, "--", "sh", "-c", script)


def make_tree(top):
    d = pathlib.Path(top) / "tree"
    (d / "a/empty").mkdir(parents=True)
    (d / "a/file").write_bytes(os.urandom(300000))
    os.link(d / "a/file", d / "hard")
    (d / "abs").symlink_to("/etc/passwd")
    os.mkfifo(d / "fifo")
    (d / os.fsdecode(b"odd\n\x1b\xff")).write_bytes(b"x")
    (d / ("n" * 255)).write_bytes(b"")
    with open(d / "sparse", "wb") as f:
        f.seek(50 << 20)
        f.write(b"end")
        f.truncate(60 << 20)
    (d / "a").chmod(0o1750)
    (d / "hard").chmod(0o4711)
    os.utime(d / "a/empty", ns=(0, 1234567890123456789))
    os.utime(d / "hard", ns=(0, 987654321))
    for i in range(200):
        (d / "a" / f"small{i}").write_text(str(i))
    return d


def listing(directory):
    return subprocess.check_output(LIST, shell=True, cwd=directory)


def trees(host):
    vm = start(host)
    with tempfile.TemporaryDirectory() as top:
        os.chmod(top, 0o755)
        tree = make_tree(top)
        want = listing(tree)
        host.run("cp", str(tree), f"{vm}:/tmp", check=0)
        equal(guest(host, vm, "cd /tmp/tree; stat -c '%a %h %Y' hard; stat -c %a a; readlink abs; cat a/small7"),
              f"{'4711' if os.geteuid() == 0 else '711'} 2 0\n1750\n/etc/passwd\n7", "the guest's own view")
        true(int(guest(host, vm, "stat -c %b /tmp/tree/sparse")) < 200, "the holes")
        equal(guest(host, vm, "sha256sum < /tmp/tree/a/file").split()[0],
              hashlib.sha256((tree / "a/file").read_bytes()).hexdigest(), "the bytes")
        host.run("cp", "-a", f"{vm}:/tmp/tree", f"{top}/back", check=0)
        if os.geteuid() == 0:
            equal(listing(f"{top}/back"), want, "there and back")
        true(pathlib.Path(f"{top}/back/sparse").stat().st_blocks < 200, "the holes, back")
        host.run("cp", f"{vm}:tmp/tree/hard", f"{top}/plain", check=0)
        equal(pathlib.Path(f"{top}/plain").stat().st_mode & 0o7777, 0o711, "no setuid bit")
        # what the guest has, as an archive, and one into it
        out = subprocess.run([UVMS, "cp", f"{vm}:/etc", f"{vm}:/dev", "-"], env=host.env, capture_output=True)
        equal(out.returncode, 0, out.stderr)
        names = subprocess.run(["tar", "tv"], input=out.stdout, capture_output=True, check=True).stdout
        true(b"etc/passwd" in names and b"left out: a device node" in out.stderr, "tar tv")
        for options in ("--format=gnu -S", "--format=pax -S", "--format=ustar"):
            tar = subprocess.check_output(f"tar c {options} -C {top}/tree a sparse", shell=True)
            guest(host, vm, "rm -rf /tmp/in; mkdir /tmp/in")
            host.run("cp", "-", f"{vm}:/tmp/in", stdin=None, input=tar, check=0)
            equal(guest(host, vm, "sha256sum < /tmp/in/a/file").split()[0],
                  hashlib.sha256((tree / "a/file").read_bytes()).hexdigest(), options)
        out = subprocess.run([UVMS, "cp", "-x", f"{vm}:/", "-"], env=host.env, capture_output=True)
        equal(out.returncode, 0, out.stderr[-500:])
        names = subprocess.run(["tar", "t"], input=out.stdout, capture_output=True, check=True).stdout.split(b"\n")
        true(b"proc/" in names and b"proc/self" not in names and b"etc/passwd" in names, f"-x: {names[:20]}")
        # links in the guest lead inside of it, and are not followed below the target
        guest(host, vm, "ln -s /etc/passwd /tmp/l; ln -s /etc /tmp/in/etc")
        host.run("cp", "-L", f"{vm}:/tmp/l", f"{top}/passwd", check=0)
        true("ann:" in pathlib.Path(f"{top}/passwd").read_text(), "the guest's passwd")
        os.makedirs(f"{top}/etc")
        pathlib.Path(f"{top}/etc/evil").write_text("x")
        p = host.run("cp", f"{top}/etc", f"{vm}:/tmp/in", check=1)
        true("evil" not in guest(host, vm, "ls /etc"), "through a link")
        true(b"symbolic link" in p.stderr or b"Not a directory" in p.stderr, f"said: {p.stderr!r}")


def large(host):
    """256 MiB there and back, with equal digests, and a session that is not stalled meanwhile."""
    vm = start(host, "-m", "1G")
    with tempfile.TemporaryDirectory() as top:
        digest = hashlib.sha256()
        with open(f"{top}/big", "wb") as f:
            for _ in range(256):
                block = os.urandom(1 << 20)
                digest.update(block)
                f.write(block)
        p = host.popen("cp", f"{top}/big", f"{vm}:/tmp/")
        time.sleep(0.3)
        begin = clock()
        host.run("exec", vm, "true", check=0)
        true(clock() - begin < 5, "a session was stalled")
        equal(p.wait(timeout=120), 0, "there")
        equal(guest(host, vm, "sha256sum < /tmp/big").split()[0], digest.hexdigest(), "there")
        host.run("cp", f"{vm}:/tmp/big", f"{top}/back", check=0)
        with open(f"{top}/back", "rb") as f:
            equal(hashlib.file_digest(f, "sha256").hexdigest() if hasattr(hashlib, "file_digest")
                  else hashlib.sha256(f.read()).hexdigest(), digest.hexdigest(), "back")


def full(host):
    """The guest's disk is full: said so, with the path, and no half file."""
    vm = start(host)
    guest(host, vm, "mkdir /tmp/small; mount -t tmpfs -o size=4m none /tmp/small")
    with tempfile.TemporaryDirectory() as top:
        os.makedirs(f"{top}/t")
        pathlib.Path(f"{top}/t/big").write_bytes(os.urandom(6 << 20))
        p = host.run("cp", f"{top}/t", f"{vm}:/tmp/small", check=1)
        true(b"No space left on device" in p.stderr and b"t/big" in p.stderr and b"disk is full" in p.stderr,
             f"said: {p.stderr!r}")
        equal(guest(host, vm, "find /tmp/small -type f"), "", "a half file")
        p = host.run("cp", f"{top}/t/big", f"{vm}:/proc/x", check=1)
        true(b"cannot be copied" in p.stderr or b"failed" in p.stderr, f"said: {p.stderr!r}")


def ended(host):
    """The VM stops in the middle of a copy, each way: an error within seconds, no half file on the host."""
    for way in ("in", "out"):
        vm = start(host, tag=way)
        with tempfile.TemporaryDirectory() as top:
            if way == "in":
                p = host.popen("cp", "-", f"{vm}:/tmp", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
                tar = subprocess.check_output(["tar", "c", "-C", "/usr/bin", "env"])
                p.stdin.write(tar[:8192])
                p.stdin.flush()
            else:
                guest(host, vm, "mkdir /tmp/d; mkfifo /tmp/d/x; truncate -s 8G /tmp/d/huge; echo x | "
                                "dd of=/tmp/d/huge bs=1 seek=8589934591 conv=notrunc; head -c 150000000 /dev/zero > /tmp/d/big")
                p = host.popen("cp", f"{vm}:/tmp/d", f"{top}/d", stderr=subprocess.PIPE)
            time.sleep(0.5)
            host.run("kill", "-q", vm, check=0)
            begin = clock()
            equal(p.wait(timeout=20), 1, "status")
            true(clock() - begin < 10, "it took long")
            text = p.stderr.read()
            true(b"the copy is incomplete" in text, f"said: {text!r}")
            for path in pathlib.Path(top).rglob("big"):
                equal(path.stat().st_size, 150000000, "a half file")


def system(host):
    """A guest with systemd: its /etc as a tree and as an archive agree; a file put into it is used."""
    need("tar")
    vm = host.name()
    host.run("run", "-d", "--name", vm, "-m", "1G", "debian", check=0)
    with tempfile.TemporaryDirectory() as top:
        host.run("cp", "-a" if os.geteuid() == 0 else "-q", f"{vm}:/etc", top, check=0)
        out = subprocess.run([UVMS, "cp", f"{vm}:/etc", "-"], env=host.env, capture_output=True, check=True).stdout
        os.makedirs(f"{top}/tar")
        subprocess.run(["tar", "x", "-C", f"{top}/tar"], input=out, check=True)
        subprocess.run(["diff", "-r", "--no-dereference", f"{top}/etc", f"{top}/tar/etc"], check=True)
        pathlib.Path(f"{top}/x.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/touch /run/x-was-here\n")
        host.run("cp", f"{top}/x.service", f"{vm}:/etc/systemd/system/", check=0)
        host.run("exec", vm, "--", "systemctl", "start", "x", check=0)
        host.run("exec", vm, "--", "test", "-e", "/run/x-was-here", check=0)
    true("clean" in host.out("stop", vm), "stop")


CASES = {f.__name__: f for f in (trees, large, full, ended, system)}

if __name__ == "__main__":
    sys.exit(main(CASES))
