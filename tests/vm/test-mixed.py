#!/usr/bin/env python3
"""Work in a pulled image, everything at once and by chance, while uvms is upgraded underneath.

Each round some things are done at the same time: commands, copies, forwarded connections, the network both ways,
writes to a volume; and often uvms is installed anew in the middle of it and the VM refreshed. A session and a
forwarded connection last all through. UVMS_SOAK=1 takes more rounds; the seed is printed, UVMS_SEED repeats one.
"""
import concurrent.futures
import hashlib
import importlib.util
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import vmtest
from vmtest import equal, main, need, true

SOAK = os.environ.get("UVMS_SOAK") == "1"
ROUNDS = int(os.environ.get("UVMS_ROUNDS", "600" if SOAK else "30"))
SEED = int(os.environ.get("UVMS_SEED", random.SystemRandom().randrange(1 << 32)))
PROGRAMS = ("uvms", "uvms-supervisor", "uvms-vsockd", "uvms-guest", "uvms-init", "uvms-tapd", "uvms-broker")

spec = importlib.util.spec_from_file_location("everyday", pathlib.Path(__file__).with_name("test-everyday.py"))
everyday = importlib.util.module_from_spec(spec)
spec.loader.exec_module(everyday)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def install(directory):
    """As a package manager does: a new file in the place of the old one."""
    for program in PROGRAMS:
        shutil.copy(vmtest.BUILD / program, directory / (program + ".new"))
        os.rename(directory / (program + ".new"), directory / program)


