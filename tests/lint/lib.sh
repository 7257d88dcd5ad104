# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Shared by the lint scripts: each is called with an optional tree to look at (selftest.sh plants violations in one), prints
# one line per violation, and ends 1 if there was any.
tree=$(cd "${1:-$(dirname "${BASH_SOURCE[0]}")/../..}" && pwd)
violations=0
export PATH=$PATH:/usr/sbin

# Files of the tree that git has or would take, below the given folders and with the given endings:
# files "agent bpf" "c h". Empty folders: everywhere.
files() {
	local folders endings
	folders=$(tr ' ' '|' <<<"${1:-.*}")
	endings=$(tr ' ' '|' <<<"$2")
	git -C "$tree" -c safe.directory='*' ls-files --cached --others --exclude-standard 2>/dev/null |
		grep -E "^($folders)(/|$)" | grep -E "\.($endings)$" | existing || true
}

# Everything that git has or would take.
all_files() {
	git -C "$tree" -c safe.directory='*' ls-files --cached --others --exclude-standard | existing
}

existing() {
	local file
	while read -r file; do
		if [[ -f $tree/$file ]]; then echo "$file"; fi
	done
}

bash_files() {
	local file
	all_files | while read -r file; do
		case $file in
		*.sh | *.bash) echo "$file" ;;
		*.*) ;;
		*) if head -c 64 "$tree/$file" | head -n 1 | grep -aE '^#!.*(bash|/sh|busybox sh)' >/dev/null; then echo "$file"; fi ;;
		esac
	done
}

violation() {
	echo "$*"
	violations=$((violations + 1))
}

# Each line of input is one violation.
violations_from() {
	local line
	while IFS= read -r line; do violation "$line"; done
}

finish() {
	if [[ $violations -gt 0 ]]; then
		echo "$(basename "$0"): $violations violation(s)"
		exit 1
	fi
	exit 0
}
