# SPDX-License-Identifier: Apache-2.0
# Input: the results. Output: what docs/performance.md shows of them.

.host as $h | .rows as $rows |
(reduce $rows[].path as $p ([]; if any(.[]; . == $p) then . else . + [$p] end)) as $paths |
(reduce $rows[].scenario as $s ([]; if any(.[]; . == $s) then . else . + [$s] end)) as $scenarios |
def row($scenario; $path): first($rows[] | select(.scenario == $scenario and .path == $path));
def cell: (.vs_raw // .vs_local_bridge) as $ratio | (.median | figures) + (if $ratio then " (\($ratio | fixed2))" else "" end);

"\($h.date), commit `\($h.commit)`, kernel \($h.kernel), \($h.cores) x \($h.cpu), \($h.rounds) rounds of \($h.seconds) s; " +
	"load average before the start \($h.load). Medians; in brackets the ratio to `raw`, for pods of one node that to `local-bridge`.",
"",
"| | " + ($paths | join(" | ")) + " | twill-vxlan vs kernel-vxlan |",
"|---|" + ($paths | map("---|") | join("")) + "---|",
($scenarios[] | . as $s | "| `\($s)`, \($s | unit) | " + ([$paths[] | row($s; .) | cell] | join(" | ")) +
	" | \((row($s; "twill-vxlan") | .vs_kernel_vxlan) // null | fixed2) |")
