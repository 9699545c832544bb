#!/usr/bin/env python3
"""What becomes of a VM when one of its processes is killed or stopped: the table of docs/lifecycle.md, and its test.

usage: killtable.py PROCESS          tries every cell of the process with real guests
       killtable.py --print          the table as Markdown
       killtable.py --check PAGE     is it the one in the page?
       killtable.py --write PAGE
"""
import os
import pathlib
import signal
import subprocess
import sys
import time

PHASES = ("start", "steady", "exec", "stop")
# The outcomes. "lives": ready again or still, and then a clean stop; else the outcome that `uvms status` shows.
LIVES, CRASHED, CLEAN, FORCED = "lives on", "crashed", "clean", "forced"

# process, signal: phase -> (outcome, seconds at most, remark). Under emulation on two busy cores, so the bounds
# are several times what is usual.
CELLS = {
    ("supervisor", "SIGKILL"): {p: (CRASHED, 2, "everything ends with it") for p in PHASES},
    ("supervisor", "SIGSTOP"): {
        "start": (LIVES, 4, "the waiting `uvms` sends SIGCONT after 1 s"),
        "steady": (LIVES, 1, "the guest goes on; the next `uvms` sends SIGCONT"),
        "exec": (LIVES, 1, "the session goes on without it"),
        "stop": (CLEAN, 8, "the waiting `uvms stop` sends SIGCONT after 1 s"),
    },
    ("vmm", "SIGKILL"): {p: (CRASHED, 2, "") for p in PHASES},
    ("vmm", "SIGSTOP"): {
        **{p: (LIVES, 3, "SIGCONT after 1 s") for p in ("start", "steady", "exec")},
        "stop": (FORCED, 15, "the ladder: killed at its end"),
    },
    ("vsockd", "SIGKILL"): {
        **{p: (LIVES, 1, "replaced at once") for p in ("start", "steady", "exec")},
        "stop": (CLEAN, 8, "replaced at once; the ladder goes on"),
    },
    ("vsockd", "SIGSTOP"): {
        **{p: (LIVES, 3, "SIGCONT after 1 s") for p in ("start", "steady", "exec")},
        "stop": (CLEAN, 8, "SIGCONT after 1 s; the ladder goes on"),
    },
    ("namespace", "SIGKILL"): {p: (CRASHED, 2, "the kernel ends all in it") for p in PHASES},
    ("namespace", "SIGSTOP"): {
        **{p: (LIVES, 3, "SIGCONT after 1 s") for p in ("start", "steady", "exec")},
        "stop": (CLEAN, 8, "SIGCONT after 1 s; the ladder goes on"),
    },
    ("passt", "SIGKILL"): {
        "start": (CRASHED, 2, "no start without the network that was asked for"),
        "steady": (LIVES, 1, "another takes its socket; its connections are lost"),
        "exec": (LIVES, 1, "another takes its socket; its connections are lost"),
        "stop": (CLEAN, 8, "the ladder goes on"),
    },
    ("passt", "SIGSTOP"): {
        **{p: (LIVES, 3, "SIGCONT after 1 s") for p in ("start", "steady", "exec")},
        "stop": (CLEAN, 8, "SIGCONT after 1 s; the ladder goes on"),
    },
    ("client", "SIGKILL"): {
        "start": (LIVES, 10, "a detached start goes on"),
        "steady": (LIVES, 1, "the VM knows nothing of it"),
        "exec": (LIVES, 3, "the command gets SIGHUP"),
        "stop": (CLEAN, 8, "the stop goes on"),
    },
    ("client", "SIGSTOP"): {
        "start": (LIVES, 10, "a detached start goes on"),
        "steady": (LIVES, 1, "the VM knows nothing of it"),
        "exec": (LIVES, 1, "the command waits once 64 KiB are not taken"),
        "stop": (CLEAN, 8, "the stop goes on"),
    },
}
NAMES = {"supervisor": "`uvms-supervisor`", "vmm": "QEMU", "vsockd": "`uvms-vsockd`",
         "namespace": "the namespace's init", "passt": "passt", "client": "`uvms` (run -d, exec, stop)"}
BEGIN, END = "<!-- kill table: tests/vm/killtable.py --write -->", "<!-- end of the kill table -->"


def table():
    lines = ["| process | signal | " + " | ".join(PHASES) + " |", "|" + "---|" * (2 + len(PHASES))]
    for (process, name), cells in CELLS.items():
        row = []
        for phase in PHASES:
            outcome, seconds, remark = cells[phase]
            row.append(f"**{outcome}** ≤ {seconds} s" + (f": {remark}" if remark else ""))
        lines.append(f"| {NAMES[process]} | {name} | " + " | ".join(row) + " |")
    return BEGIN + "\n" + "\n".join(lines) + "\n" + END


def page_with(text):
    before, rest = text.split(BEGIN)
    return before + table() + rest.split(END, 1)[1]


# ---- the test ----

def pid_of(vmtest, host, vm, process, client):
    if process == "client":
        return client.pid
    if process in ("namespace", "passt"):
        word = {"namespace": "uvms-init", "passt": r"/passt\x00--"}[process]
        pids = [int(line.split()[0]) for line in host.processes() if word in line]
        vmtest.true(pids, f"no {process}")
        return pids[0]
    key = {"supervisor": "supervisor_pid", "vmm": "vmm_pid", "vsockd": "vsockd_pid"}[process]
    return host.status(vm)[key]


