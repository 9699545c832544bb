#!/usr/bin/env python3
"""uvms image pull against a registry on loopback: what becomes of layers and configuration, and of nonsense."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fakes"))
from registry import Registry, layer, member  # noqa: E402

UVMS = os.path.abspath(os.environ.get("UVMS", "build/uvms"))
MUST_RUN = os.environ.get("UVMS_TESTS_MUST_RUN") == "1"

BASE = layer([
    member("bin", mode=0o755, type=b"5"),
    member("bin/tool", b"old", mode=0o755),
    member("etc", mode=0o755, type=b"5"),
    member("etc/gone", b"x"),
    member("opaque", mode=0o755, type=b"5"),
    member("opaque/hidden", b"x"),
    member("link", type=b"2", linkname="bin/tool"),
    member("setuid", b"s", mode=0o4755),
])
TOP = layer([
    member("bin/tool", b"new", mode=0o755),
    member("etc/.wh.gone"),
    member("opaque/.wh..wh..opq"),
    member("opaque/seen", b"y"),
    member("home/u", mode=0o700, type=b"5", uid=1000, gid=1000),
])
CONFIG = {"Entrypoint": ["/bin/tool"], "Cmd": ["-a", "b c"], "Env": ["A=1", "PATH=/bin"],
          "WorkingDir": "/work/dir", "User": "1000:1000", "ExposedPorts": {"80/tcp": {}},
          "Labels": {"x": "y"}}


def need(condition, why):
    if not condition:
        if MUST_RUN:
            raise AssertionError(f"must run, but {why}")
        raise unittest.SkipTest(why)


class Pull(unittest.TestCase):
    def setUp(self):
        for tool in ("skopeo", "umoci", "mkfs.erofs", "fsck.erofs"):
            need(shutil.which(tool), f"{tool} is not installed")
        self.base = tempfile.mkdtemp(prefix="uvms-pull-", dir="/var/tmp")
        self.env = dict(os.environ, UVMS_STATE_DIR=self.base + "/state", UVMS_RUNTIME_DIR=self.base + "/run")
        self.registry = Registry().__enter__()
        self.addCleanup(shutil.rmtree, self.base, ignore_errors=True)
        self.addCleanup(self.registry.__exit__)

    def uvms(self, *args, status=0):
        p = subprocess.run([UVMS, *args], env=self.env, capture_output=True, text=True, timeout=120,
                           stdin=subprocess.DEVNULL)
        self.assertEqual(p.returncode, status, p.stdout + p.stderr)
        return p

    def inspect(self, name):
        return json.loads(self.uvms("image", "inspect", name).stdout)

    def tree(self, name):
        blob = self.inspect(name)["layers"][0].removeprefix("sha256:")
        out = f"{self.base}/tree-{len(os.listdir(self.base))}"
        subprocess.run(["fsck.erofs", f"--extract={out}", "--preserve-perms", "--preserve-owner",
                        f"{self.base}/state/store/blobs/sha256/{blob}"], check=True, capture_output=True)
        return out

    def no_leftovers(self):
        blobs = self.base + "/state/store/blobs/sha256"
        left = [n for n in os.listdir(blobs) if n.startswith(".")] if os.path.isdir(blobs) else []
        self.assertEqual(left, [])

    def test_layers_become_one_and_the_configuration_is_kept(self):
        source = self.registry.add("team/app", "1", [BASE, TOP], CONFIG)
        ref = f"{self.registry.host}/team/app:1"
        p = self.uvms("image", "pull", ref)
        for words in ("fetching", "unpacking 2 layers", "packing the tree", "is there"):
            self.assertIn(words, p.stderr)
        image = self.inspect(ref)
        self.assertEqual(p.stdout.strip(), image["digest"])
        self.assertEqual(len(image["layers"]), 1)
        self.assertEqual({k: image["config"][k] for k in ("Entrypoint", "Cmd", "Env", "WorkingDir", "User")},
                         {k: CONFIG[k] for k in ("Entrypoint", "Cmd", "Env", "WorkingDir", "User")})
        tree = self.tree(ref)
        with open(tree + "/bin/tool") as f:
            self.assertEqual(f.read(), "new")
        self.assertFalse(os.path.exists(tree + "/etc/gone"))
        self.assertEqual(os.listdir(tree + "/opaque"), ["seen"])
        self.assertEqual(os.readlink(tree + "/link"), "bin/tool")
        self.assertEqual(os.stat(tree + "/setuid").st_mtime, 1600000000)
        if os.getuid() == 0:
            self.assertEqual(os.stat(tree + "/home/u").st_uid, 1000)
        self.no_leftovers()
        again = self.uvms("image", "pull", "-q", ref)
        self.assertEqual((again.stdout, again.stderr), (p.stdout, ""))
        self.assertTrue(source.startswith("sha256:"))

    def test_the_right_architecture_of_several(self):
        wrong = self.registry.add("m", "arm", [layer([member("arch", b"arm64")])], {}, "arm64")
        right = self.registry.add("m", "amd", [layer([member("arch", b"amd64")])], {})
        self.registry.add_index("m", "latest", {"arm64": wrong, "amd64": right})
        self.uvms("image", "pull", f"{self.registry.host}/m")
        with open(self.tree(f"{self.registry.host}/m:latest") + "/arch") as f:
            self.assertEqual(f.read(), "amd64")

    def test_by_digest_and_by_another_name(self):
        source = self.registry.add("d", "1", [BASE], {})
        self.uvms("image", "pull", f"{self.registry.host}/d@{source}", "--name", "mine:2")
        self.assertEqual(self.inspect("mine:2")["name"], "mine:2")
        self.uvms("image", "rm", "mine:2")
        self.assertIn("no image", self.uvms("image", "inspect", "mine:2", status=3).stderr)

    def test_an_archive_needs_a_name(self):
        self.registry.add("a", "1", [BASE], CONFIG)
        archive = self.base + "/a.tar"
        subprocess.run(["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "-q",
                        f"docker://{self.registry.host}/a:1", f"oci-archive:{archive}"], check=True)
        self.assertIn("--name", self.uvms("image", "pull", f"oci-archive:{archive}", status=2).stderr)
        self.uvms("image", "pull", f"oci-archive:{archive}", "--name", "a")
        self.assertEqual(self.inspect("a")["config"]["Entrypoint"], ["/bin/tool"])

    def test_what_cannot_be_pulled(self):
        for ref in ("", "-x", "UPPER", "a:b:c", "a b"):
            self.uvms("image", "pull", "--", ref, status=2)
        p = self.uvms("image", "pull", f"{self.registry.host}/none:1", status=1)
        self.assertIn("skopeo failed", p.stderr)
        self.assertIn("manifest unknown", p.stderr)
        self.no_leftovers()

    def test_hostile_configurations(self):
        for key, value in (("Env", ["novalue"]), ("Env", "A=1"), ("Cmd", [1]), ("Entrypoint", {"a": 1}),
                           ("User", ["root"]), ("Cmd", ["x" * 5000]), ("Cmd", ["x"] * 2000),
                           ("WorkingDir", "a\0b")):
            self.registry.add("bad", "1", [BASE], {key: value})
            p = self.uvms("image", "pull", f"{self.registry.host}/bad:1", status=1)
            self.assertNotIn("Traceback", p.stderr)
            self.no_leftovers()
        self.assertEqual(json.loads(self.uvms("image", "ls", "--json").stdout), [])

    def test_a_layer_that_leaves_its_tree(self):
        target = self.base + "/outside"
        os.mkdir(target)
        for members in ([member("../outside/a", b"x")],
                        [member("l", type=b"2", linkname=target), member("l/b", b"x")],
                        [member("h", type=b"1", linkname="../../outside/../../../etc/passwd")]):
            self.registry.add("evil", "1", [layer(members)], {})
            subprocess.run([UVMS, "image", "pull", "-q", f"{self.registry.host}/evil:1"], env=self.env,
                           capture_output=True, timeout=120)
            self.assertEqual(os.listdir(target), [])
            self.no_leftovers()

    def test_a_flipped_layer_is_refused(self):
        self.registry.add("flip", "1", [BASE], {})
        for key, (data, kind) in list(self.registry.blobs.items()):
            if kind.endswith("gzip"):
                self.registry.blobs[key] = (data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], kind)
        p = self.uvms("image", "pull", f"{self.registry.host}/flip:1", status=1)
        self.assertRegex(p.stderr, "Digest|checksum")
        self.no_leftovers()

    def test_interrupted(self):
        big = layer([member(f"f{i}", os.urandom(1 << 20)) for i in range(40)])
        self.registry.add("big", "1", [big], {})
        p = subprocess.Popen([UVMS, "image", "pull", f"{self.registry.host}/big:1"], env=self.env,
                             stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.assertIn("fetching", p.stderr.readline())
        p.send_signal(signal.SIGTERM)
        p.communicate(timeout=20)
        self.assertNotEqual(p.returncode, 0)
        self.no_leftovers()


if __name__ == "__main__":
    unittest.main()
