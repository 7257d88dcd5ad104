// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bpf/libbpf.h>

#include <cerrno>
#include <cstdlib>

#include "maps/abi/cfg.h"
#include "maps/abi/endpoint.h"
#include "maps/abi/event.h"
#include "maps/abi/flow.h"
#include "maps/abi/owned.h"
#include "maps/abi/peer.h"

// The skeletons' structs are of the ABI headers above.
#include "twill_dp.skel.h"
#include "twill_plain.skel.h"

namespace twill {

/// Opens the programs. There are two objects of the same maps, programs and constants: one that can ask conntrack, for
/// which libbpf wants the kernel's BTF and the kernel its JIT, and one that cannot and wants neither. nullptr: see
/// errno.
inline twill_dp* open_programs(bool can_ask_conntrack)
{
    if (can_ask_conntrack) return twill_dp__open();
    auto* skeleton = static_cast<twill_dp*>(std::calloc(1, sizeof(twill_dp)));
    if (skeleton == nullptr) return nullptr;
    int rc = twill_dp__create_skeleton(skeleton);
    if (rc == 0) {
        auto& file = *skeleton->skeleton;
        file.data = const_cast<void*>(twill_plain__elf_bytes(&file.data_sz));
        rc = bpf_object__open_skeleton(skeleton->skeleton, nullptr);
    }
    if (rc == 0) return skeleton;
    twill_dp__destroy(skeleton);
    errno = -rc;
    return nullptr;
}

} // namespace twill
