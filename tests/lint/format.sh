#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-format, with the style of each folder: kernel style in bpf/ and for maps/**/*.h, the root's for the rest.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

cd "$tree" || exit 1
format=$(type -P clang-format-14 clang-format | head -n 1)
mapfile -t root < <(files "" "cpp hpp c h" | grep -Ev '^maps/[^/]*\.h$')
mapfile -t kernel < <(files maps h | grep -E '^maps/[^/]*\.h$')

report() {
	sed -nE 's/^([^:]+):([0-9]+):[0-9]+: error:.*/\1:\2: not as clang-format has it/p' | sort -t : -k 1,1 -u
}
if [[ ${#root[@]} -gt 0 ]]; then
	violations_from < <("$format" --dry-run --Werror "${root[@]}" 2>&1 | report)
fi
if [[ ${#kernel[@]} -gt 0 ]]; then
	violations_from < <("$format" --style=file:bpf/.clang-format --dry-run --Werror "${kernel[@]}" 2>&1 | report)
fi
finish
