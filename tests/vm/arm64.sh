#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: tests/vm/arm64.sh BUILD_DIR
# Does twill compile for arm64? HEAD is built with Debian's cross compiler and arm64's libraries, programs with arm64's headers,
# in a Debian 12 root made by mmdebstrap (private mount and process namespaces). Nothing of it is run. With TWILL_FULL=1 only:
# half a gigabyte of packages. The root is kept in ${XDG_CACHE_HOME:-~/.cache}/twill.
# Exit 77: not asked for; root, mmdebstrap or a mirror with arm64 is missing.
set -euo pipefail

LABEL=arm64
. "$(dirname "$0")/root.sh"
base=$cache/arm64-base-1.tar # another number when what is in it changes

# What ./dev deps installs for a build: libraries for arm64, tools for the machine that builds.
packages() {
	local name DEPS_demo
	eval "$(sed -n '/^DEPS_demo=(/,/)/p' "$source/dev")"
	for name in "${DEPS_demo[@]}"; do
		case $name in
		g++) echo g++-aarch64-linux-gnu ;;
		libcli11-dev | nlohmann-json3-dev | cmake | ninja-build | pkg-config | clang | llvm | bpftool | protobuf-compiler) echo "$name" ;;
		*-dev) echo "$name:arm64" ;;
		esac
	done
	echo ccache
	# Not of clang's, or it takes the headers of the machine that builds.
	echo linux-libc-dev
}

make_base() {
	local sources
	[[ ! -e $base ]] || return 0
	sources=$("$source/vagrant/debian-sources" bookworm) || missing "a Debian mirror"
	debian_root "$base" "${sources//arch=amd64/arch=amd64,arm64}" --architectures=amd64,arm64 --include="$(packages | paste -sd,)"
	say "root with the cross compiler made"
}

# Runs inside the namespaces.
build_in() { # root
	make_base
	tar -C "$1" --exclude='./dev/*' -xf "$base"
	mount -t proc proc "$1/proc"
	mount --rbind /dev "$1/dev"
	mkdir -p "$1/src"
	mount_ccache "$1"
	git -c safe.directory='*' -C "$source" archive HEAD | tar -C "$1/src" -x
	chroot "$1" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
		PKG_CONFIG_LIBDIR=/usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig bash -euc '
			cmake -G Ninja -S /src -B /build -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
				-DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
				-DCMAKE_BUILD_TYPE=RelWithDebInfo "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1" -DTWILL_TESTS=OFF >/tmp/log 2>&1 || { tail -n 40 /tmp/log; exit 1; }
			ninja -j2 -C /build twilld twillctl tw-traffic >/tmp/log 2>&1 || { tail -n 60 /tmp/log; exit 1; }'
	for file in twilld twillctl tw-traffic; do
		# e_machine of ELF: 183 is AArch64.
		[[ $(od -An -j18 -N2 -tu2 "$1/build/bin/$file") -eq 183 ]] || { echo "arm64: $file is not AArch64" && exit 1; }
	done
	say "twilld, twillctl, tw-traffic and the BPF objects compile and link"
}

if [[ ${1:-} == --inside ]]; then
	build_in "$2"
	exit 0
fi

build=${1:?usage: tests/vm/arm64.sh BUILD_DIR}
[[ ${TWILL_FULL:-} ]] || { echo "arm64: only with --full: downloads half a gigabyte" && exit 77; }
run_inside "$build" --mount --pid
