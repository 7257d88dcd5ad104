#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bpf/: no conditional compilation (configuration is load-time constants); names of programs and maps start with tw_ and fit
# into the 15 characters that the kernel keeps.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

mapfile -t bpf < <(files bpf "c h")
mapfile -t maps < <(files maps h)
cd "$tree" || exit 1
if [[ ${#bpf[@]} -gt 0 ]]; then
	violations_from < <(grep -nE '^[[:space:]]*#[[:space:]]*(if|ifdef|ifndef|elif|else)\b' "${bpf[@]}" /dev/null |
		sed 's/$/   <- no conditional compilation in bpf/')
fi

names() {
	# SEC("tc") int name(...), on one line or two; TW_MAP(name, ...; } name SEC(".maps")
	cat "${bpf[@]}" "${maps[@]}" /dev/null | tr '\n' ' ' |
		grep -oE 'SEC\("(tc|xdp|classifier)[^"]*"\)[[:space:]]+int[[:space:]]+[A-Za-z0-9_]+|TW_MAP\([A-Za-z0-9_]+,[[:space:]]*BPF_|[A-Za-z0-9_]+ SEC\("\.maps"\)' |
		sed -E 's/TW_MAP\(([A-Za-z0-9_]+).*/\1/; s/^SEC\(.*[[:space:]]//; s/ SEC\(.*//' | grep -v '^name$' | sort -u
}
while read -r name; do
	if [[ ${#name} -gt 15 ]]; then violation "$name: ${#name} characters, the kernel keeps 15"; fi
	if [[ $name != tw_* ]]; then violation "$name: programs and maps start with tw_"; fi
done < <(names)
finish
