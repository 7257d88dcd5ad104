// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace twill {

/// Limits what the allocator keeps for itself. Call first of all.
void keep_memory_low();

/// Gives back what only the start needed: freed heap, and code of the program and its libraries, which the kernel maps
/// again from the page cache when it is used.
void drop_startup_memory();

} // namespace twill
