# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the scripts of this folder share: bad input, the machine, results as JSON, table, picture and page. Sourced.

# shellcheck disable=SC2034 # for who sources this
PICTURE=docs/performance.svg PAGE=docs/performance.md

bad() {
	echo "bench: $*" >&2
	usage >&2
	exit 2
}

# Where results come from and go to; before anything is measured.
check_files() {
	[[ -z $FROM || -r $FROM ]] || bad "--from '$FROM': cannot read it"
	[[ -z $JSON || -d $(dirname "$JSON") ]] || bad "--json '$JSON': no such folder"
	[[ -z ${PLOT:-} || -d $(dirname "$PLOT") ]] || bad "--plot '$PLOT': no such folder"
}

need_tools() {
	local tool
	for tool; do
		if ! command -v "$tool" >/dev/null; then
			echo "bench: missing: $tool"
			exit 77
		fi
	done
}

# The machine, as JSON.
host() {
	jq -n --arg date "$(date -u +%Y-%m-%d)" --arg kernel "$(uname -r)" \
		--arg commit "$(git -C "$LAB_REPO" -c safe.directory='*' describe --always --dirty --abbrev=7 2>/dev/null || echo unknown)" \
		--arg cpu "$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)" --argjson cores "$(nproc)" \
		--argjson memory_mb "$(awk '/^MemTotal:/ { print int($2 / 1024) }' /proc/meminfo)" \
		--argjson load "$(cut -d' ' -f1 /proc/loadavg)" '{$date, $kernel, $commit, $cpu, $cores, $memory_mb, $load}'
}

# render PROGRAM [jq options] FILE
render() { jq -rf <(cat "$BENCH/results.jq" "$BENCH/$1.jq") "${@:2}"; }

# show_results NAME RESULTS: the table on the terminal, and what --json, --plot and --docs ask for.
show_results() {
	render "$1_table" "$2"
	[[ -z $JSON ]] || cp "$2" "$JSON"
	if [[ ${PLOT:-} ]]; then
		render "$1_plot" "$2" >"$PLOT.new"
		mv "$PLOT.new" "$PLOT"
	fi
	if [[ $DOCS ]]; then
		render "$1_markdown" "$2" >"$LAB_REPO/$PAGE.table"
		_into_page "$1" "$LAB_REPO/$PAGE.table" "$LAB_REPO/$PAGE"
		rm "$LAB_REPO/$PAGE.table"
	fi
}

# Replaces what stands between the two marks of that name in the page.
_into_page() { # NAME TABLE PAGE
	awk -v name="$1" -v table="$2" '$0 == "<!-- bench " name ": end -->" { skip = 0 }
		!skip { print }
		$0 == "<!-- bench " name ": begin -->" { skip = 1; while ((getline line <table) > 0) print line }' "$3" >"$3.new"
	mv "$3.new" "$3"
}
