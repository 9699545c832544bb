#!/bin/sh
# In the new image: the modules of the kernel that it will run on, from whichever suite of Debian has that kernel; without
# one, the suite's own kernel, to be run on.
set -eu
release=@RELEASE@
. /etc/os-release
list=/etc/apt/sources.list.d/uvms-kernel.list
for suite in bookworm trixie; do
	[ "$suite" = "$VERSION_CODENAME" ] || sed "s/$VERSION_CODENAME/$suite/g" /etc/apt/sources.list >>$list
done
apt-get -qq update
cd /tmp
if [ -z "$release" ]; then
	release=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: linux-image-//p' | head -n 1)
	own=1
fi
apt-get -qq download "linux-image-$release"
dpkg-deb -x linux-image-*.deb kernel
cp -a kernel/lib/modules /usr/lib/ 2>/dev/null || cp -a kernel/usr/lib/modules /usr/lib/
[ -z "${own:-}" ] || cp -a kernel/boot/vmlinuz-* /boot/
depmod "$release"
rm -rf kernel linux-image-*.deb $list
# the clock of an emulated machine is slow, and nobody logs in
systemctl mask --quiet systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer || true
