// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/memory.hpp"

#include <link.h>
#include <malloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace twill {

void keep_memory_low()
{
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TRIM_THRESHOLD, 256 * 1024);
}

void drop_startup_memory()
{
    malloc_trim(0);
    const auto drop_code = [](dl_phdr_info* object, std::size_t, void*) {
        const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
        for (unsigned i = 0; i < object->dlpi_phnum; ++i) {
            const auto& segment = object->dlpi_phdr[i];
            // Only code: it is never written, so dropping it loses nothing. Data segments hold relocations.
            if (segment.p_type != PT_LOAD || (segment.p_flags & (PF_X | PF_W)) != PF_X) continue;
            const auto begin = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
            const auto end = (object->dlpi_addr + segment.p_vaddr + segment.p_memsz + page - 1) & ~(page - 1);
            // The linker tells addresses as numbers. NOLINTNEXTLINE(performance-no-int-to-ptr)
            madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
        }
        return 0;
    };
    dl_iterate_phdr(drop_code, nullptr);
}

} // namespace twill
