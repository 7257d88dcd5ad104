// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bpf/libbpf.h>

#include <cerrno>
#include <cstdlib>

#include "maps/abi/cfg.h"
#include "maps/abi/endpoint.h"
#include "maps/abi/event.h"
#include "maps/abi/flow.h"
#include "maps/abi/nat.h"
#include "maps/abi/owned.h"
#include "maps/abi/peer.h"

// The skeletons' structs are of the ABI headers above.
#include "twill_dp.skel.h"
#include "twill_plain.skel.h"

namespace twill {

/// An object file in memory.
struct BpfObject {
    const void* bytes = nullptr;
    std::size_t size = 0;
};

/// The object with the programs, as it was built in. There are two of the same maps, programs and constants: one that
/// can ask conntrack, for which libbpf wants the kernel's BTF and the kernel its JIT, and one that cannot and wants
/// neither.
inline BpfObject built_in_object(bool can_ask_conntrack)
{
    BpfObject object;
    object.bytes = can_ask_conntrack ? twill_dp__elf_bytes(&object.size) : twill_plain__elf_bytes(&object.size);
    return object;
}

/// Opens the programs of an object, which must live as long as what is returned. nullptr: see errno.
inline twill_dp* open_programs(const BpfObject& object)
{
    auto* skeleton = static_cast<twill_dp*>(std::calloc(1, sizeof(twill_dp)));
    if (skeleton == nullptr) return nullptr;
    int rc = twill_dp__create_skeleton(skeleton);
    if (rc == 0) {
        auto& file = *skeleton->skeleton;
        file.data = const_cast<void*>(object.bytes);
        file.data_sz = object.size;
        rc = bpf_object__open_skeleton(skeleton->skeleton, nullptr);
    }
    if (rc == 0) return skeleton;
    twill_dp__destroy(skeleton);
    errno = -rc;
    return nullptr;
}

} // namespace twill
