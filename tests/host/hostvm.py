"""The host VM: a Debian with systemd and KVM of its own, itself a uvms VM; its image, its life, what is put into it.

Its image is kept in the store of the VM tests, under a name with the digest of what it is made from. Its runtime
directory, and so its name, has the number of this process: what a killed runner left is found by that.
"""
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent.parent
sys.path.insert(0, str(SOURCE / "tests/vm"))
from storepart import IMAGES, store_part  # noqa: E402
PREFIX = "/tmp/uvms-host-"
NEEDS = ("mmdebstrap", "mkfs.erofs", "qemu-system-x86_64", "meson", "tar")
MEMORY_MIB, ROOT_MIB = 6144, 3584
PACKAGES = ("systemd,systemd-sysv,udev,dbus,kmod,procps,iproute2,python3,busybox-static,qemu-system-x86,passt,"
            "e2fsprogs,erofs-utils,skopeo,umoci,strace,tar,libjson-c5,libseccomp2")
MORE = {"trixie": ",virtiofsd", "bookworm": ""}	# where QEMU brings its own
PROGRAMS = ("uvms", "uvms-supervisor", "uvms-init", "uvms-vsockd", "uvms-tapd", "uvms-broker", "uvms-guest", "uvms-vmm-null")
TEST_PROGRAMS = ("tests/vm/uvms-test-guest-reader", "tests/vm/uvms-test-forward-peer", "tests/vm/uvms-test-step-log",
                 "tests/vm/uvms-test-vsock-cat",
                 "bench/cold-start/bench-cold-start-init")
BUILD, TREE = "/opt/uvms/build", "/opt/uvms"	# in the host VM


class Skip(Exception):
    """It cannot be had here."""


class Failure(Exception):
    pass


def cloud_hypervisor():
    """The binary that is copied in; None: there is none."""
    path = os.environ.get("UVMS_CLOUD_HYPERVISOR") or shutil.which("cloud-hypervisor")
    return path if path and os.access(path, os.X_OK) else None


def nested_kvm():
    """Whether KVM here gives svm to guests; else the host VM is emulated."""
    try:
        nested = pathlib.Path("/sys/module/kvm_amd/parameters/nested").read_text().strip()
    except OSError:
        return False
    return nested in ("1", "Y") and os.access("/dev/kvm", os.W_OK)


