# SPDX-License-Identifier: Apache-2.0
def left($n): . + " " * ([$n - length, 0] | max);
def right($n): " " * ([$n - length, 0] | max) + .;
def percent: if . == null then "" else . * 100 | if . < 0.05 then "" else "  \(figures)% lost" end end;

.host as $h |
"\($h.date)  commit \($h.commit)  kernel \($h.kernel)  \($h.cores) x \($h.cpu)",
"\($h.rounds) rounds of \($h.seconds) s each; client and server on CPU \($h.cpus); load average at the start \($h.load)",
(reduce .rows[] as $r ([]; if any(.[]; . == $r.scenario) then . else . + [$r.scenario] end))[] as $s |
"",
([($s + ", " + ($s | unit) | left(28)), ("median" | right(9)), ("min" | right(9)), ("max" | right(9)), ("vs raw" | right(9)),
	("vs kernel-vxlan" | right(17)), ("vs local-bridge" | right(17))] | join("")),
(.rows[] | select(.scenario == $s) |
	([("  " + .path | left(28)), (.median | figures | right(9)), (.min | figures | right(9)), (.max | figures | right(9)),
	(.vs_raw | fixed2 | right(9)), (.vs_kernel_vxlan | fixed2 | right(17)), (.vs_local_bridge | fixed2 | right(17)),
	(.loss | percent)] | join("")))
