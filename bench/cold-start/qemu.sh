#!/bin/sh
# The hand-written command that `uvms run IMAGE -- true` is measured against: the same kernel, modules,
# accelerator, devices and disk, and an init that loads the modules and powers off.
# Environment: KERNEL INITRD DISK ACCEL CPU, and APPEND, the kernel command line of both; descriptor 6 is
# uvms-vsockd's vhost-user socket.
exec qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
	-machine q35,hpet=off,smbus=off,usb=off,vmport=off,memory-backend=mem \
	-accel "$ACCEL" -cpu "$CPU" -smp 1 -m 512M \
	-object memory-backend-memfd,id=mem,size=512M,share=on,seal=on \
	-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny \
	-serial file:/dev/null \
	-device pcie-root-port,id=port-vsock,chassis=1,addr=0x4 \
	-chardev socket,id=vsock,fd=6 -device vhost-user-vsock-pci,chardev=vsock,bus=port-vsock \
	-object rng-builtin,id=rng -device virtio-rng-pci,rng=rng \
	-device virtio-balloon-pci,free-page-reporting=on -device pvpanic \
	-blockdev driver=raw,node-name=disk0,read-only=on,file.driver=file,file.filename="$DISK" \
	-device virtio-blk-pci,drive=disk0,serial=layer0 \
	-kernel "$KERNEL" -initrd "$INITRD" -append "$APPEND"
