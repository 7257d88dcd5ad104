#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: tests/vm/bookworm_root.sh BUILD_DIR
# Does `./dev deps` name everything that the first command needs, and do vagrant's provisioning scripts do what they should? A
# clone of HEAD is provisioned in a minimal Debian 12 (mmdebstrap, plus git, ca-certificates and, for speed only, ccache), in private mount, process and host-name
# namespaces; the host gives kernel, network and a mirror only. The base tarball and downloaded packages are kept in ${XDG_CACHE_HOME:-~/.cache}/twill, compiler results where ccache
# keeps them. Exit 77: root or mmdebstrap or a mirror is missing.
set -euo pipefail

LABEL=bookworm-root
. "$(dirname "$0")/root.sh"
base=$cache/bookworm-base-2.tar # another number when what is in it changes

# The base is made anew every week: the point is today's Debian 12.
make_base() {
	local sources
	if [[ -e $base && $(find "$base" -mtime -7) ]]; then return; fi
	sources=$("$source/vagrant/debian-sources" bookworm) || missing "a Debian mirror"
	debian_root "$base" "$sources" --include=git,ca-certificates,ccache
	say "base made"
}

mount_root() { # root
	local device
	mount -t proc proc "$1/proc"
	mount -t tmpfs -o mode=755 tmpfs "$1/dev"
	mkdir "$1/dev/shm" "$1/dev/pts"
	ln -s /proc/self/fd "$1/dev/fd"
	for device in null zero full random urandom; do
		touch "$1/dev/$device"
		mount --bind "/dev/$device" "$1/dev/$device"
	done
	mkdir -p "$cache/bookworm-debs/partial"
	mount --bind "$cache/bookworm-debs" "$1/var/cache/apt/archives"
	mount_ccache "$1"
	cp -L /etc/resolv.conf /etc/hosts "$1/etc/"
	# A root that is thrown away needs no fsync and no manuals, and no service may start in it.
	printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/doc/*' 'path-exclude=/usr/share/man/*' \
		'path-exclude=/usr/share/locale/*' >"$1/etc/dpkg/dpkg.cfg.d/thrown-away"
	printf '#!/bin/sh\nexit 101\n' >"$1/usr/sbin/policy-rc.d"
	chmod +x "$1/usr/sbin/policy-rc.d"
}

# Runs inside the namespaces.
build_in() { # root
	hostname twill-bookworm
	make_base
	mount --bind "$1" "$1" # a lab wants / to be a mount
	tar -C "$1" --exclude='./dev/*' -xf "$base"
	mount_root "$1"
	git -c safe.directory='*' clone --quiet --no-hardlinks "$source" "$1/src"
	say "root ready, HEAD is $(git -c safe.directory='*' -C "$1/src" log -1 --format='%h %s')"
	mount -t sysfs sysfs "$1/sys"
	mount -t tmpfs -o mode=755 tmpfs "$1/run"
	in_root "$1" 'TWILL_SOURCE=/src TWILL_SUITES=none vagrant/provision/suites'
	say "dependencies, build, and the demo with both overlays: done"
	# kubeadm is not Debian's.
	in_root "$1" 'TWILL_SOURCE=/src TWILL_NODE=2 TWILL_KUBERNETES=none vagrant/provision/node prepare >/tmp/node.log 2>&1 ||
		{ tail -n 30 /tmp/node.log; exit 1; }'
	in_root "$1" '/usr/local/bin/twilld -version && jq -e .IPv6Network /etc/kube-flannel/net-conf.json && ls /usr/lib/cni/bridge &&
		grep -F "bin_dir = \"/usr/lib/cni\"" /etc/containerd/config.toml && grep -F 192.168.56.12 /etc/default/kubelet'
	in_root "$1" 'printf "%s\n" FLANNEL_NETWORK=10.244.0.0/16 FLANNEL_SUBNET=10.244.1.129/25 FLANNEL_IPV6_NETWORK=fd00:244::/56 \
		FLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64 FLANNEL_MTU=1450 FLANNEL_IPMASQ=true >/tmp/subnet.env
		vagrant/provision/cni-config /tmp/subnet.env /tmp/twill.conflist
		jq -e "[.plugins[0].ipam.ranges[][].subnet] == [\"10.244.1.128/25\", \"fd00:244:0:1::/64\"]" /tmp/twill.conflist'
	say "a cluster's node prepared"
}

in_root() { # root command
	chroot "$1" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		bash -euc "cd /src && $2"
}

if [[ ${1:-} == --inside ]]; then
	build_in "$2"
	exit 0
fi

build=${1:?usage: tests/vm/bookworm_root.sh BUILD_DIR}
run_inside "$build" --mount --pid --uts --ipc
