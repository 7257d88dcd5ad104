# SPDX-License-Identifier: Apache-2.0
# Input: all runs. A ratio is the median of the ratios of the rounds: both numbers of each were measured within seconds.

. as $runs |
def values($scenario; $path): [$runs[] | select(.path == $path and .values[$scenario] != null) |
	{key: (.round | tostring), value: .values[$scenario]}] | from_entries;
def ratio($scenario; $path; $base): values($scenario; $base) as $b |
	[values($scenario; $path) | to_entries[] | select($b[.key] // 0 > 0) | .value / $b[.key]] | median;
def loss($scenario; $path): [$runs[] | select(.load == $scenario and .path == $path) | .values.loss] | median;

{
	host: $host[0],
	rows: [$scenarios[] | select(IN($wanted[])) as $s | $all_paths[] | select(IN($paths[])) as $p |
		[values($s; $p)[]] as $all |
		{
			scenario: $s, path: $p, unit: ($s | unit), median: ($all | median), min: ($all | min), max: ($all | max),
			n: ($all | length),
			vs_raw: (if $p | is_local then null else ratio($s; $p; "raw") end),
			vs_kernel_vxlan: (if $p | is_local then null else ratio($s; $p; "kernel-vxlan") end),
			vs_local_bridge: (if $p | is_local then ratio($s; $p; "local-bridge") else null end)
		} + (if $s | startswith("udp") then {loss: loss($s; $p)} else {} end)]
}
