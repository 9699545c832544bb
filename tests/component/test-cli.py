#!/usr/bin/env python3
"""What `uvms` says to what it does not know: a suggestion, the next command, an exit code."""
import os
import shutil
import subprocess
import tempfile
import unittest

UVMS = os.path.abspath(os.environ.get("UVMS", "build/uvms"))


class Cli(unittest.TestCase):
    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="uvms-cli-")
        self.addCleanup(shutil.rmtree, self.base)
        os.chmod(self.base, 0o755)
        self.env = dict(os.environ, UVMS_STATE_DIR=self.base + "/state", UVMS_RUNTIME_DIR=self.base + "/run")

    def says(self, status, words, *args):
        p = subprocess.run([UVMS, *args], env=self.env, capture_output=True, text=True, timeout=30,
                           stdin=subprocess.DEVNULL)
        self.assertEqual(p.returncode, status, p.stderr)
        self.assertIn(words, p.stderr)
        self.assertEqual(p.stdout, "")
        return p.stderr

    def known(self, name):
        os.makedirs(f"{self.base}/state/vms/{name}", mode=0o711)
        with open(f"{self.base}/state/vms/{name}/spec.json", "w") as f:
            f.write('{"name":"%s","image":"x","memory_bytes":536870912,"cpus":1,"keep":true}' % name)

    def test_verbs(self):
        self.says(2, "did you mean status?", "statsu")
        self.says(2, "did you mean image pull?", "image", "pul", "x")
        self.says(2, "did you mean volume ls?", "volume", "l")
        self.says(2, "uvms help lists them", "nonsense")

    def test_options(self):
        self.says(2, "did you mean --all?", "stop", "--al")
        self.says(125, "did you mean --publish?", "run", "--publsh", "1:1", "x", "--", "true")
        self.says(2, "see uvms help ls", "ls", "--nonsense")
        self.says(2, "needs a value", "wait", "x", "--timeout")
        self.says(2, "takes no value", "ls", "--all=1")

    def test_vm_names(self):
        self.known("webserver")
        for verb in ("status", "inspect", "stop", "kill", "start", "logs", "wait", "rm", "console", "restart"):
            self.says(3, "there is no VM webserver1; did you mean webserver?", verb, "webserver1")
        self.says(125, "did you mean webserver?", "exec", "webservr", "true")
        self.says(3, "did you mean webserver?", "forward", "webservr", "18099", "80")
        self.says(3, "did you mean webserver?", "refresh", "webservr")
        self.says(3, "did you mean webserver?", "cp", "webservr:/x", self.base + "/y")
        text = self.says(3, "there is no VM other", "status", "other")
        self.assertNotIn("did you mean", text)
        self.says(125, "uvms start webserver", "exec", "webserver", "true")
        self.says(3, "webserver does not run", "console", "webserver")

    def test_control_bytes_never_reach_the_terminal(self):
        text = self.says(2, "cannot be a VM's name", "status", "a\x1b[31mb")
        self.assertNotIn("\x1b", text)


if __name__ == "__main__":
    unittest.main()
