/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */

/* The same without a call of a kernel function, hence with nothing that needs the kernel's BTF or its JIT. */
#include "bpf/lib/no_conntrack.h"

#include "bpf/tw_from_host.bpf.c"
#include "bpf/tw_from_overlay.bpf.c"
#include "bpf/tw_from_pod.bpf.c"
#include "bpf/tw_from_wire.bpf.c"
#include "bpf/tw_to_pod.bpf.c"
#include "bpf/tw_to_wire.bpf.c"
