#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a grep can see of the house style: licence line, file length, printing, references to places that users do not have.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

cd "$tree" || exit 1
mapfile -t sources < <(files "" "c h cpp hpp"; bash_files)
mapfile -t all < <(all_files)

for file in "${sources[@]}"; do
	head -n 4 "$file" | grep 'SPDX-License-Identifier: ' >/dev/null || violation "$file: no SPDX line"
	case $file in
	bpf/* | maps/abi/* | maps/maps.bpf.h) want='GPL-2.0-only OR BSD-2-Clause' ;;
	*) want=Apache-2.0 ;;
	esac
	head -n 4 "$file" | grep "SPDX-License-Identifier: $want" >/dev/null || violation "$file: licence is not $want"
	lines=$(wc -l <"$file")
	if [[ $lines -ge 500 ]]; then
		violation "$file: $lines lines, the limit is 500"
	elif [[ $lines -ge 400 ]]; then
		echo "warning: $file: $lines lines, aim at 400"
	fi
done

# Logs go through the logger; only the command-line tools print.
printing=$(files "agent maps include" "cpp hpp" | grep -Ev '^agent/(cli|cni)/|^agent/daemon/(main|flags)\.cpp$')
if [[ $printing ]]; then
	# shellcheck disable=SC2086 # file names without blanks
	violations_from < <(grep -nE '(^|[^a-z_])(std::)?(f|v|vf)?printf\(|std::(cout|cerr|clog)|(^|[^a-z_])(std::)?(puts|perror)\(|fmt::print\(' \
		$printing /dev/null | sed 's/$/   <- only the command-line tools print/')
fi

# Written in two parts so that this file passes its own test.
violations_from < <(grep -nIE '/wor''k/|(^|[^A-Za-z0-9_-])shar''ed/(design|style|reference|hooks)' "${all[@]}" /dev/null |
	sed 's/$/   <- users do not have this place/')
finish
