#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# shellcheck disable=SC2016 # what is planted is not expanded
# usage: selftest.sh [BUILD_DIR]
# Does each rule find what it is there for? A small tree that breaks none is made; every rule must pass on it; then one
# violation at a time is planted, and the rule must end 1 and name it.
set -uo pipefail

here=$(cd "$(dirname "$0")" && pwd)
build=${1:-$here/../../build/dev}
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

put() { # file, then the text on stdin
	mkdir -p "$tree/$(dirname "$1")"
	cat >"$tree/$1"
}

clean_tree() {
	local gpl='/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */' apache='// SPDX-License-Identifier: Apache-2.0'
	git -C "$tree" init -q
	cp "$here/../../.clang-format" "$tree/"
	mkdir -p "$tree/bpf" "$tree/maps/abi"
	cp "$here/../../bpf/.clang-format" "$tree/bpf/"
	cp "$here/../../maps/abi/.clang-format" "$tree/maps/abi/"
	printf '%s\n#pragma once\n\n#include <linux/types.h>\n\nstruct tw_a {\n\t__u8 b;\n};\n' "$gpl" | put maps/abi/a.h
	printf '%s\n#include "maps/abi/a.h"\n\nSEC("tc")\nint tw_from_pod(struct __sk_buff *skb)\n{\n\treturn -1;\n}\n' "$gpl" |
		put bpf/a.bpf.c
	printf '%s\n#pragma once\n\n#include <string>\n\nstd::string a();\n' "$apache" | put agent/nl/a.hpp
	printf '%s\n#include "agent/nl/a.hpp"\n\nstd::string a() { return {}; }\n' "$apache" | put agent/nl/a.cpp
	printf '%s\n#include <cstdio>\n\nint main() { std::printf("x"); }\n' "$apache" | put agent/cli/main.cpp
	printf '#!/usr/bin/env bash\n# SPDX-License-Identifier: Apache-2.0\necho "$1"\n' | put dev
	printf '# Page\n\n## A heading\n\n[here](#a-heading) [there](docs/b.md)\n' | put README.md
	printf '# B\n' | put docs/b.md
}

rule_passes() { # rule
	local output code
	output=$("$here/$1.sh" "$tree" "$build" 2>&1)
	code=$?
	if [[ $code != 0 ]]; then
		echo "selftest: $1 ends $code on a clean tree: $output"
		failures=$((failures + 1))
	fi
}

# The rule must find `pattern` once `file` ends with the text on stdin.
finds() { # rule, file, pattern
	local output code
	if [[ -e $tree/$2 ]]; then cp "$tree/$2" "$tree.saved"; fi
	mkdir -p "$(dirname "$tree/$2")"
	cat >>"$tree/$2"
	output=$("$here/$1.sh" "$tree" "$build" 2>&1)
	code=$?
	if [[ $code != 1 ]] || ! grep -qE -- "$3" <<<"$output"; then
		echo "selftest: $1 does not find '$3' in $2 (exit $code): $output"
		failures=$((failures + 1))
	fi
	if [[ -e $tree.saved ]]; then mv "$tree.saved" "$tree/$2"; else rm "$tree/$2"; fi
}

clean_tree
for rule in abi headers layering bpf_rules style format scripts links; do rule_passes "$rule"; done

