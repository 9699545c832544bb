#!/usr/bin/env python3
"""uvms image and uvms kernel, driven as a user does: layers, the store, what failures leave behind."""
import hashlib
import json
import lzma
import os
import pwd
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

UVMS = os.path.abspath(os.environ.get("UVMS", "build/uvms"))
MUST_RUN = os.environ.get("UVMS_TESTS_MUST_RUN") == "1"
ROOT = os.getuid() == 0


def need(condition, why):
    if not condition:
        if MUST_RUN:
            raise AssertionError(f"must run, but {why}")
        raise unittest.SkipTest(why)


def need_tool(name):
    need(shutil.which(name), f"{name} is not installed")


def elf(release="6.1.0-test"):
    """A vmlinux with a PVH entry, as far as anybody looks."""
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x1000000)
    head = b"\x7fELF\x02\x01\x01" + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    head += struct.pack("<IIQQQQQQ", 4, 0, 512, 0, 0, len(note), len(note), 4)
    return head.ljust(512, b"\0") + note + f"Linux version {release} (a@b)".encode() + bytes(9000)


def bzimage(release="6.1.0-test", payload=None):
    payload = payload or lzma.compress(elf(release)) + struct.pack("<I", 0)
    b = bytearray(1024)
    b[0x1f1] = 1
    b[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", b, 0x206, 0x20f)
    struct.pack_into("<H", b, 0x20e, 0x100)
    b[0x300:0x300 + len(release) + 1] = release.encode() + b" "
    struct.pack_into("<II", b, 0x248, 0, len(payload))
    return bytes(b) + payload


def read(path):
    with open(path) as f:
        return f.read()


WANTED = ["virtio_ring", "virtio", "virtio_pci", "virtio_blk", "vsock",
          "vmw_vsock_virtio_transport_common", "vmw_vsock_virtio_transport", "erofs", "overlay"]


class Case(unittest.TestCase):
    def setUp(self):
        need_tool("mkfs.erofs")
        self.base = tempfile.mkdtemp(prefix="uvms-image-", dir="/var/tmp")
        os.chmod(self.base, 0o755)
        self.state = self.base + "/state"
        self.env = dict(os.environ, UVMS_STATE_DIR=self.state, UVMS_RUNTIME_DIR=self.base + "/run")
        self.tree = self.path("tree")
        os.mkdir(self.tree)
        self.write("tree/hello", b"hello\n")

    def tearDown(self):
        shutil.rmtree(self.base)

    def path(self, name):
        return os.path.join(self.base, name)

    def write(self, name, data, mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(data)
        os.chmod(path, mode)
        return path

    def uvms(self, *args, code=0, env=None, prefix=()):
        p = subprocess.run([*prefix, UVMS, *args], env=env or self.env, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)
        self.assertEqual(p.returncode, code, p.stderr)
        self.err = p.stderr
        return p.stdout.strip()

    def build(self, name="a", **kw):
        return self.uvms("image", "build", name, "--from-dir", self.tree, **kw)

    def blobs(self):
        d = self.state + "/store/blobs/sha256"
        return sorted(os.listdir(d)) if os.path.isdir(d) else []

    def layer(self, name="a"):
        digest = json.loads(self.uvms("image", "inspect", name))["layers"][0]
        return self.state + "/store/blobs/sha256/" + digest[7:]

    def extracted(self, name="a"):
        out = self.path("out")
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(["fsck.erofs", f"--extract={out}", self.layer(name)], check=True,
                       stdout=subprocess.DEVNULL)
        return out

    def dumped(self, name, path):
        """Owner, group and mode. fsck.erofs 1.5 drops setuid bits, dump.erofs does not show them:
        the mode is read where it lies."""
        need_tool("dump.erofs")
        text = subprocess.run(["dump.erofs", f"--path={path}", self.layer(name)], check=True,
                              text=True, stdout=subprocess.PIPE).stdout
        word = lambda key: int(re.search(key + r": *(\d+)", text)[1])
        with open(self.layer(name), "rb") as f:
            f.seek(1024)
            sb = f.read(128)
            f.seek((struct.unpack_from("<I", sb, 40)[0] << sb[12]) + 32 * word("NID"))
            mode = struct.unpack_from("<H", f.read(32), 4)[0]
        return word("Uid"), word("Gid"), mode & 0o7777

    def fake_tool(self, name, script):
        self.write("bin/" + name, b"#!/bin/sh\n" + script.encode(), 0o755)
        return dict(self.env, PATH=self.path("bin") + ":" + os.environ["PATH"])

    def modules(self, where, names=WANTED, release="6.1.0-test", packed=False):
        for i, name in enumerate(names):
            depends = names[i - 1] if i else ""
            data = b"\x7fELF\0depends=%s\0vermagic=%s SMP\0" % (depends.encode(), release.encode())
            self.write(f"{where}/kernel/{name}.ko" + (".xz" if packed else ""),
                       lzma.compress(data, check=lzma.CHECK_CRC32) if packed else data)
        return self.path(where)


class Layers(Case):
    def test_equal_trees_give_equal_digests(self):
        os.symlink("hello", self.tree + "/link")
        first = self.build("a")
        layer = self.layer("a")
        time.sleep(1.1)
        self.assertEqual(self.build("b"), first)
        copy = self.path("copy")
        subprocess.run(["cp", "-a", self.tree, copy], check=True)
        self.assertEqual(self.uvms("image", "build", "c", "--from-dir", copy), first)
        self.write("tree/hello", b"other\n")
        self.assertNotEqual(self.build("d"), first)
        st = os.stat(layer)
        self.assertEqual(st.st_size % (2 << 20), 0)
        self.assertEqual(st.st_mode & 0o7777, 0o444)
        with open(layer, "rb") as f:
            self.assertEqual(hashlib.sha256(f.read()).hexdigest(), os.path.basename(layer))

    def test_is_an_oci_layout(self):
        digest = self.build("lib/a:1")
        store = self.state + "/store/"
        load = lambda d: json.loads(read(store + "blobs/sha256/" + d["digest"][7:]))
        self.assertEqual(json.loads(read(store + "oci-layout")), {"imageLayoutVersion": "1.0.0"})
        index = json.loads(read(store + "index.json"))
        entry = index["manifests"][0]
        self.assertEqual(entry["digest"], digest)
        self.assertEqual(entry["annotations"]["org.opencontainers.image.ref.name"], "lib/a:1")
        manifest = load(entry)
        config = load(manifest["config"])
        self.assertEqual(config["rootfs"]["diff_ids"], [manifest["layers"][0]["digest"]])
        for d in [entry, manifest["config"], *manifest["layers"]]:
            self.assertEqual(os.stat(store + "blobs/sha256/" + d["digest"][7:]).st_size, d["size"])

    def test_skopeo_copies_it(self):
        need_tool("skopeo")
        self.build("a")
        subprocess.run(["skopeo", "copy", "--insecure-policy", f"oci:{self.state}/store:a",
                        f"oci:{self.path('copy')}:a"], check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(sorted(os.listdir(self.path("copy/blobs/sha256"))), self.blobs())

    def test_owners_modes_times_and_attributes_survive(self):
        need(ROOT, "only root can make such files")
        path = self.write("tree/tool", b"x")
        os.chown(path, 123, 45678)
        os.chmod(path, 0o6755)
        cap = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
        os.setxattr(path, "security.capability", cap)
        os.setxattr(path, "user.note", b"kept")
        os.utime(path, (1, 1600000000))
        self.build()
        at = self.path("mnt")
        os.mkdir(at)
        if subprocess.run(["mount", "-t", "erofs", "-o", "ro,loop", self.layer(), at],
                          stderr=subprocess.DEVNULL).returncode == 0:
            try:
                self.check_tool(at + "/tool", cap)
            finally:
                subprocess.run(["umount", at], check=True)
        self.assertEqual(self.dumped("a", "/tool"), (123, 45678, 0o6755))

    def check_tool(self, path, cap):
        st = os.stat(path)
        self.assertEqual((st.st_uid, st.st_gid, st.st_mode & 0o7777, int(st.st_mtime)),
                         (123, 45678, 0o6755, 1600000000))
        self.assertEqual(os.getxattr(path, "security.capability"), cap)
        self.assertEqual(os.getxattr(path, "user.note"), b"kept")

    def test_as_an_ordinary_user(self):
        need(ROOT, "it runs as an ordinary user anyway")
        need_tool("setpriv")
        nobody = pwd.getpwnam("nobody")
        binary = shutil.copy(UVMS, self.path("uvms"))
        os.mkdir(self.path("home"), 0o700)
        os.chown(self.path("home"), nobody.pw_uid, nobody.pw_gid)
        env = dict(self.env, UVMS_STATE_DIR=self.path("home/state"),
                   UVMS_RUNTIME_DIR=self.path("home/run"))
        mine = self.build()
        p = subprocess.run(["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}",
                            "--clear-groups", binary, "image", "build", "a", "--from-dir",
                            self.tree], env=env, text=True, capture_output=True)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(p.stdout.strip(), mine)


class Failures(Case):
    def left(self):
        """Blobs, named temporary files and notes; and whether the layout still answers."""
        self.uvms("image", "ls")
        return self.blobs() + os.listdir(self.state + "/store/verified")

    def test_full_disk(self):
        need(ROOT, "only root can mount a small tmpfs")
        self.write("tree/big", os.urandom(6 << 20))
        os.mkdir(self.state, 0o700)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "none", self.state],
                       check=True)
        try:
            self.build(code=1)
            self.assertIn("No space left", self.err)
            self.assertEqual(self.left(), [])
            os.unlink(self.tree + "/big")
            self.build()
            self.assertEqual(len(self.blobs()), 3)
        finally:
            subprocess.run(["umount", self.state], check=True)

    def test_full_disk_at_any_size(self):
        """Wherever the disk is full: all of it, or nothing of it."""
        need(ROOT, "only root can mount a small tmpfs")
        os.mkdir(self.state, 0o700)
        for kib in (4, 8, 16, 24, 32, 40, 48, 2048, 2080, 2096):
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k,mode=0700", "none",
                            self.state], check=True)
            try:
                p = subprocess.run([UVMS, "image", "build", "a", "--from-dir", self.tree],
                                   env=self.env, capture_output=True, text=True)
                names = [b for b in self.blobs()]
                self.assertEqual(len(names), 3 if p.returncode == 0 else 0, (kib, p.stderr))
                for name in names:
                    with open(f"{self.state}/store/blobs/sha256/{name}", "rb") as f:
                        self.assertEqual(hashlib.sha256(f.read()).hexdigest(), name)
            finally:
                subprocess.run(["umount", self.state], check=True)

    def test_failing_tool(self):
        env = self.fake_tool("mkfs.erofs", "echo part >/proc/self/fd/3; echo no luck >&2; exit 3\n")
        self.build(code=1, env=env)
        self.assertIn("no luck", self.err)
        self.assertEqual(self.left(), [])

    def test_missing_tool(self):
        env = dict(self.env, PATH="/nonexistent")
        need(not os.path.exists("/usr/sbin/mkfs.erofs"), "mkfs.erofs is in sbin")
        self.build(code=6, env=env)
        self.assertIn("apt install erofs-utils", self.err)
        self.assertEqual(self.blobs(), [])
        self.uvms("image", "build", "a", "--from-debian", "bookworm", code=6, env=env)

    def test_interrupted(self):
        env = self.fake_tool("mkfs.erofs", "echo part >/proc/self/fd/3; echo $$ >" +
                             self.path("pid") + "; exec sleep 100\n")
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)):
            p = subprocess.Popen([UVMS, "image", "build", "a", "--from-dir", self.tree], env=env,
                                 stderr=subprocess.PIPE, stdout=subprocess.PIPE)
            while not os.path.exists(self.path("pid")) or not read(self.path("pid")):
                time.sleep(0.01)
            p.send_signal(number)
            p.communicate(timeout=10)
            self.assertEqual(p.returncode, code)
            self.assertEqual(self.left(), [])
            self.gone(int(read(self.path("pid"))))
            os.unlink(self.path("pid"))

    def gone(self, pid):
        for _ in range(200):
            if not os.path.exists(f"/proc/{pid}"):
                return
            time.sleep(0.01)
        self.fail("the tool runs on")

    def test_flipped_bit(self):
        self.build()
        path = self.layer()
        os.chmod(path, 0o644)
        with open(path, "r+b") as f:
            f.seek(5000)
            byte = f.read(1)
            f.seek(5000)
            f.write(bytes([byte[0] ^ 1]))
        need_tool("fsck.erofs")
        self.uvms("kernel", "add", "--from-image", "a", code=1)
        self.assertIn("damaged", self.err)
        self.assertIn(os.path.basename(path), self.err)
        self.build()
        self.uvms("kernel", "add", "--from-image", "a", code=1)
        self.assertIn("no layer", self.err)

    def test_damaged_index(self):
        self.build()
        with open(self.state + "/store/index.json", "w") as f:
            f.write("{")
        self.uvms("image", "ls", code=1)
        self.assertIn("index.json", self.err)
        self.build(code=1)


