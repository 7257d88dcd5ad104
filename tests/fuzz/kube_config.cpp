// SPDX-License-Identifier: Apache-2.0
// kubeconfig files, and the annotation prefix.
#include <string_view>

#include "agent/store/kube_access.hpp"
#include "agent/store/kube_node.hpp"

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size)
{
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    for (const auto* url : {"", "https://b"})
        if (const auto access = twill::parse_kubeconfig(text, "/nowhere", url)) {
            (void)access->headers();
            (void)access->describe();
        }
    (void)twill::annotation_prefix(text);
    return 0;
}
