// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/bpf.h>

namespace twill {

/// enum bpf_attach_type of include/uapi/linux/bpf.h, newer than Debian 12's headers: ABI, hence stable (6.6).
inline constexpr auto kTcxIngress = static_cast<bpf_attach_type>(46);
inline constexpr auto kTcxEgress = static_cast<bpf_attach_type>(47);

} // namespace twill
