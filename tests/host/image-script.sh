#!/bin/sh
# In the new image: the modules of the kernel that it will run on, from whichever suite of Debian has that kernel.
set -eu
release=@RELEASE@
. /etc/os-release
list=/etc/apt/sources.list.d/uvms-kernel.list
for suite in bookworm trixie; do
	[ "$suite" = "$VERSION_CODENAME" ] || sed "s/$VERSION_CODENAME/$suite/g" /etc/apt/sources.list >>$list
done
apt-get -qq update
cd /tmp
apt-get -qq download "linux-image-$release"
dpkg-deb -x linux-image-*.deb kernel
cp -a kernel/lib/modules /usr/lib/
depmod "$release"
rm -rf kernel linux-image-*.deb $list
# the clock of an emulated machine is slow, and nobody logs in
systemctl mask --quiet systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer || true
