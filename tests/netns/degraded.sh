#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: degraded.sh [btf|jit|conntrack|clsact]...
# twilld on a kernel that lacks something: it starts, says what and with which effect, and pods talk. Without arguments what
# can be tried here: everything in a guest of the VM runner, where nobody else needs the kernel; elsewhere an empty mount over
# /sys/kernel/btf, which only twilld's own mount namespace sees.
if [[ $# != 1 ]]; then
	failed=0
	if [[ $# == 0 ]]; then
		set -- btf
		if [[ ${TWILL_VM:-} ]]; then set -- btf jit conntrack clsact; fi
	fi
	for one; do
		echo "--- without $one"
		"$0" "$one" && code=0 || code=$?
		if [[ $code == 77 && $# == 1 ]]; then exit 77; fi
		[[ $code == 0 || $code == 77 ]] || failed=1
	done
	exit "$failed"
fi
. "$(dirname "$0")/lib.sh"
without=$1
[[ $without == btf || ${TWILL_VM:-} ]] || skip "$without: changes the kernel for everybody, runs in a guest of the VM runner only"

# Everything that is loaded and uses the module goes with it, and nothing loads it again.
unload() {
	local module
	mkdir -p /etc/modprobe.d
	for module; do
		echo "install $module /bin/false" >>/etc/modprobe.d/twill-degraded.conf
		remove "$module"
	done
}
remove() {
	local user users
	users=$(awk -v name="$1" '$1 == name { print $4 }' /proc/modules)
	for user in ${users//,/ }; do
		if [[ $user != - ]]; then remove "$user"; fi
	done
	if grep "^$1 " /proc/modules >/dev/null; then modprobe -r "$1"; fi
}
load_again() {
	rm -f /etc/modprobe.d/twill-degraded.conf
	grep -v '^#' /twill/guest/modules | while read -r module; do modprobe -q "$module" || :; done
}
restore() {
	case $without in
	jit) sysctl -qw net.core.bpf_jit_enable=1 ;;
	conntrack | clsact) load_again ;;
	esac
}

test_lab
trap 'lab_down; restore' EXIT
flags=()
case $without in
btf)
	# A twilld of its own, in a mount namespace in which the kernel has no types.
	mkdir "$LAB_DIR/.lab/bin"
	for program in twillctl tw-traffic; do ln -s "$(realpath "$TWILL_BIN/$program")" "$LAB_DIR/.lab/bin/"; done
	cat >"$LAB_DIR/.lab/bin/twilld" <<-END
		#!/bin/bash
		exec unshare -m --propagation private bash -c 'mount -t tmpfs none /sys/kernel/btf && exec "\$0" "\$@"' $(realpath "$TWILL_BIN/twilld") "\$@"
	END
	chmod +x "$LAB_DIR/.lab/bin/twilld"
	TWILL_BIN=$LAB_DIR/.lab/bin
	;;
jit) sysctl -qw net.core.bpf_jit_enable=0 || skip "jit: this kernel has no interpreter" ;;
conntrack)
	unload nf_conntrack nf_conntrack_netlink
	_node_kube_proxy() { :; } # its rule is one of conntrack's
	;;
clsact)
	unload sch_ingress cls_bpf
	flags=(-feature tcx=off)
	;;
esac

PODS=("node-a pod-a1" "node-a pod-a2" "node-c pod-c1")
for node in node-a:1 node-c:2; do node_add "${node%:*}" --segment "${node#*:}"; done
ends_with() { # TEXT [twilld flags]: twilld ends, and its last lines have the text
	local text=$1
	agent_start node-a "${@:2}"
	wait_until "$(scaled 10)" not agent_alive node-a || { echo "twilld runs"; return 1; }
	tail -n 2 "$(node_dir node-a)/log"
	tail -n 2 "$(node_dir node-a)/log" | grep -F "$text" >/dev/null
}
if [[ $without == btf ]]; then
	for flag in -feature=ct_lookup=on -fast-path=required; do
		check "$flag: twilld ends and names what is missing" ends_with "feature ct_lookup is required, this kernel does not have it" "$flag"
	done
fi
for node in node-a node-c; do agent_start "$node" "${flags[@]}"; done
for node in node-a node-c; do check "$node is ready" wait_ready "$node" "$(scaled 15)"; done
for pod in "${PODS[@]}"; do
	read -ra words <<<"$pod"
	pod_add "${words[@]}" --style bridge
	pod_serve "${words[@]}"
done

is_missing() { # FEATURE: status has it off, and tells the effect in one line
	local line
	line=$({ node_ctl node-a status || :; } | grep -E "^feature +$1 ") || return 1
	echo "$line"
	[[ $line =~ ^feature\ +$1\ +off\ +\(auto\)\ +[a-z]+ ]]
}
case $without in
btf | jit)
	check "status: $without is missing, with its effect" is_missing "$without"
	check "status: so programs cannot ask conntrack" is_missing ct_lookup
	check "the programs carry" status_is node-a '.fast_path.on'
	;;
conntrack)
	check "status: conntrack is missing, with its effect" is_missing conntrack
	check "status: so programs cannot ask it" is_missing ct_lookup
	check "the programs carry" status_is node-a '.fast_path.on'
	;;
clsact)
	check "the kernel overlay carries" status_is node-a '.data_plane.kind == "kernel overlay"'
	check "status says why: no program can be attached" status_is node-a '.data_plane.why | test("attach")'
	;;
esac
talk() { # FROM TO
	local family words
	check "${1#* } -> ${2#* }: reachable" reachable "$1" "$2"
	read -ra words <<<"$2"
	for family in 4 6; do
		check "${1#* } -> ${2#* } IPv$family: TCP arrives intact" \
			traffic "$1" tcp-client "$(pod_ip "${words[@]}" "$family")" --bytes 300000 --timeout "$(scaled 10)"
	done
}
talk "node-a pod-a1" "node-a pod-a2"
talk "node-a pod-a2" "node-c pod-c1"
talk "node-c pod-c1" "node-a pod-a1"
if [[ $without != conntrack ]]; then
	for family in 4 6; do
		vip=$([[ $family == 4 ]] && echo 10.96.0.10 || echo fd00:96::10)
		clusterip_add node-a "$vip" 80 "$(pod_ip node-c pod-c1 "$family")" 5001
		PORT=80 check "pod-a1 -> a service, IPv$family: TCP arrives intact" \
			traffic "node-a pod-a1" tcp-client "$vip" --bytes 300000 --timeout "$(scaled 10)"
	done
fi
finish
