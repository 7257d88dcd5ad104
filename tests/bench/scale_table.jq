# SPDX-License-Identifier: Apache-2.0
# Input: the results of scale.

def left($n): . + " " * ([$n - length, 0] | max);
def right($n): " " * ([$n - length, 0] | max) + .;
def row($name; values): ([$name | left(50)] + [values | figures | right(12)]) | join("");

.sizes as $sizes | .programs.rows as $programs |
(.host | "\(.date)  commit \(.commit)  kernel \(.kernel)  \(.cores) x \(.cpu)  load average at the start \(.load)"), "",
(["nodes besides this one, dual-stack" | left(50)] + [$sizes[].peers | tostring | right(12)] | join("")),
row("resident memory of twilld, MB"; $sizes[] | .agent_rss_kb / 1024),
row("maps in the kernel, MB"; $sizes[] | .maps_kb / 1024),
row("start of twilld to all peers programmed, ms"; $sizes[].start_to_all_ms),
row("lease written to peer in the map, ms, median"; $sizes[].lease_to_map_ms.median),
row("  the slowest of \($sizes[0].lease_to_map_ms.n)"; $sizes[].lease_to_map_ms.max),
"", "ns per packet",
($programs[] | . as $p | row("\(.program) \(.family) \(.path)"; $sizes[] | $p.ns[.peers | tostring]))
