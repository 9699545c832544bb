#!/usr/bin/env python3
"""What a person uses all day: images from a registry, the network, published ports, volumes, secrets.

usage: test-everyday.py CASE
"""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import vmtest
from vmtest import Failure, clock, equal, need, pause, true, wait_for

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "fakes"))
from registry import Registry, layer, member  # noqa: E402


def busybox_layer(*more):
    program = pathlib.Path(shutil.which("busybox")).read_bytes()
    names = subprocess.check_output(["busybox", "--list"], text=True).split()
    return layer([member("bin", mode=0o755, type=b"5"), member("bin/busybox", program, mode=0o755),
                  member("tmp", mode=0o1777, type=b"5"),
                  member("etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"),
                  *[member("bin/" + n, type=b"2", linkname="busybox") for n in names if n not in ("busybox", "init", "linuxrc")],
                  *more])


def pulled(host):
    """The image obeys what it says about itself, unless the caller says something else."""
    need("busybox", "skopeo", "umoci")
    with Registry() as r:
        r.add("t/app", "1", [busybox_layer(member("bin/su2", b"x", mode=0o4755))],
              {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id -u; pwd; echo $A $B; stat -c %a /bin/su2"],
               "Env": ["A=1", "PATH=/bin", "B=2"], "WorkingDir": "/made/here", "User": "app"})
        image = f"{r.host}/t/app:1"
        host.run("image", "pull", image, check=0)
    try:
        equal(host.out("run", image), "1000\n/made/here\n1 2\n4755\n", "as the image says")
        equal(host.out("run", "-u", "root", "-w", "/", "-e", "A=9", image, "--", "id -u; pwd; echo $A $B"),
              "0\n/\n9 2\n", "as the caller says")
        equal(host.out("run", "--entrypoint", "/bin/echo", image, "--", "a", "b"), "a b\n", "--entrypoint")
        equal(host.out("run", "--entrypoint", "", image, "--", "echo", "c"), "c\n", "no entry point")
        name = host.name()
        host.run("run", "-d", "--name", name, image, "--", "sleep 1000", check=0)
        equal(host.out("exec", name, "sh", "-c", "echo $A $B"), "1 2\n", "exec has its environment")
        host.run("rm", "-f", name, check=0)
        p = host.run("run", "--init", image, check=1)
        true(b"no init" in p.stderr, f"--init boots: {p.stderr.decode()}")
    finally:
        host.run("image", "rm", image)


def ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True)


class Outside:
    """A network namespace that is all the outside there is: a server and a resolver at 198.51.100.1, the host
    at 198.51.100.2 with a default route. Everything the case runs is run inside the host's."""

    def __init__(self, tag):
        self.host, self.far = f"uvms-{tag}-h{os.getpid()}", f"uvms-{tag}-f{os.getpid()}"
        self.children = []

    def __enter__(self):
        for n in (self.host, self.far):
            ip("netns", "add", n)
            ip("-n", n, "link", "set", "lo", "up")
        ip("link", "add", "up0", "netns", self.host, "type", "veth", "peer", "name", "down0", "netns", self.far)
        for n, dev, address in ((self.host, "up0", "198.51.100.2/24"), (self.far, "down0", "198.51.100.1/24")):
            ip("-n", n, "address", "add", address, "dev", dev)
            ip("-n", n, "link", "set", dev, "up")
        ip("-n", self.host, "route", "add", "default", "via", "198.51.100.1")
        etc = pathlib.Path("/etc/netns") / self.host
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text("nameserver 198.51.100.1\n")
        self.children.append(subprocess.Popen(
            ["ip", "netns", "exec", self.far, sys.executable, __file__, "--serve"], stdout=subprocess.PIPE))
        self.children[0].stdout.readline()
        return self

    def __exit__(self, *args):
        for c in self.children:
            c.kill()
            c.wait()
        for n in (self.host, self.far):
            subprocess.run(["ip", "netns", "delete", n], capture_output=True)
        shutil.rmtree(pathlib.Path("/etc/netns") / self.host, ignore_errors=True)

    def uvms(self, host, *args, check=0, timeout=300):
        p = subprocess.run(["ip", "netns", "exec", self.host, *vmtest.command(*args)], env=host.env,
                           capture_output=True, text=True, timeout=timeout * vmtest.SLOW, stdin=subprocess.DEVNULL)
        if p.returncode != check:
            raise Failure(f"uvms {' '.join(args)}: status {p.returncode}\n{p.stdout}\n{p.stderr}")
        return p.stdout

    def python(self, code, where=None):
        return subprocess.check_output(["ip", "netns", "exec", where or self.host, sys.executable, "-c", code],
                                       text=True, timeout=30 * vmtest.SLOW)

    def far_python(self, code):
        return self.python(code, self.far)


