#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Links in markdown pages that stay inside the repository lead to a file, and to a heading where they name one.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

cd "$tree" || exit 1

# Anchors of a page, as the usual renderers make them.
anchors() {
	grep -E '^#{1,6} ' "$1" | sed -E 's/^#+ +//; s/[^A-Za-z0-9 _-]//g; s/ /-/g' | tr '[:upper:]' '[:lower:]'
}

check() {
	local page=$1 link file anchor
	# shellcheck disable=SC2016 # backquotes are markdown
	sed '/^```/,/^```/d' "$page" | sed -E 's/`[^`]*`//g' | grep -oE '\]\([^)]+\)' | sed -E 's/^\]\((.*)\)$/\1/; s/ ".*"$//' |
		while read -r link; do
			case $link in http://* | https://* | mailto:*) continue ;; esac
			file=${link%%#*} anchor=
			[[ $link == *#* ]] && anchor=${link#*#}
			if [[ $file == /* ]]; then file=.$file; elif [[ $file ]]; then file=$(dirname "$page")/$file; else file=$page; fi
			if [[ ! -e $file ]]; then
				echo "$page: no such file: $link"
			elif [[ $anchor && $file == *.md ]] && ! anchors "$file" | grep -xF -- "$anchor" >/dev/null; then
				echo "$page: no such heading: $link"
			fi
		done
}

violations_from < <(for page in $(files "" md); do check "$page"; done)
finish
