#!/usr/bin/env python3
"""Services between VMs: who may call whom, what is carried, and what is left when a side or the broker dies."""
import os
import signal
import subprocess
import sys

import vmtest
from vmtest import clock, equal, main, pause, true, wait_for

BB = "busybox"
CAT = vmtest.BUILD / "tests/vm/uvms-test-vsock-cat"
MIB = 1024 if os.environ.get("UVMS_SOAK") == "1" else 24	# the guest's sha256sum is slow by emulation


def start(host, tag, *options):
    vm = host.name(tag)
    host.run("run", "-d", "--name", vm, "--memory=192M", *options, BB, "--", "sleep", "100000", check=0)
    host.run("cp", CAT, f"{vm}:/tmp/cat", check=0)
    return vm


def serve(host, vm, port, *program):
    host.run("exec", vm, "sh", "-c", f"/tmp/cat serve {port} {' '.join(program)} >/dev/null 2>&1 & sleep 0.2", check=0)


def call(host, vm, port, text=b"hello\n"):
    """Status and answer of one call, and how long it took."""
    t = clock()
    p = host.run("exec", "-i", vm, "/tmp/cat", "call", "2", str(port), input=text)
    return p.returncode, p.stdout, clock() - t


def answered(host, vm, port, what):
    status, answer, _ = call(host, vm, port)
    equal((status, answer), (0, b"hello\n"), what)


def refused(host, vm, port, what):
    """Either there is no connection, or it ends without a byte."""
    status, answer, took = call(host, vm, port)
    true(answer == b"" and took < 5, f"{what}: {status} {answer!r} after {took:.1f} s")


def named(host):
    """Both sides must agree; what comes out is what went in; who starts first does not matter."""
    tor = host.name("tor")
    work = start(host, "work", f"--connect=9050:{tor}:9050", f"--connect=9051:{tor}:9051", f"--connect=81:{tor}:80",
                 "--connect=9052:nobody:9052")
    refused(host, work, 9050, "a VM that does not run yet")
    evil = start(host, "evil", f"--connect=9050:{tor}:9050", f"--connect=80:{tor}:80")
    host.names.remove(tor)
    equal(start(host, "tor", f"--accept=9050:{work}", "--accept=80"), tor, "name")
    serve(host, tor, 9050, "cat")
    serve(host, tor, 9051, "cat")
    serve(host, tor, 80, "cat")
    answered(host, work, 9050, "what both allow")
    answered(host, work, 81, "by another number, for anybody")
    answered(host, evil, 80, "for anybody")
    refused(host, work, 9051, "what is not accepted")
    refused(host, evil, 9050, "what is accepted from another")
    refused(host, work, 9052, "nobody")
    refused(host, work, 9053, "what is not connected")
    refused(host, tor, 9050, "who connects nothing")
    log = host.out("logs", "--source=supervisor", tor)
    true(f"{evil} may not call its port 9050" in log, log)
    true(f"{tor}'s port 9051" in host.out("logs", "--source=supervisor", work), "both names")
    digests = host.out("exec", work, "sh", "-c",
                       f"head -c {MIB << 20} /dev/urandom > /tmp/r; sha256sum < /tmp/r; /tmp/cat call 2 9050 < /tmp/r | sha256sum")
    sent, back = digests.split("\n")[:2]
    equal(back, sent, "there and back")
    for vm in (work, evil, tor):
        host.run("stop", vm, check=0)
        equal(host.status(vm)["outcome"], "clean", "outcome")


def deaths(host):
    """What dies costs its connections, and nothing else; what comes again serves."""
    tor = host.name("tor")
    work = start(host, "work", f"--connect=9050:{tor}:9050")
    host.names.remove(tor)
    start(host, "tor", "--accept=9050")
    serve(host, tor, 9050, "cat")
    broker = lambda: [int(line.split()[0]) for line in host.processes() if "uvms-broker" in line and work in line]

    def ends(what, kill):
        p = host.popen("exec", "-i", work, "/tmp/cat", "call", "2", "9050", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        p.stdin.write(b"a\n")
        p.stdin.flush()
        equal(p.stdout.readline(), b"a\n", what)
        kill()
        p.wait(10)
        p.stdin.close()

    answered(host, work, 9050, "at first")
    ends("the broker is killed", lambda: os.kill(broker()[0], signal.SIGKILL))
    wait_for(broker, "there is no other broker")
    answered(host, work, 9050, "through another broker")
    for vm in (work, tor):
        host.run("refresh", vm, check=0)
        answered(host, work, 9050, "after a refresh")
    ends("the peer is killed", lambda: host.run("kill", "-q", tor, check=0))
    refused(host, work, 9050, "a VM that does not run any more")
    host.run("start", tor, check=0)
    host.run("cp", CAT, f"{tor}:/tmp/cat", check=0)
    serve(host, tor, 9050, "cat")
    answered(host, work, 9050, "when it is there again")
    ends("this side stops", lambda: host.run("stop", work, check=0))
    equal(host.status(work)["outcome"], "clean", "outcome")
    host.run("stop", tor, check=0)


CASES = {"named": named, "deaths": deaths}

if __name__ == "__main__":
    sys.exit(main(CASES))