spdx='// SPDX-License-Identifier: Apache-2.0'
finds abi maps/abi/a.h 'a\.h: gcc -std=c11' <<<'struct tw_c { bool d; };'
finds abi maps/abi/a.h 'a\.h: g\+\+ -std=c\+\+20' <<<'static int *tw_e = (void *)1;'
finds abi maps/abi/a.h 'a\.h: .*clang.* --target=bpf' <<<'_Static_assert(sizeof(long double) == 16, "");'
finds headers agent/nl/lonely.hpp 'lonely\.hpp:.*(vector|std)' <<<"$spdx
#pragma once
std::vector<int> b();"
put agent/nl/b.cpp <<<"$spdx
#include <string>"
finds headers agent/nl/b.hpp 'b\.cpp: does not include its own header first' <<<"$spdx"
rm "$tree/agent/nl/b.cpp"
finds layering agent/nl/b.cpp 'agent/nl may not include maps/map\.hpp' <<<'#include "maps/map.hpp"'
finds layering agent/reconcile/b.cpp 'agent/reconcile may not include agent/store/file_store\.hpp' <<<'#include "agent/store/file_store.hpp"'
finds layering agent/reconcile/b.cpp 'may not include <uv\.h>' <<<'#include <uv.h>'
finds layering agent/dataplane/b.cpp 'agent/dataplane may not include agent/store/store\.hpp' <<<'#include "agent/store/store.hpp"'
finds layering agent/cli/main.cpp 'agent/cli may not include agent/daemon/flags\.hpp' <<<'#include "agent/daemon/flags.hpp"'
finds layering include/twill/b.hpp 'include/twill may not include <bpf/bpf\.h>' <<<'#include <bpf/bpf.h>'
finds layering agent/new/b.cpp 'in no layer' <<<'int b;'
finds bpf_rules bpf/a.bpf.c 'no conditional compilation' <<<'#ifdef X'
finds bpf_rules bpf/a.bpf.c 'tw_from_far_away: 16 characters' <<<'SEC("tc")
int tw_from_far_away(struct __sk_buff *skb)'
finds bpf_rules maps/maps.bpf.h 'tw_a_map_too_long: 17 characters' <<<'TW_MAP(tw_a_map_too_long, BPF_MAP_TYPE_HASH, int, int, 1, 0);'
finds bpf_rules maps/maps.bpf.h 'peers: programs and maps start with tw_' <<<'TW_MAP(peers, BPF_MAP_TYPE_HASH, int, int, 1, 0);'
finds style agent/nl/b.cpp 'b\.cpp: no SPDX line' <<<'int b;'
finds style bpf/lib/b.h 'licence is not GPL' <<<"$spdx"
finds style agent/nl/a.cpp '[0-9]+ lines, the limit is 500' < <(seq -f '// %g' 500)
finds style agent/nl/a.cpp 'only the command-line tools print' <<<'void b() { std::cout << 1; }'
finds style agent/nl/a.cpp 'only the command-line tools print' <<<'void b() { printf("x"); }'
finds style docs/b.md 'users do not have this place' <<<"see /wo""rk/notes"
finds style docs/b.md 'users do not have this place' <<<"see shar""ed/design.md"
finds format agent/nl/a.cpp 'a\.cpp:[0-9]+: not as clang-format' <<<'int   b ;'
finds format bpf/a.bpf.c 'a\.bpf\.c:[0-9]+: not as clang-format' <<<'int  b;'
finds scripts dev 'SC2086' <<<'rm $1'
finds scripts dev 'dev:[0-9]+: no pipe into grep -q' <<<'seq 9 | ''grep -q 1'
finds links README.md 'no such file: docs/c\.md' <<<'[x](docs/c.md)'
finds links README.md 'no such heading: docs/b\.md#c' <<<'[x](docs/b.md#c)'

# The documented maps against the real object, with one line of the page changed.
if [[ -e $build/bpf/twill.bpf.o ]]; then
	mkdir -p "$tree/docs/design"
	cp "$here/../../docs/maps.md" "$tree/docs/"
	cp "$here/../../docs/design/packet-path.md" "$tree/docs/design/"
	cp -r "$here/../../maps/abi" "$tree/maps/"
	rule_passes maps_doc
	finds maps_doc docs/maps.md 'field tw_peer 99 extra __u8' <<<"#### struct tw_peer
| \`extra\` | \`__u8\` | 99 | none |"
	finds maps_doc docs/design/packet-path.md '99\|NOTHING' <<<'| 99 | `NOTHING` | drop | none |'
	sed -i 's/| 44 | index/| 45 | index/; /^| `tw_owned` | hash/d' "$tree/docs/maps.md"
	finds maps_doc docs/maps.md 'not in docs/maps.md: map tw_owned' </dev/null
	finds maps_doc docs/maps.md 'not in docs/maps.md: field tw_peer 44 stats' </dev/null
fi

echo "selftest: $failures failure(s)"
[[ $failures == 0 ]]
