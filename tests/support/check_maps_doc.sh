#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: tests/support/check_maps_doc.sh BPF_ROOT
# Compares docs/maps.md with the maps that are pinned under BPF_ROOT: no map more or less, type and capacity of each, and
# the field names of each dump in their order, nested ones included. Prints what differs, and last how many maps had
# entries to compare; ends 1 if anything differs. Needs root and bpftool.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=${1:?usage: check_maps_doc.sh BPF_ROOT}
maps=$root/v1/maps
doc=$here/../../docs/maps.md
export PATH=$PATH:/usr/sbin
documented=$(awk -f "$here/../lint/maps_doc.awk" "$doc")
wrong=0

differs() {
	echo "check_maps_doc: $*"
	wrong=$((wrong + 1))
}

# Names that a key or value of this type shows in a dump, in order: names_of "struct tw_peer".
names_of() {
	local name type
	[[ $1 == "struct "* ]] || return 0
	while read -r name type; do
		echo "$name"
		names_of "${type%%\[*}" # of an array: those of its elements
	done < <(awk -v want="${1#struct }" '$1 == "field" && $2 == want { print $4, $5, $6 }' <<<"$documented")
}

expected_names() { # map type, key, value
	echo key
	names_of "$2"
	case $1 in
	percpu_*) printf 'values\ncpu\nvalue\n' ;;
	*) echo value ;;
	esac
	names_of "$3"
}

unique() { awk '!seen[$0]++'; }

compared=0
check_dump() { # map, type, key, value
	local dump shown
	dump=$(bpftool map dump pinned "$maps/$1" 2>/dev/null | head -n 4000) || true # head may be done first
	shown=$(grep -oE '"[a-z0-9_]+": ?' <<<"$dump" | tr -d '": ' | unique) || true
	[[ $shown ]] || return 0 # no entries
	compared=$((compared + 1))
	if [[ $shown != "$(expected_names "$2" "$3" "$4" | unique)" ]]; then
		differs "$1: a dump shows the fields $(tr '\n' ' ' <<<"$shown"); docs/maps.md has" \
			"$(expected_names "$2" "$3" "$4" | unique | tr '\n' ' ')"
	fi
}

while read -r name; do
	grep -q "^map $name " <<<"$documented" || differs "$name is pinned but not in docs/maps.md"
done < <(ls "$maps")

while IFS=$'\037' read -r name type key value capacity; do
	if [[ ! -e $maps/$name ]]; then
		differs "$name is in docs/maps.md but not pinned"
		continue
	fi
	[[ $name != tw_nat_* ]] || capacity="($capacity|1)" # without masquerade
	shown=$(bpftool map show pinned "$maps/$name")
	grep -qE "^[0-9]+: $type " <<<"$shown" || differs "$name: type is not $type: ${shown%%$'\n'*}"
	grep -qE "max_entries $capacity( |\$)" <<<"$shown" || differs "$name: capacity is not $capacity"
	if [[ $type != ringbuf ]]; then check_dump "$name" "$type" "$key" "$value"; fi
done < <(awk '$1 == "map" { key = $4; value = $5; capacity = $NF
	if (key == "struct") { key = "struct@" $5; value = $6 == "struct" ? "struct@" $7 : $6 }
	else if (value == "struct") value = "struct@" $6
	print $2, $3, key, value, capacity }' <<<"$documented" | sed 's/ /\t/g; s/@/ /g' | tr '\t' '\037')

echo "check_maps_doc: $(grep -c '^map ' <<<"$documented") maps, $compared with entries, $wrong difference(s)"
[[ $wrong == 0 ]]
