# SPDX-License-Identifier: Apache-2.0
# Input: the results. Output: an SVG of the ratios. A bar is speed against the base, so that longer is better everywhere: for what
# counts time or CPU the inverse of the ratio is drawn. The text at its end has the median itself.

def colour: {"host-gw": "#8b96a3", "kernel-vxlan": "#c2702a", "twill-vxlan": "#1f5fbf", "twill-direct": "#6aa0e6",
	"twill-local": "#1f5fbf"}[.];
def names: {tcp_stream: "one TCP stream", cpu_per_gb: "CPU per GB", tcp_rr_p50: "TCP round trip, median",
	tcp_rr_p99: "TCP round trip, 99th percentile", tcp_rr32: "TCP round trips, 32 connections",
	tcp_crr: "TCP connect, request, close", udp64: "UDP, 64 bytes", udp1400: "UDP, 1400 bytes"}[.];
def text($x; $y; $class; $t): "<text x=\"\($x)\" y=\"\($y)\" class=\"\($class)\">\($t | @html)</text>";
def line($x; $y; $height): "<line x1=\"\($x)\" y1=\"\($y)\" x2=\"\($x)\" y2=\"\($y + $height)\"/>";

def whole: 170; # pixels of 100 %
def speed($ratio): if .scenario | less_is_better then 1 / $ratio else $ratio end;
def thousands: if . >= 10000 then "\(. / 1000 | figures)k" else figures end;
# A bar ends at `$most` pixels, where its text begins.
def bar($x; $y; $most; $name; $ratio):
	speed($ratio) as $speed | ([$speed * whole, $most] | min | round) as $length |
	text($x + 84; $y + 12; "label"; $name),
	"<rect x=\"\($x + 90)\" y=\"\($y + 1)\" width=\"\($length)\" height=\"14\" rx=\"2\" fill=\"\(.path | colour)\"/>",
	text($x + 134 + $most; $y + 12; "percent"; "\($speed * 100 | round) %"),
	text($x + 142 + $most; $y + 12; "value"; "\(.median | thousands) \(.unit)");

.host as $host | .rows as $rows |
(reduce $rows[].scenario as $s ([]; if any(.[]; . == $s) then . else . + [$s] end)) as $scenarios |
[$rows[] | select(.vs_raw != null and .path != "raw")] as $far |
[$rows[] | select(.path == "twill-local" and .vs_local_bridge != null)] as $near |
([$far[].path] | unique | length) as $bars |
(if $bars == 0 then 0 else $bars * 18 + 42 end) as $panel |
(70 + (($scenarios | length) / 2 | ceil) * $panel) as $local_at |
($local_at + (if $near == [] then 0 else 42 + ($near | length) * 18 end) + 12) as $height |

"<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 936 \($height)\" width=\"936\" height=\"\($height)\" role=\"img\">",
"<title>Speed of twill, flannel and plain routes against the bare wire</title>",
"<style>text{font:12px system-ui,sans-serif;fill:#1f2933}.head{font-size:17px;font-weight:600}.note{fill:#52606d}",
".panel{font-weight:600;font-size:13px}.label{text-anchor:end}.percent{text-anchor:end}.value{fill:#52606d;font-size:11px}line{stroke:#52606d;stroke-dasharray:3 3}</style>",
"<rect width=\"936\" height=\"\($height)\" fill=\"#ffffff\"/>",
text(16; 28; "head"; "Speed against the bare wire (dashed line, 100 %): longer is better"),
text(16; 48; "note"; "\($host.date), commit \($host.commit), kernel \($host.kernel), \($host.cores) x \($host.cpu), " +
	"\($host.rounds) interleaved rounds"),
(if $bars == 0 then empty else range($scenarios | length) as $i | $scenarios[$i] as $s |
	(16 + ($i % 2) * 450) as $x | (70 + ($i / 2 | floor) * $panel) as $y |
	text($x; $y + 14; "panel"; $s | names),
	([$far[] | select(.scenario == $s)] | to_entries[] | .key as $n | .value |
		bar($x; $y + 24 + $n * 18; 200; .path; .vs_raw)),
	line($x + 90 + whole; $y + 22; $bars * 18 + 2) end),
(if $near == [] then empty else
	text(16; $local_at + 14; "panel"; "Two pods of one node: twill against a plain bridge with kube-proxy and flannel rules (100 %)"),
	($near | to_entries[] | .key as $n | .value | bar(16; $local_at + 24 + $n * 18; 290; .scenario; .vs_local_bridge)),
	line(16 + 90 + whole; $local_at + 22; ($near | length) * 18 + 2) end),
"</svg>"
