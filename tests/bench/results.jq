# SPDX-License-Identifier: Apache-2.0
# What the other programs of this folder share.

def median: sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor]
	else (.[length / 2 - 1] + .[length / 2]) / 2 end;

def unit: {tcp_stream: "Gbit/s", cpu_per_gb: "CPU s/GB", tcp_rr_p50: "us", tcp_rr_p99: "us", tcp_rr32: "transactions/s",
	tcp_crr: "connections/s", udp64: "packets/s", udp1400: "packets/s"}[.];

# Scenarios in which less is better.
def less_is_better: . == "cpu_per_gb" or startswith("tcp_rr_p");

def is_local: . == "local-bridge" or . == "twill-local";

# A number as people write it: three digits that matter, or all before the point.
def figures: if . == null then "-" elif . >= 100 then round | tostring
	else (if . >= 10 then 10 elif . >= 1 then 100 else 1000 end) as $f | (. * $f | round / $f) | tostring end;

def fixed2: if . == null then "-" else (. * 100 | round | tostring) as $t | ("000" + $t)[-([3, ($t | length)] | max):] |
	.[:-2] + "." + .[-2:] end;