class Verbs(Case):
    def test_names_and_usage(self):
        for name in ("A", "-a", "a b", "../a", "a:", "a" * 256):
            self.uvms("image", "build", "--from-dir", self.tree, "--", name, code=2)
        self.uvms("image", "build", "a", code=2)
        self.uvms("image", "build", "a", "--from-dir", self.tree, "--from-debian", "x", code=2)
        self.uvms("image", "build", "a", "--from-dir", self.path("none"), code=1)
        self.assertIn("No such file", self.err)
        self.uvms("image", "inspect", "none", code=3)
        self.uvms("image", "rm", "none", code=3)
        self.uvms("kernel", "rm", "none", code=3)

    def test_list_replace_remove(self):
        one = self.build("a")
        self.build("b")
        self.write("tree/more", b"more")
        two = self.build("a")
        self.assertIn("replaced", self.err)
        listed = {i["name"]: i["digest"] for i in json.loads(self.uvms("image", "ls", "--json"))}
        self.assertEqual(listed, {"a": two, "b": one})
        self.assertEqual(self.uvms("image", "ls", "-q"), "b\na")
        self.assertEqual(json.loads(self.uvms("image", "inspect", one[7:15]))["name"], "b")
        self.uvms("image", "rm", "a")
        self.assertEqual(len(self.blobs()), 3)
        self.layer("b")
        self.uvms("image", "rm", "b")
        self.assertEqual(self.blobs(), [])

    def test_builds_beside_each_other(self):
        trees = []
        for i in range(6):
            shutil.copytree(self.tree, self.path(f"t{i}"))
            self.write(f"t{i}/n", b"%d" % i)
            trees.append(self.path(f"t{i}"))
        ps = [subprocess.Popen([UVMS, "image", "build", "-q", f"i{i % 3}", "--from-dir", t],
                               env=self.env, stdout=subprocess.DEVNULL)
              for i, t in enumerate(trees)]
        self.assertEqual([p.wait(30) for p in ps], [0] * 6)
        self.assertEqual(sorted(self.uvms("image", "ls", "-q").split()), ["i0", "i1", "i2"])


