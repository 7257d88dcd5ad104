# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What vagrant/run and vagrant/pair share, sourced: a guest is packed, booted, and judged by what it says on its console.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# vm_options [--full] KERNEL [BUILD_DIR]: the command line of both; needs QEMU, or ends 77.
vm_options() {
	size=ci
	[[ ! ${TWILL_FULL:-} ]] || size=full
	[[ ${1:-} != --full ]] || { size=full && shift; }
	name=${1:?usage: [--full] KERNEL [BUILD_DIR]}
	build=${2:-$(dirname "$here")/build/dev}
	work=$build/vm
	if ! type -P qemu-system-x86_64 >/dev/null; then
		echo "vm $name: missing: qemu-system-x86_64 (./dev deps vm installs it)"
		exit 77
	fi
}

# What all kernels' guests have in common is packed once, and again when something of it is newer.
vm_base() {
	(
		flock 9
		if [[ ! -e $work/base.cpio || $(find "$build/bin" "$here" "$here"/../tests/{support,netns,interop} \
			-newer "$work/base.cpio" -print -quit) ]]; then
			"$here/mkinitramfs" base "$build/bin" "$work/base.cpio"
		fi
	) 9>"$work/lock"
}

# vm_pack FILE: fetches the kernel into $kernel, makes FILE of what all guests have and this kernel's modules.
vm_pack() {
	mkdir -p "$work"
	kernel=$("$here/fetch-kernel" "$name")
	vm_base
	"$here/mkinitramfs" modules "$kernel" "$1.modules"
	cat "$work/base.cpio" "$1.modules" >"$1"
	rm "$1.modules"
}

# vm_boot FILE TESTS SECONDS [QEMU OPTIONS]: a guest with FILE that runs TESTS (names, or all); its console on the standard
# output. No root, no KVM: emulation (TCG) needs neither and is the same everywhere. What makes it three times as fast:
# norandmaps (code that comes to lie elsewhere is translated anew: a program with three libraries starts in 17 ms, else in
# 70), no `rep movsb` (erms) and no AVX, which are emulated byte by byte or in helpers, no zeroing of pages that are written
# anyway, no offset of the kernel's stack. One CPU: with two, kernels die of an int3 now and then, when one CPU runs what the
# other is patching (a ping that asks for time stamps is enough; QEMU's emulation, not KVM: multipath-tcp/mptcp_net-next
# issue 471).
vm_boot() {
	local append="console=ttyS0 panic=-1 quiet loglevel=3 net.ifnames=0 no_timer_check mitigations=off norandmaps init_on_alloc=0"
	append+=" randomize_kstack_offset=off TWILL_VM_ONLY=$2 TWILL_VM_SIZE=$size TWILL_VM_NAME=$name"
	timeout -k 5 "$3" qemu-system-x86_64 -accel tcg -cpu max,erms=off,avx=off,avx2=off -m 2G -smp 1 -nodefaults -nographic \
		-no-reboot -serial stdio -kernel "$kernel/vmlinuz" -initrd "$1" -append "$append" "${@:4}" </dev/null 2>&1 | sed -u 's,\r,,g'
}

# vm_judge LOG LABEL: prints what the guest reported. 0: passes, no failure, no skip, and nothing of the kernel's; 77: a
# test was skipped. That the verdict is missing is a failure.
vm_judge() {
	local log=$1 label=$2 verdict pass fail skip
	sed -n -E 's/.*TWILL-VM-(KERNEL|TEST|SIZE) /  /p' "$log"
	verdict=$(sed -n -E 's/.*TWILL-VM-VERDICT (pass=[0-9]+ fail=[0-9]+ skip=[0-9]+)$/\1/p' "$log" | tail -n 1)
	[[ $verdict ]] || { vm_fail "$log" "$label: no verdict after $SECONDS s" && return 1; }
	if grep -E 'WARNING:|BUG:|Oops|Kernel panic|rcu.*(stall|self-detected)|soft lockup|possible (circular|recursive)' "$log"; then
		vm_fail "$log" "$label: faults on the kernel's console" && return 1
	fi
	read -r pass fail skip <<<"${verdict//[a-z=]/}"
	echo "$label: $verdict, $SECONDS s"
	if ((fail != 0 || pass == 0)); then vm_fail "$log" "$label: failures in the guest" && return 1; fi
	((skip == 0)) || return 77
}

# vm_cpu LABEL: what all guests of this shell took.
vm_cpu() {
	times >"$work/times-$$"
	# The shell's own, then that of what it started: user and system, as 1m2.345s.
	awk -v label="$1" 'NR == 2 { split($1 " " $2, t, /[ms ]+/); printf "%s: %d s of CPU\n", label, t[1] * 60 + t[2] + t[3] * 60 + t[4] }' \
		"$work/times-$$"
	rm "$work/times-$$"
}

vm_fail() { # LOG TEXT
	echo "$2; the last lines of $1:"
	tail -n 60 "$1"
}
