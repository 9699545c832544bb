#!/bin/bash
# Starts Cloud Hypervisor as one does by hand: a socket that is waited for, and a curl for each call.
# $VMM, $KERNEL, $INITRD, $DISK; in the working directory: create (the body of vm.create). Prints when vm.boot was answered.
set -e
exec 7<"$KERNEL" 8<"$INITRD" 10<"$DISK"
"$VMM" --api-socket "$PWD/api" --event-monitor path="$PWD/events" --seccomp true --no-shutdown </dev/null >console 2>log 3>&- &
api() { curl -sS --fail --unix-socket api "$@"; }
until [[ -S api ]]; do sleep 0.002; done
until api http://localhost/api/v1/vmm.ping >/dev/null 2>&1; do sleep 0.002; done
api -X PUT -H 'Content-Type: application/json' --data-binary @create http://localhost/api/v1/vm.create
api -X PUT http://localhost/api/v1/vm.boot
echo "${EPOCHREALTIME/./}"
api -X PUT http://localhost/api/v1/vmm.shutdown || true
wait