class Kernels(Case):
    def kernels(self):
        return json.loads(self.uvms("kernel", "ls", "--json"))

    def blob(self, digest):
        with open(self.state + "/store/blobs/sha256/" + digest[7:], "rb") as f:
            return f.read()

    def test_file(self):
        kernel = self.write("vmlinuz", bzimage())
        self.uvms("kernel", "add", kernel, "--modules", self.modules("m"))
        k = self.kernels()[0]
        self.assertEqual((k["name"], k["release"], k["default"]), ("6.1.0-test",) * 2 + (True,))
        self.assertEqual(self.blob(k["kernel"]), elf())
        self.uvms("kernel", "add", kernel, "--modules", self.modules("m2", packed=True), "--name",
                  "second")
        self.assertEqual([x["default"] for x in self.kernels()], [False, True])
        self.assertEqual(self.kernels()[1]["modules"], k["modules"])
        self.uvms("kernel", "rm", "second")
        self.assertEqual(self.blob(k["kernel"]), elf())
        self.uvms("kernel", "rm", "6.1.0-test")
        self.assertEqual(self.blobs(), [])

    def test_what_does_not_fit(self):
        kernel = self.write("vmlinuz", bzimage())
        other = self.modules("m", release="6.2.0-other")
        self.uvms("kernel", "add", kernel, "--modules", other, code=1)
        self.assertIn("6.2.0-other", self.err)
        self.uvms("kernel", "add", kernel, "--modules", self.modules("few", WANTED[:5]), code=1)
        self.assertIn("erofs, overlay", self.err)
        self.uvms("kernel", "add", self.tree + "/hello", "--modules", self.modules("m3"), code=1)
        self.assertIn("neither a bzImage nor", self.err)
        self.uvms("kernel", "add", kernel, "--modules", self.tree, code=1)
        self.assertEqual(self.blobs(), [])

    def test_keeps_a_bzimage_that_cannot_be_unpacked(self):
        image = bzimage(payload=b"\x1f\x8b\x08 gzip or so")
        self.uvms("kernel", "add", self.write("vmlinuz", image), "--modules", self.modules("m"))
        self.assertIn("gzip", self.err)
        self.assertEqual(self.blob(self.kernels()[0]["kernel"]), image)

    def test_from_image(self):
        need_tool("fsck.erofs")
        self.write("tree/boot/vmlinuz-6.1.0-9", bzimage("6.1.0-9"))
        self.write("tree/boot/vmlinuz-6.1.0-10", bzimage("6.1.0-10"))
        self.write("tree/boot/vmlinuz-6.1.0-11", bzimage("6.1.0-11"))
        self.modules("tree/usr/lib/modules/6.1.0-9", release="6.1.0-9")
        self.modules("tree/usr/lib/modules/6.1.0-10", release="6.1.0-10")
        os.symlink("usr/lib", self.tree + "/lib")
        self.build()
        self.assertEqual(self.uvms("kernel", "add", "-q", "--from-image", "a"), "6.1.0-10")
        self.assertFalse([b for b in self.blobs() if b.startswith(".")])
        self.uvms("kernel", "add", "--from-image", "none", code=1)
        self.assertIn("there is no image none", self.err)

    def test_links_of_an_image_stay_inside_it(self):
        need_tool("fsck.erofs")
        self.write("outside/vmlinuz-6.1.0-test", bzimage())
        self.modules("tree/usr/lib/modules/6.1.0-test")
        os.symlink(self.path("outside"), self.tree + "/boot")
        self.build()
        self.uvms("kernel", "add", "--from-image", "a", code=1)
        self.assertIn("no layer", self.err)

    def test_from_deb(self):
        need(os.environ.get("UVMS_TESTS_NETWORK") == "1", "UVMS_TESTS_NETWORK=1 is not set")
        need_tool("apt-get")
        name = self.uvms("kernel", "add", "-q", "--from-deb")
        k = self.kernels()[0]
        self.assertEqual(name, k["release"])
        self.assertEqual(self.blob(k["kernel"])[:4], b"\x7fELF")


class Debian(Case):
    def test_script_and_tree(self):
        need(os.environ.get("UVMS_TESTS_NETWORK") == "1", "UVMS_TESTS_NETWORK=1 is not set")
        need_tool("mmdebstrap")
        script = self.write("it's a script", b"#!/bin/sh\nset -e\nid -u >/made\nchown 7:8 /made\n")
        self.uvms("image", "build", "d", "--from-debian", "bookworm", "--include",
                  "iputils-ping", "--script", script)
        out = self.extracted("d")
        self.assertEqual(read(out + "/made"), "0\n")
        self.assertEqual(self.dumped("d", "/made"), (7, 8, 0o644))
        self.assertEqual(self.dumped("d", "/usr/bin/su"), (0, 0, 0o4755))
        self.assertEqual(read(out + "/etc/machine-id"), "")
        self.assertEqual(os.listdir(out + "/dev"), [])
        self.assertFalse(os.path.exists(out + "/uvms-script"))
        self.assertFalse([b for b in self.blobs() if b.startswith(".")])


if __name__ == "__main__":
    unittest.main(verbosity=2)