def wait_state(vmtest, host, vm, states, seconds):
    end = vmtest.clock() + seconds
    while True:
        p = host.run("status", "--json", vm)
        s = vmtest.json.loads(p.stdout) if p.returncode == 0 else {}
        if s.get("state") in states:
            return s
        if vmtest.clock() > end:
            raise vmtest.Failure(f"{vm}: {s.get('state')} for {seconds} s, want {states}")
        time.sleep(0.02)


# stubborn: its stop takes the whole time-out, so that there is a phase of it to hit
STUBBORN = ("sh", "-c", "trap '' TERM; while :; do sleep 1000; done")


class Cell:
    def __init__(self, vmtest, host, process, name, phase):
        self.t, self.host = vmtest, host
        self.process, self.signal, self.phase = process, getattr(signal, name), phase
        self.outcome, self.seconds, _ = CELLS[process, name][phase]
        self.vm = host.name(f"{process}-{name.lower()}-{phase}")
        self.client = None

    def prepare(self):
        """Into the phase; the client is what a person waits for then."""
        options = ["--net=user"] if self.process == "passt" else []
        command = STUBBORN if self.phase == "stop" else ("sleep", "1000")
        start = ["run", "-d", "--name", self.vm, *options, f"--stop-timeout={4 * self.t.SLOW:g}s", "busybox", "--", *command]
        quiet = dict(stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if self.phase == "start":
            self.client = self.host.popen(*start, **quiet)
            wait_state(self.t, self.host, self.vm, ("booting",), 20)
            return
        self.host.run(*start, check=0, timeout=120)
        if self.phase == "exec":
            self.client = self.host.popen("exec", self.vm, "sh", "-c", "while :; do echo x; sleep .1; done",
                                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            self.client.stdout.read(4)
        elif self.phase == "stop":
            self.t.pause(1)	# until its trap is set
            self.client = self.host.popen("stop", self.vm, **quiet)
            wait_state(self.t, self.host, self.vm, ("stopping (agent)",), 10)
        else:
            self.client = self.host.popen("logs", "-f", self.vm, **quiet)
            time.sleep(0.2)

    def strike(self):
        os.kill(pid_of(self.t, self.host, self.vm, self.process, self.client), self.signal)
        return self.t.clock()

    def lives(self, struck):
        """Ready within the bound (for a start: beyond the time that a boot takes), and a command runs in it."""
        boot = 30 if self.phase == "start" else 0
        wait_state(self.t, self.host, self.vm, ("running",), self.seconds + boot)
        self.t.equal(self.host.out("exec", self.vm, "echo", "ok", timeout=30), "ok\n", f"{self.vm}: exec")
        took = self.t.clock() - struck
        # the first exec after a stopped supervisor has waited for the look that wakes it
        self.t.true(took < self.seconds + boot + 5, f"{self.vm}: {took:.1f} s")
        out = self.host.out("stop", "--timeout=10s", self.vm)
        self.t.true("clean" in out, f"{self.vm}: {out}")

    def ends(self, struck):
        self.host.run("wait", f"--timeout={self.seconds}s", self.vm, check=0)
        s = wait_state(self.t, self.host, self.vm, ("stopped",), 2)
        took = self.t.clock() - struck
        self.t.equal(s["outcome"], self.outcome, f"{self.vm} ({s['cause']})")
        self.t.true(took <= self.seconds + 1, f"{self.vm}: {took:.1f} s")

    def finish(self):
        """Nothing is left, and the name works again."""
        if self.client:
            self.client.kill()
            self.client.wait()
        self.host.audit()
        start = self.t.clock()
        p = self.host.run("start", self.vm, timeout=60)
        self.t.equal(p.returncode, 0, f"{self.vm}: the next start: {p.stderr.decode()}")
        # a boot of this guest by emulation takes 2 s, more when the host is busy
        self.t.true(self.t.clock() - start < 25, f"{self.vm}: the next start took too long")
        self.host.run("kill", "-q", self.vm, check=0)
        self.host.run("rm", self.vm, check=0)

    def run(self):
        self.prepare()
        struck = self.strike()
        if self.outcome == LIVES:
            self.lives(struck)
        else:
            self.ends(struck)
        self.finish()


def cells_of(vmtest, process):
    def case(host):
        if process == "passt":
            vmtest.need("passt")
        for (p, name), _ in CELLS.items():
            for phase in PHASES if p == process else ():
                start = time.monotonic()
                Cell(vmtest, host, process, name, phase).run()
                print(f"{process} {name} {phase}: {time.monotonic() - start:.1f} s", flush=True)
    return case


def main():
    if sys.argv[1] == "--print":
        print(table())
    elif sys.argv[1] in ("--check", "--write"):
        page = pathlib.Path(sys.argv[2])
        text = page.read_text()
        if sys.argv[1] == "--write":
            page.write_text(page_with(text))
        elif page_with(text) != text:
            print(f"{page}: the kill table is not that of the tests: tests/vm/killtable.py --write {page}")
            return 1
    else:
        import vmtest
        return vmtest.main({p: cells_of(vmtest, p) for p in NAMES})
    return 0


if __name__ == "__main__":
    sys.exit(main())