class Work:
    def __init__(self, host, out, vm, top):
        self.host, self.out, self.vm, self.top = host, out, vm, top
        self.volume = {}	# what lies in it: name -> digest
        self.session = host.popen("exec", vm, "cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        host.run("exec", vm, "sh", "-c", "mkdir -p /tmp/www; echo hello from inside >/tmp/www/index.html; "
                 "httpd -p 80 -h /tmp/www; nc -ll -p 6000 -e cat >/dev/null 2>&1 </dev/null &", check=0)
        self.forward = host.popen("forward", vm, str(self.port), "6000", stderr=subprocess.PIPE)
        self.forward.stderr.readline()
        self.lasting = self.dial()

    def dial(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def close(self):
        self.lasting.close()
        self.session.stdin.close()
        equal(self.session.wait(timeout=30), 0, "the session that lasted")
        self.forward.terminate()
        equal(self.forward.wait(timeout=10), 0, "the forward")

    # ---- what is done; each with a source of chance of its own ----

    def command(self, chance):
        data, code = chance.randbytes(chance.randrange(1 << 21)), chance.randrange(100)
        p = self.host.run("exec", self.vm, "sh", "-c", f"cat; exit {code}", input=data)
        equal((p.returncode, len(p.stdout), digest(p.stdout)), (code, len(data), digest(data)), "exec")

    def copy(self, chance):
        name = f"copy{chance.randrange(1 << 40)}"
        tree = self.top / name
        (tree / "d").mkdir(parents=True)
        want = {f"d/{i}": chance.randbytes(chance.randrange(1 << 19)) for i in range(chance.randrange(1, 20))}
        for file, data in want.items():
            (tree / file).write_bytes(data)
        self.host.run("cp", str(tree), f"{self.vm}:/tmp/{name}", check=0)
        shutil.rmtree(tree)
        self.host.run("cp", f"{self.vm}:/tmp/{name}", str(tree), check=0)
        equal({str(p.relative_to(tree)): digest(p.read_bytes()) for p in tree.rglob("*") if p.is_file()},
              {file: digest(data) for file, data in want.items()}, "cp there and back")
        shutil.rmtree(tree)
        self.host.run("exec", self.vm, "rm", "-r", f"/tmp/{name}", check=0)

    def echo(self, s, chance, size):
        data, got = chance.randbytes(chance.randrange(1, size)), b""
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sent = pool.submit(s.sendall, data)
            while len(got) < len(data):
                more = s.recv(1 << 18)
                true(more, f"a forwarded connection ended after {len(got)} bytes of {len(data)}")
                got += more
            sent.result()
        equal(digest(got), digest(data), "forward")

    def connection(self, chance):
        with self.dial() as s:
            self.echo(s, chance, 1 << 22)

    def outside(self, chance):
        page = self.host.out("exec", self.vm, "wget", "-q", "-O", "-", "http://198.51.100.1/")
        equal(page, "hello from outside\n", "the outside")

    def inside(self, chance):
        page = self.out.python(everyday.FETCH + "print(get(8080))")
        true("hello from inside" in page, f"the published port: {page}")

    def write(self, chance):
        name, data = f"f{chance.randrange(24)}", chance.randbytes(chance.randrange(1 << 20))
        self.host.run("exec", self.vm, "sh", "-c", f"cat >/data/{name} && sync", input=data, check=0)
        self.volume[name] = digest(data)

    def read(self):
        sums = self.host.out("exec", self.vm, "sh", "-c", "cd /data && sha256sum f* 2>/dev/null; true")
        equal(dict(reversed(line.split()) for line in sums.splitlines()), self.volume, "the volume")

    def last_on(self, chance):
        """The session and the connection that are there since the beginning."""
        line = f"{chance.randrange(1 << 60)}\n".encode()
        self.session.stdin.write(line)
        self.session.stdin.flush()
        equal(self.session.stdout.readline(), line, "the session that lasts")
        self.echo(self.lasting, chance, 1 << 20)

    def refresh(self, chance):
        time.sleep(chance.uniform(0, 0.5))
        install(pathlib.Path(vmtest.UVMS).parent)
        self.host.run("refresh", self.vm, check=0)

    def round(self, chance):
        several = [self.command, self.copy, self.connection, self.outside, self.inside]
        jobs = chance.sample(several, chance.randrange(1, 4)) + chance.sample([self.write, self.last_on, self.refresh],
                                                                              chance.randrange(1, 4))
        with concurrent.futures.ThreadPoolExecutor(len(jobs)) as pool:
            done = {job.__name__: pool.submit(job, random.Random(chance.randrange(1 << 60))) for job in jobs}
        failed = {name: repr(f.exception()) for name, f in done.items() if f.exception()}
        true(not failed, f"with {', '.join(done)}: {failed}")
        return self.refresh in jobs


def work(host):
    everyday.netns_works()
    need("busybox", "skopeo", "umoci", "mkfs.ext4")
    print(f"seed {SEED}, {ROUNDS} rounds", flush=True)
    chance, vm, disk = random.Random(SEED), host.name(), f"mixed{os.getpid()}"
    top = pathlib.Path(tempfile.mkdtemp(prefix="uvms-mixed-", dir="/tmp"))
    top.chmod(0o755)
    (top / "bin").mkdir()
    install(top / "bin")
    vmtest.UVMS = str(top / "bin/uvms")
    try:
        with everyday.Registry() as r:
            r.add("t/work", "1", [everyday.busybox_layer()], {"Env": ["PATH=/bin"], "Cmd": ["sleep", "100000"]})
            image = f"{r.host}/t/work:1"
            host.run("image", "pull", image, check=0)
        with everyday.Outside("mixed") as out:
            out.uvms(host, "run", "-d", "--name", vm, "-m", "512M", "--net=user", "-p", "8080:80", "-v",
                     f"{disk}:/data:64M", image)
            before, start, refreshed = host.status(vm), time.monotonic(), 0
            w = Work(host, out, vm, top)
            for _ in range(ROUNDS):
                refreshed += w.round(chance)
            w.last_on(chance)
            w.read()
            w.close()
            now = host.status(vm)
            print(f"{ROUNDS} rounds in {time.monotonic() - start:.0f} s, upgraded {refreshed} times", flush=True)
            for word in ("supervisor_pid", "vmm_pid", "boots", "vsockd_replaced", "state"):
                equal(now[word], before[word], word)
            host.run("stop", vm, check=0)
            equal(host.status(vm)["outcome"], "clean", "outcome")
            out.uvms(host, "start", vm)
            w.read()	# in another life
            host.run("rm", "-f", vm, check=0)
        host.run("volume", "rm", disk, check=0)
        host.run("image", "rm", image, check=0)
    finally:
        host.run("rm", "-f", vm)
        host.run("volume", "rm", disk)
        vmtest.UVMS = str(vmtest.BUILD / "uvms")
        shutil.rmtree(top, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main({"work": work}))