def serve():
    """In the far namespace: every name is 198.51.100.1, and TCP port 80 says hello."""
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind(("198.51.100.1", 53))
    web = socket.create_server(("198.51.100.1", 80))
    print("up", flush=True)

    def serve_web():
        while True:
            peer = web.accept()[0]
            peer.recv(4096)
            peer.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello from outside\n")
            peer.close()
    threading.Thread(target=serve_web, daemon=True).start()
    while True:
        query, peer = dns.recvfrom(512)
        end = query.index(b"\0", 12) + 5
        kind = query[end - 4:end - 2]
        answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("198.51.100.1")
        count = b"\0\1" if kind == b"\0\1" else b"\0\0"
        dns.sendto(query[:2] + b"\x81\x80\0\1" + count + b"\0\0\0\0" + query[12:end] +
                   (answer if count == b"\0\1" else b""), peer)


def netns_works():
    need("ip", "passt")
    if os.getuid() != 0:
        raise vmtest.Skip("only root makes network namespaces")
    name = f"uvms-try-{os.getpid()}"
    p = subprocess.run(["ip", "netns", "add", name], capture_output=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    if p.returncode:
        raise vmtest.Skip("no network namespaces here")


FETCH = ("import socket,time\n"
         "def get(port, host='127.0.0.1'):\n"
         "    for i in range(50):\n"
         "        try:\n"
         "            s = socket.create_connection((host, port), 2); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')\n"
         "            d = b''\n"
         "            while (b := s.recv(4096)): d += b\n"
         "            if d: return d.decode()\n"
         "        except OSError: pass\n"
         "        time.sleep(.2)\n"
         "    return 'nothing'\n")


def network(host):
    """The outside, names, published TCP and UDP ports; the host's loopback stays closed; passt may die."""
    netns_works()
    with Outside("net") as out:
        name = host.name()
        out.uvms(host, "run", "-d", "--name", name, "-p", "8080:80", "-p", "0.0.0.0:9000:9000/udp", "-p",
                 "127.0.0.1:80:80", "debian")
        equal(host.status(name)["network"], "user 10.0.2.15", "status")
        guest = ["exec", name, "python3", "-c"]
        page = out.uvms(host, *guest, FETCH + "print(get(80, 'www.example.org'))")
        true("hello from outside" in page, f"by name: {page}")
        page = out.python(FETCH + "print(get(8080), get(80))")
        true(page.count("200 OK") == 2, f"published: {page}")
        # the router's address is not the host's loopback
        refused = out.uvms(host, *guest, "import socket\ntry: socket.create_connection(('10.0.2.2', 8080), 3); "
                           "print('open')\nexcept OSError as e: print('closed')")
        equal(refused, "closed\n", "the host's loopback")
        echo = host.popen("exec", name, "python3", "-c",
                          "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
                          "s.bind(('', 9000)); print('up', flush=True); d,p=s.recvfrom(99); s.sendto(d*2,p)",
                          stdout=subprocess.PIPE)
        echo.stdout.readline()
        # a passt that cannot answer UDP from the loopback is told apart below
        answer = out.far_python("import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(1)\n"
                            "for i in range(10):\n"
                            "    s.sendto(b'ab', ('198.51.100.2', 9000))\n"
                            "    try: print(s.recv(9).decode()); break\n"
                            "    except OSError: pass\n")
        equal(answer, "abab\n", "UDP")
        echo.wait(20)
        for pid in passts(host):
            os.kill(pid, signal.SIGKILL)
        page = out.python(FETCH + "print(get(8080))")
        true("200 OK" in page, f"after passt was killed: {page}")
        page = out.uvms(host, *guest, FETCH + "print(get(80, 'www.example.org'))")
        true("hello from outside" in page, f"outside after passt was killed: {page}")
        equal(host.status(name)["state"], "running", "the VM lives")
        equal(out.uvms(host, "run", "-p", "8080:80", "busybox", "--", "true", check=125), "", "a port in use")
        usage = subprocess.run(["passt", "--help"], capture_output=True, text=True)
        known = "--map-host-loopback" in usage.stdout + usage.stderr	# Debian 13's says it there, 12's here
        out.uvms(host, "run", "-p", "9001:9001/udp", "busybox", "--", "true", check=0 if known else 125)
        out.uvms(host, "stop", name)
        host.run("rm", name, check=0)


def network_attached(host):
    """A network comes and goes while the VM runs, outlives passt, a refresh and the guest's reboot, and no restart."""
    netns_works()
    with Outside("att") as out:
        name = host.name()
        out.uvms(host, "run", "-d", "--name", name, "--hotplug-slots=1", "debian")
        guest = ["exec", name, "python3", "-c", FETCH + "print(get(80, 'www.example.org'))"]
        outside = lambda: "hello from outside" in out.uvms(host, *guest)
        out.uvms(host, "detach", "--net", name, check=3)
        out.uvms(host, "attach", name, check=2)
        out.uvms(host, "attach", "--net=user", name, "volume", check=2)
        out.uvms(host, "attach", "--net=bridge", name, check=2)
        out.uvms(host, "attach", "-p", "1:2/sctp", name, check=2)
        equal(host.status(name).get("network"), None, "nothing is there")
        out.uvms(host, "attach", "-p", "8080:80", name)
        equal(host.status(name)["network"], "user 10.0.2.15", "status")
        true(outside(), "by name")
        true("200 OK" in out.python(FETCH + "print(get(8080))"), "published")
        out.uvms(host, "attach", "--net=user", name, check=4)
        out.uvms(host, "attach", name, f"v{os.getpid()}:32M", check=6)
        host.run("volume", "rm", f"v{os.getpid()}")
        for pid in passts(host):
            os.kill(pid, signal.SIGKILL)
        true(outside(), "after passt was killed")
        out.uvms(host, "refresh", name)
        true(outside(), "after a refresh")
        boot = lambda: host.run("exec", name, "cat", "/proc/sys/kernel/random/boot_id").stdout
        first = boot()
        host.run("exec", name, "systemctl", "reboot")
        wait_for(lambda: boot() not in (b"", first) and host.status(name)["state"] == "running", "it boots again", 120)
        wait_for(lambda: outside(), "after the guest's reboot")
        out.uvms(host, "detach", "--net", name)
        equal((passts(host), host.status(name).get("network")), ([], None), "gone")
        true("eth0" not in out.uvms(host, "exec", name, "ls", "/sys/class/net"), "gone from the guest")
        out.uvms(host, "attach", "--net=user", name)
        true(outside(), "once more")
        out.uvms(host, "restart", name)
        equal((passts(host), host.status(name).get("network")), ([], None), "a new start")
        out.uvms(host, "stop", name)
        host.run("rm", name, check=0)


def passts(host):
    return [int(line.split()[0]) for line in host.processes() if "passt" in line.split(None, 1)[1]]


def network_refused(host):
    """What cannot be done is said before anything is made."""
    p = host.run("run", "--net=none", "-p", "1:1", "busybox", "--", "true", check=125)
    true(b"--net=user" in p.stderr, p.stderr.decode())
    for bad in ("1", "1:2:3:4", "0:1", "1:70000", "1.2.3:1:2", "[::1]1:2", "1:2/sctp", "a:b"):
        host.run("run", "-p", bad, "busybox", "--", "true", check=125)
    host.run("run", "--net=bridge", "busybox", "--", "true", check=125)
    with tempfile.TemporaryDirectory() as d:	# a host that has QEMU, and no passt
        for vmm in ("qemu-system-x86_64", "cloud-hypervisor"):
            if shutil.which(vmm):
                os.symlink(shutil.which(vmm), f"{d}/{vmm}")
        env = dict(host.env, PATH=d)
        p = subprocess.run(vmtest.command("run", "-d", "--net=user", "busybox"), env=env, capture_output=True,
                           timeout=60 * vmtest.SLOW)
        equal(p.returncode, 6, f"without passt: {p.stderr}")
        true(b"not supported here" in p.stderr and b"apt install passt" in p.stderr, f"{p.stderr}")


def volumes(host):
    """What is written stays; one writer; it is removed by name."""
    need("mkfs.ext4")
    disk = f"vol{os.getpid()}"
    volume = f"{disk}:/data:64M"
    host.run("run", "--volume", volume, "busybox", "--", "sh", "-c",
             "dd if=/dev/urandom of=/data/a bs=1M count=8 2>/dev/null; sha256sum </data/a >/data/sum; sync",
             check=0)
    out = host.out("run", "-v", f"{disk}:/elsewhere", "busybox", "--", "sh", "-c",
                   "cd /elsewhere; sha256sum <a | cmp - sum && echo same; df -m . | tail -1 | awk '{print $2}'")
    same, size = out.split()
    equal(same, "same", "the content")
    true(50 <= int(size) <= 64, f"size {size}")
    name = host.name()
    host.run("run", "-d", "--name", name, "-v", volume, "busybox", "--", "sleep", "1000", check=0)
    p = host.run("run", "-v", f"{disk}:/x", "busybox", "--", "true", check=125)
    true(b"in use" in p.stderr, p.stderr.decode())
    host.run("volume", "rm", disk, check=4)
    listed = {v["name"]: v for v in json.loads(host.out("volume", "ls", "--json"))}
    true(listed[disk]["in_use"] and listed[disk]["vm"] == name, f"{listed}")
    host.run("kill", name, check=0)
    host.run("start", name, check=0)
    equal(host.out("exec", name, "ls", "/data/sum"), "/data/sum\n", "after a kill")
    host.run("stop", name, check=0)
    host.run("volume", "rm", disk, check=4)
    host.run("rm", name, check=0)
    p = host.run("run", "-v", f"{disk}:/x:1G", "busybox", "--", "true", check=125)
    true(b"64M" in p.stderr, p.stderr.decode())
    host.run("volume", "rm", disk, check=0)
    host.run("volume", "rm", disk, check=3)
    for bad in ("x", ":/x", "x:", "x:y", "../x:/x", "x:/", "x:/a/../b", "x:/a:1", "x:/a:99999T", "x:/.."):
        host.run("run", "-v", bad, "busybox", "--", "true", check=125)


VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd")


def may_share(host, name, *attach):
    """Attached; or refused, as it should be where it cannot be, and nothing is there."""
    p = host.run(*attach)
    if p.returncode == 0:
        return True
    equal(p.returncode, 6, f"refused: {p.stderr.decode()}")
    equal(host.status(name).get("mounts"), None, "nothing is mounted")
    if host.status(name)["vsock"] == "vmm":	# whose memory is private
        true(b"--vsock=uvms" in p.stderr, p.stderr.decode())
        return False
    if not shutil.which("virtiofsd") and not any(os.access(path, os.X_OK) for path in VIRTIOFSD):
        true(b"virtiofsd is not installed" in p.stderr and b"apt install" in p.stderr, p.stderr.decode())
        raise vmtest.Skip("virtiofsd is not installed")
    true(os.getuid() != 0 and b"runs as root only" in p.stderr, p.stderr.decode())
    return False


def virtiofsds(host):
    """The processes of it, and those that serve."""
    return [int(line.split()[0]) for line in host.processes() if "virtiofsd" in line.split(None, 1)[1]]


def signal_all(pids, signo):
    for pid in pids:
        try:
            os.kill(pid, signo)
        except ProcessLookupError:
            pass	# it ended with the one before


def share(host):
    """What is written at one side is there at the other; what is in use stays; nothing else of the host can be reached."""
    name = host.name()
    host.run("run", "-d", "--name", name, "--hotplug-slots=2", "busybox", "--", "sleep", "10000", check=0)
    guest = lambda script, **kw: host.run("exec", name, "sh", "-c", script, **kw)
    with tempfile.TemporaryDirectory() as d:
        top = pathlib.Path(d)
        os.chmod(d, 0o755)
        (top / "outside").write_text("not shared")
        shared = top / "a:b, c"
        shared.mkdir()
        (shared / "from host").write_text("hello")
        (shared / "up").symlink_to("../outside")
        if not may_share(host, name, "attach", name, "--share", f"{shared}:/mnt/deep/x"):
            return
        equal(host.status(name)["mounts"], [{"path": "/mnt/deep/x", "kind": "share", "source": str(shared),
                                             "state": "mounted"}], "status")
        true(f"/mnt/deep/x: share {shared}" in host.out("status", name), "status for people")
        equal(guest("cat '/mnt/deep/x/from host'", check=0).stdout, b"hello", "read in the guest")
        guest("cd /mnt/deep/x && dd if=/dev/urandom of=big bs=1M count=8 2>/dev/null && sha256sum <big >sum && mkdir sub && "
              "echo deep >sub/file && mv 'from host' moved", check=0)
        out = subprocess.run(f"sha256sum <big | cmp - sum && cat sub/file moved", shell=True, cwd=shared, capture_output=True)
        equal(out.stdout, b"deep\nhello", f"written in the guest: {out.stderr}")
        (shared / "sub/file").write_text("changed on the host")
        (shared / "new").write_text("also")
        wait_for(lambda: guest("cat /mnt/deep/x/sub/file /mnt/deep/x/new").stdout == b"changed on the hostalso",
                 "what the host changes is seen")
        # in the guest ".." is the guest's, and a link is followed there
        equal(guest("ls /mnt/deep/x/..", check=0).stdout, b"x\n", "..")
        for path in ("/mnt/deep/x/../outside", "/mnt/deep/x/up", f"/mnt/deep/x/{shared}"):
            true(guest(f"cat '{path}'").returncode != 0, f"{path} is reached")
        if os.getuid() == 0:
            true(guest("mknod /mnt/deep/x/disk b 254 0").returncode != 0, "a device node was made")
            for pid in virtiofsds(host):
                caps = [line for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if "CapEff" in line]
                equal(int(caps[0].split()[1], 16) & ~0xdb, 0, f"capabilities of virtiofsd: {caps}")
        user = host.popen("exec", name, "sh", "-c", "cd /mnt/deep/x && echo in && exec sleep 1000", stdout=subprocess.PIPE)
        user.stdout.readline()
        p = host.run("detach", name, "--share", "/mnt/deep/x", check=4)
        true(b"in use in the guest" in p.stderr, p.stderr.decode())
        equal(guest("cat /mnt/deep/x/moved", check=0).stdout, b"hello", "it goes on")
        user.terminate()	# which goes to the command
        user.wait(timeout=20)
        wait_for(lambda: host.run("detach", name, "--share", "/mnt/deep/x").returncode == 0, "it is not in use any more")
        equal((virtiofsds(host), host.status(name).get("mounts")), ([], None), "gone")
        equal(guest("ls /mnt/deep/x", check=0).stdout, b"", "gone from the guest")
        true((shared / "big").stat().st_size == 8 << 20, "what was written stays")
        host.run("attach", name, "--share", f"{shared}:/again", check=0)
        equal(guest("cat /again/moved", check=0).stdout, b"hello", "once more")
        host.run("stop", name, check=0)
        equal(virtiofsds(host), [], "it ends with the VM")


def share_life(host):
    """A share outlives a refresh and the guest's reboot; without its virtiofsd it is lost, and can be had again."""
    name = host.name()
    host.run("run", "-d", "--name", name, "--hotplug-slots=2", "debian", check=0)
    guest = lambda *command: host.run("exec", name, *command)
    with tempfile.TemporaryDirectory() as d:
        os.chmod(d, 0o755)
        (pathlib.Path(d) / "file").write_text("here")
        seen = lambda: guest("cat", "/srv/x/file").stdout == b"here"
        if not may_share(host, name, "attach", name, "--share", f"{d}:/srv/x"):
            return
        true(seen(), "at first")
        p = host.run("snapshot", name, f"s{os.getpid()}", check=6)
        true(b"/srv/x" in p.stderr, p.stderr.decode())
        host.run("refresh", name, check=0)
        true(seen(), "after a refresh")
        boot = lambda: guest("cat", "/proc/sys/kernel/random/boot_id").stdout
        first = boot()
        guest("systemctl", "reboot")
        wait_for(lambda: boot() not in (b"", first) and host.status(name)["state"] == "running", "it boots again", 120)
        wait_for(seen, "after the guest's reboot")
        equal(host.status(name)["mounts"][0]["state"], "mounted", "status after the reboot")
        signal_all(virtiofsds(host), signal.SIGKILL)
        wait_for(lambda: host.status(name)["mounts"][0]["state"] != "mounted", "the status says so")
        equal(host.status(name)["state"], "running", "the VM lives")
        if host.status(name)["backend"] == "ch":	# a guest may hang in it until it boots again (docs/backends.md)
            host.run("kill", "-q", name, check=0)
            return
        host.run("detach", name, "--share", "/srv/x", check=0)
        host.run("attach", name, "--share", f"{d}:/srv/x", check=0)
        true(seen(), "another one")
        signal_all(virtiofsds(host), signal.SIGSTOP)	# stopped by somebody, it does not hold up the VMM
        host.run("detach", name, "--share", "/srv/x", check=0)
        host.run("attach", name, "--share", f"{d}:/srv/x", check=0)
        host.run("restart", name, check=0)
        equal((virtiofsds(host), host.status(name).get("mounts")), ([], None), "a new start is without it")
        host.run("stop", name, check=0)


def image_attached(host):
    """An image's files, read-only, by DAX; programs run from there; it goes where the back-end can take it away."""
    name = host.name()
    host.run("run", "-d", "--name", name, "--hotplug-slots=2", "busybox", "--", "sleep", "10000", check=0)
    guest = lambda script, **kw: host.run("exec", name, "sh", "-c", script, **kw)
    host.run("attach", name, "--image", "nothing-of-that-name:/mnt/x", check=3)
    host.run("attach", name, "--image", "busybox:/mnt/x", check=0)
    equal(host.status(name)["mounts"], [{"path": "/mnt/x", "kind": "image", "source": "busybox", "state": "mounted"}], "status")
    equal(guest("/mnt/x/bin/busybox echo from there", check=0).stdout, b"from there\n", "run")
    equal(guest("/mnt/x/bin/busybox sha256sum /bin/busybox /mnt/x/bin/busybox | cut -c1-64 | uniq | wc -l", check=0).stdout,
          b"1\n", "the same file")
    true(b" erofs ro," in guest("grep /mnt/x /proc/mounts", check=0).stdout, "read-only")
    true(b"dax=always" in guest("grep /mnt/x /proc/mounts", check=0).stdout, "without a cache in the guest")
    true(guest("echo x >/mnt/x/file").returncode != 0, "it is written to")
    host.run("attach", name, "--image", "busybox:/mnt/x", check=4)
    p = host.run("snapshot", name, f"s{os.getpid()}", check=6)
    true(b"/mnt/x" in p.stderr, p.stderr.decode())
    host.run("refresh", name, check=0)
    equal(guest("/mnt/x/bin/busybox echo still", check=0).stdout, b"still\n", "after a refresh")
    host.run("detach", name, "--share", "/mnt/x", check=3)
    p = host.run("detach", name, "--image", "/mnt/x")
    if host.status(name)["backend"] == "qemu":
        equal(p.returncode, 6, "QEMU keeps it")
        true(b"stays until the VM ends" in p.stderr, p.stderr.decode())
        equal(guest("/mnt/x/bin/busybox echo still", check=0).stdout, b"still\n", "and nothing was touched")
    else:
        equal(p.returncode, 0, f"detach: {p.stderr.decode()}")
        equal((guest("ls /mnt/x", check=0).stdout, host.status(name).get("mounts")), (b"", None), "gone")
        host.run("attach", name, "--image", "busybox:/mnt/x", check=0)
    host.run("stop", name, check=0)
    lent = host.state / "vms" / name / "lent"
    equal([*lent.iterdir()] if lent.exists() else [], [], "nothing is lent any more")


def secrets(host):
    """Credentials and environment files reach the guest and nothing else."""
    tmp = pathlib.Path(host.runtime)
    secret = f"S3CRET-{os.getpid()}"
    for where in (tmp / "cred", tmp / "env"):
        where.write_text(secret + "\n" if where.name == "cred" else f"# c\n\nTOKEN={secret} \"q\"\nHERE\nNONE\n")
    env = dict(host.env, HERE="yes")
    args = ["--credential", f"tok={tmp}/cred", "--env-file", f"{tmp}/env"]
    p = subprocess.run(vmtest.command("run", *args, "-u", "1000", "busybox", "--", "sh", "-c",
                                      "cat $CREDENTIALS_DIRECTORY/tok; echo $TOKEN $HERE; env | grep -c NONE"),
                       env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120 * vmtest.SLOW)
    equal(p.stdout, f"{secret}\n{secret} \"q\" yes\n0\n", f"in the guest: {p.stderr}")
    name = host.name()
    host.run("run", "-d", "--name", name, *args, "debian", check=0)
    equal(host.out("exec", name, "sh", "-c", "systemd-run -q --wait -P -p LoadCredential=tok systemd-creds cat tok"),
          f"{secret}\n", "systemd has it")
    equal(host.out("exec", name, "hostname"), name + "\n", "the other credentials are there too")
    seen = host.out("status", "--json", name) + host.out("inspect", name)
    for entry in pathlib.Path("/proc").iterdir():
        try:
            seen += (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            pass
    for path in [*tmp.rglob("*")]:
        if path.is_file() and path.name not in ("cred", "env"):
            seen += path.read_bytes().decode(errors="replace")
    (tmp / "cred").unlink()
    true(secret not in seen.replace(f"TOKEN={secret}", ""), "the secret is seen on the host")
    kept = host.state / "vms" / name / "credentials"
    equal(kept.stat().st_mode & 0o777, 0o700, "mode of the directory")
    equal((kept / "tok").stat().st_mode & 0o777, 0o400, "mode of the file")
    host.run("restart", name, check=0)
    equal(host.out("exec", name, "cat", "/run/credentials/@system/tok"), f"{secret}\n", "after a restart")
    host.run("rm", "-f", name, check=0)
    true(not kept.exists(), "gone with the VM")
    (tmp / "env").unlink()
    for bad in ("x", "=x", "a/b=x", ".a=x", "a=/nonexistent"):
        host.run("run", "--credential", bad, "busybox", "--", "true", check=125)


def events(host):
    """Every change with its cause, the killed supervisor included; stop --all; prune."""
    # a realm of its own: prune and stop --all mean all of it
    state = pathlib.Path(tempfile.mkdtemp(prefix="uvms-events-", dir=vmtest.BASE))
    state.chmod(0o711)	# as the system's: a VMM that writes a snapshot passes through it
    try:
        vmtest.link_store(host, state / "store")
        events_in(vmtest.Host("events", runtime=host.runtime, state=state))
    finally:
        shutil.rmtree(state)


def events_in(host):
    first, second = host.name("a"), host.name("b")
    follower = host.popen("events", "--json", first, stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    host.run("run", "-d", "--name", first, "busybox", "--", "sleep", "1000", check=0)
    host.run("run", "-d", "--name", second, "busybox", "--", "sleep", "1000", check=0)
    vsockd = host.status(first).get("vsockd_pid")
    if vsockd:
        os.kill(vsockd, signal.SIGKILL)
    pause(1)
    os.kill(host.status(first)["supervisor_pid"], signal.SIGKILL)
    seen = []
    while not seen or seen[-1].get("state") != "stopped":
        line = follower.stdout.readline()
        true(line, f"events ended after {seen}")
        seen.append(json.loads(line))
    equal({e["vm"] for e in seen}, {first}, "only the one that was asked for")
    equal([(e["event"], e.get("state")) for e in seen],
          [("created", None), ("state", "starting"), ("state", "booting"), ("state", "running"),
           *([("vsockd", "running")] if vsockd else []), ("state", "stopped")], "the events")
    true(not vsockd or "signal 9" in seen[4]["cause"], f"{seen[4]}")
    equal((seen[-1]["outcome"], seen[-1]["cause"]), ("crashed", "the supervisor was killed"), "the end")
    host.run("start", first, check=0)
    t = clock()
    out = host.out("stop", "--all")
    true(clock() - t < 20, "at the same time")
    true(first in out and second in out, out)
    host.run("stop", "--all", first, check=2)
    host.run("stop", check=2)
    follower.kill()
    follower.wait()
    kept = [json.loads(line) for line in host.out("events", "-a", "-n", "--json", first, second).splitlines()]
    true(len(kept) > 10 and kept[0]["event"] == "created", f"{kept[:2]}")
    host.run("start", second, check=0)
    host.run("snapshot", "--stop", second, "kept", check=0)
    true("image busybox" not in host.out("prune", "-a", "--dry-run"), "the image of a snapshot goes")
    host.run("snapshot", "rm", "kept", check=0)
    volume = f"{first}-v"
    host.run("run", "-v", f"{volume}:/v:64M", "busybox", "--", "true", check=0)
    dry = host.out("prune", "-a", "--dry-run")
    true(f"would remove VM {first}" in dry, dry)
    for thing in ("image busybox", f"volume {volume}"):
        true(f"would remove {thing}" in dry, dry)
    true("busybox" in host.out("image", "ls", "-q"), "--dry-run removes nothing")
    gone = host.out("prune", "-a")
    true(f"removed VM {first}" in gone and f"removed VM {second}" in gone, gone)
    equal(host.run("status", first).returncode, 3, "gone")
    equal(host.out("image", "ls", "-q") + host.out("volume", "ls", "-q"), "", "images and volumes")
    true("freed" in gone and not gone.startswith("0.0"), gone)


CASES = {
    "events": events,
    "pulled": pulled,
    "network": network,
    "network-refused": network_refused,
    "network-attached": network_attached,
    "share": share,
    "share-life": share_life,
    "image-attached": image_attached,
    "volumes": volumes,
    "secrets": secrets,
}

if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(vmtest.main(CASES))