def memory_available_mib():
    for line in open("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) >> 10
    return 0


def is_alive(pid):
    return pathlib.Path(f"/proc/{pid}").exists()


class HostVm:
    def __init__(self, build, suite="trixie", runtime=None, own_kernel=False):
        self.build, self.suite, self.foreign = pathlib.Path(build).resolve(), suite, bool(runtime)
        self.packages = PACKAGES + MORE[suite]
        self.own_kernel = own_kernel	# of the suite, instead of the one that the VM tests have
        self.state = pathlib.Path(os.environ.get("UVMS_VM_TESTS", self.build / "vm-tests")) / "state"
        self.runtime = pathlib.Path(runtime or f"{PREFIX}{os.getpid()}")
        self.name = self.runtime.name
        self.env = dict(os.environ, UVMS_STATE_DIR=str(self.state), UVMS_RUNTIME_DIR=str(self.runtime))

    # ---- uvms out here ----

    def argv(self, *args):
        return [str(self.build / "uvms"), *args]

    def uvms(self, *args, timeout=900, **kw):
        p = subprocess.run(self.argv(*args), env=self.env, timeout=timeout, stdin=subprocess.DEVNULL, text=True,
                           capture_output=True, **kw)
        if p.returncode:
            raise Failure(f"uvms {' '.join(args)}: status {p.returncode}\n{p.stdout[-2000:]}{p.stderr[-4000:]}")
        return p.stdout

    # ---- the image ----

    def check_host(self):
        for program in NEEDS:
            if not shutil.which(program):
                raise Skip(f"{program} is not installed")
        if not self.foreign and memory_available_mib() < MEMORY_MIB:
            raise Skip(f"{MEMORY_MIB} MiB of memory are not free")

    def prepare_store(self):
        """Kernel and images of the VM tests, as `meson test` makes them."""
        env = dict(self.env, UVMS_BUILD=str(self.build), PYTHONPATH=str(SOURCE / "tests/vm"))
        p = subprocess.run(["/usr/bin/python3", SOURCE / "tests/vm/prepare.py"], env=env, capture_output=True, text=True)
        if p.returncode == 77:
            raise Skip(p.stdout.strip().removeprefix("skipped: "))
        if p.returncode:
            raise Failure(p.stderr)

    def kernel(self):
        return next(k for k in json.loads(self.uvms("kernel", "ls", "--json")) if k["default"])

    def image(self, say):
        """The name of the image, which is built when there is none of that digest."""
        release = "" if self.own_kernel else self.kernel()["release"]
        script = (HERE / "image-script.sh").read_text().replace("@RELEASE@", release)
        digest = hashlib.sha256(json.dumps([self.packages, script, self.suite]).encode()).hexdigest()[:12]
        prefix = f"uvms-host-{self.suite}-" + ("own-" if self.own_kernel else "")
        name, known = prefix + digest, self.uvms("image", "ls", "-q").split()
        if name in known:
            return name
        say(f"building the image {name}")
        with tempfile.NamedTemporaryFile("w", prefix="uvms-host-script-") as f:
            f.write(script)
            f.flush()
            self.uvms("image", "build", name, "--from-debian", self.suite, "--include", self.packages, "--script", f.name)
        for old in known:
            if old.startswith(prefix) and "-" not in old.removeprefix(prefix):
                subprocess.run(self.argv("image", "rm", old), env=self.env, stdin=subprocess.DEVNULL, capture_output=True)
        return name

    def run(self, image, *options):
        """An own kernel is in the store for this moment only: the newest one added is that of the VM tests."""
        if self.own_kernel:
            self.uvms("kernel", "add", "--from-image", image, "--name", image)
            options = (*options, f"--kernel={image}")
        try:
            self.uvms("run", "-d", "-q", "--name", self.name, *options, image)
        finally:
            if self.own_kernel:
                self.uvms("kernel", "rm", image)

    # ---- its life ----

    def sweep(self):
        """What a runner that was killed has left."""
        for path in pathlib.Path("/tmp").glob("uvms-host-[0-9]*"):
            pid = path.name.rsplit("-", 1)[1]
            if pid.isdigit() and not is_alive(int(pid)) and path.owner() == pathlib.Path("/proc/self").owner():
                HostVm(self.build, self.suite, path).stop()
                shutil.rmtree(path, ignore_errors=True)

    def start(self, say):
        image = self.image(say)
        self.runtime.mkdir(mode=0o711, exist_ok=True)
        # With a second CPU, an emulated host that runs guests on both hangs or panics after some minutes.
        accel, model, cpus = ("kvm", "host", "2") if nested_kvm() else ("tcg", "EPYC,+svm,+npt", "1")
        say(f"starting the host VM: {self.suite}, {cpus} CPU {'by KVM' if accel == 'kvm' else 'by emulation'}, "
            f"{MEMORY_MIB} MiB")
        self.run(image, "--backend=qemu", f"--accel={accel}", f"--cpu-model={model}", f"--cpus={cpus}",
                 f"--memory={MEMORY_MIB}M", f"--root-size={ROOT_MIB}M", "--start-timeout=10min", "--stop-timeout=20s")
        self.inside("modprobe kvm_amd nested=0 && modprobe tun && udevadm settle && test -c /dev/kvm")
        if accel == "tcg":
            self.keep_awake()

    def keep_awake(self):
        """An emulated CPU that halts may miss the interrupt that should wake it, once it has run guests of its own, and
        the other then waits for it for ever. So none halts: each has something to do that gives way to everything."""
        self.inside("for cpu in $(seq 0 $(($(nproc) - 1))); do systemd-run --quiet -p CPUSchedulingPolicy=idle "
                    "-p CPUAffinity=$cpu sh -c 'while :; do :; done'; done")

    def answers(self, seconds=60):
        p = self.exec("true", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return p.wait(timeout=seconds) == 0
        except subprocess.TimeoutExpired:
            p.kill()
            p.wait()
            return False

    def stop(self):
        """Nothing of it is left, whatever state it was in."""
        subprocess.run(self.argv("kill", "-q", self.name), env=self.env, stdin=subprocess.DEVNULL, capture_output=True)
        subprocess.run(self.argv("rm", "-f", self.name), env=self.env, stdin=subprocess.DEVNULL, capture_output=True)
        if not self.foreign:
            shutil.rmtree(self.runtime, ignore_errors=True)

    def last_words(self):
        p = subprocess.run(self.argv("logs", self.name), env=self.env, stdin=subprocess.DEVNULL, capture_output=True)
        lines = p.stdout.decode(errors="replace").splitlines()
        return [line for line in lines if "Unhandled WRMSR" not in line][-40:]

    # ---- in it ----

    def exec(self, *argv, env={}, **kw):
        options = [f"--env={k}={v}" for k, v in env.items()]
        return subprocess.Popen(self.argv("exec", *options, self.name, "--", *argv), env=self.env, **kw)

    def inside(self, script, timeout=300):
        p = self.exec("sh", "-ec", script, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                      text=True)
        out = p.communicate(timeout=timeout)[0]
        if p.returncode:
            raise Failure(f"in the host VM: {script}: status {p.returncode}\n{out[-4000:]}")
        return out

    def unpack(self, directory, fill):
        """FILL(tarfile) writes what is unpacked in DIRECTORY."""
        self.inside(f"mkdir -p {directory}")
        p = self.exec("tar", "--keep-directory-symlink", "-C", directory, "-xf", "-", stdin=subprocess.PIPE)
        with p.stdin, tarfile.open(fileobj=p.stdin, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            fill(tar)
        if p.wait():
            raise Failure(f"unpacking in {directory} failed")

    def fill_store(self, tar, images):
        """Not its verdicts on files, which are others there."""
        for name, content in store_part(self.state / "store", self.kernel()["name"], images).items():
            if name.startswith("verified/"):
                continue
            if isinstance(content, bytes):
                info = tarfile.TarInfo(f"store/{name}")
                info.size, info.mode = len(content), 0o644
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.add(content, f"store/{name}")

    def fill_tree(self, tar):
        for name in (*PROGRAMS, *TEST_PROGRAMS):
            tar.add(self.build / name, f"build/{name}")
        for name in ("tests/vm", "tests/fakes", "tests/host", "bench/cold-start"):
            tar.add(SOURCE / name, name)

    def install(self, images=IMAGES):
        """uvms as `meson install` puts it, programs and tests below /opt/uvms, the store, Cloud Hypervisor."""
        with tempfile.TemporaryDirectory(prefix="uvms-host-dest-") as d:
            subprocess.run(["meson", "install", "-C", self.build, "--no-rebuild", "--quiet", "--destdir", d], check=True,
                           stdout=subprocess.DEVNULL)
            self.unpack("/", lambda tar: [tar.add(p, p.name) for p in sorted(pathlib.Path(d).iterdir())])
        self.unpack(TREE, self.fill_tree)
        state = f"{BUILD}/vm-tests/state"
        self.unpack(state, lambda tar: self.fill_store(tar, images))
        # one store for both: for the cases, and for the units
        self.inside(f"chown -R 0:0 {TREE} && chmod 711 {state} && mkdir -p -m 711 /var/lib/uvms && "
                    f"rm -rf /var/lib/uvms/store && cp -al {state}/store /var/lib/uvms/ && systemctl daemon-reload && "
                    "uvms kernel ls -q && uvms image ls -q")
        ch = cloud_hypervisor()
        if ch:
            self.uvms("cp", ch, f"{self.name}:/usr/local/bin/cloud-hypervisor")
            self.inside("chmod 755 /usr/local/bin/cloud-hypervisor && cloud-hypervisor --version")
        # the first start hashes the layers, which takes longer here than a VMM may take to answer
        self.inside(f"export UVMS_STATE_DIR={state} UVMS_RUNTIME_DIR=/run/uvms-warm; "
                    f"for image in {' '.join(images)}; do uvms run -q --backend=qemu --accel=kvm $image -- true || "
                    "uvms run -q --backend=qemu --accel=kvm $image -- true; done; rm -rf /run/uvms-warm")
        return ch
