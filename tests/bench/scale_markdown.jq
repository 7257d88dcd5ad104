# SPDX-License-Identifier: Apache-2.0
# Input: the results of scale. Output: what docs/performance.md shows of them.

def row($name; values): "| \($name) | " + ([values | figures] | join(" | ")) + " |";

.sizes as $sizes | .programs.rows as $programs |
(.host | "\(.date), commit `\(.commit)`, kernel \(.kernel), \(.cores) x \(.cpu); load average before the start \(.load)."), "",
"| other nodes, dual-stack | " + ([$sizes[].peers | tostring] | join(" | ")) + " |",
"|---|" + ([$sizes[] | "---|"] | join("")),
row("resident memory of `twilld`, MB"; $sizes[] | .agent_rss_kb / 1024),
row("maps in the kernel, MB"; $sizes[] | .maps_kb / 1024),
row("start of `twilld` to all peers programmed, ms"; $sizes[].start_to_all_ms),
row("lease written to peer in the map, ms, median of \($sizes[0].lease_to_map_ms.n)"; $sizes[].lease_to_map_ms.median),
row("the same, the slowest"; $sizes[].lease_to_map_ms.max),
($programs[] | . as $p | row("`\(.program)`, \(.family), \(.path), ns"; $sizes[] | $p.ns[.peers | tostring]))
