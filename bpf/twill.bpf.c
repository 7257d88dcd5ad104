/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* All hooks as one unit, hence one object with one set of maps and one .rodata. libbpf 1.1 could link separate objects,
 * but fails on a kfunc that two of them declare. */
#include "bpf/lib/conntrack.h"

#include "bpf/tw_from_host.bpf.c"
#include "bpf/tw_from_overlay.bpf.c"
#include "bpf/tw_from_pod.bpf.c"
#include "bpf/tw_from_wire.bpf.c"
#include "bpf/tw_to_pod.bpf.c"
#include "bpf/tw_to_wire.bpf.c"
