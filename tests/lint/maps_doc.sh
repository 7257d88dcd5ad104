#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: maps_doc.sh [TREE [BUILD_DIR]]
# docs/maps.md against the object that was built: every map with type, key, value and capacity, every field with type and
# offset; and docs/design/packet-path.md against the list of reasons. Exit 77: BUILD_DIR has no object.
set -uo pipefail
. "$(dirname "$0")/lib.sh"

here=$(cd "$(dirname "$0")" && pwd)
object=${2:-$tree/build/dev}/bpf/twill.bpf.o
if [[ ! -e $object ]]; then
	echo "maps_doc: missing: $object"
	exit 77
fi

documented() { awk -f "$here/maps_doc.awk" "$tree/docs/maps.md" | sort; }
built() { bpftool btf dump file "$object" | awk -v btf=1 -f "$here/maps_doc.awk" | sort; }

if [[ -z $(built) ]]; then violation "$object: no maps in its BTF"; fi
violations_from < <(diff <(documented) <(built) | sed -n 's/^</docs\/maps.md, but not built:/p; s/^>/built, but not in docs\/maps.md:/p')

# The rows `| n | NAME | class | text |` are the list of maps/abi/reasons.h, in its order.
reasons_built() {
	sed -nE 's/^[[:space:]]+X\(([A-Z0-9_]+), (FAST|STACK|DROP), "(.*)"\).*/\1|\2|\3/p' "$tree/maps/abi/reasons.h" |
		awk -F '|' -v OFS='|' '{ print NR - 1, $1, tolower($2), $3 }'
}
reasons_documented() {
	sed -nE 's/^\| ([0-9]+) \| `([A-Z0-9_]+)` \| ([a-z]+) \| (.*) \|$/\1|\2|\3|\4/p' "$tree/docs/design/packet-path.md"
}
violations_from < <(diff <(reasons_documented) <(reasons_built) |
	sed -n 's/^</docs\/design\/packet-path.md, but not in reasons.h:/p; s/^>/in reasons.h, but not in docs\/design\/packet-path.md:/p')
finish
