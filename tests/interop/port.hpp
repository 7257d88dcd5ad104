// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/support/packet.hpp"
#include "twill/fd.hpp"
#include "twill/result.hpp"

namespace twill::interop {

using test::Bytes;

/// What a pod's stack would leave to be done: segments to cut, a checksum to finish. This is struct virtio_net_hdr,
/// whose header C++ cannot read.
struct Offload {
    std::uint8_t flags = 0;    ///< kNeedsCsum
    std::uint8_t gso_type = 0; ///< kGso*
    std::uint16_t hdr_len = 0, gso_size = 0, csum_start = 0, csum_offset = 0;
};
static_assert(sizeof(Offload) == 10);
inline constexpr std::uint8_t kNeedsCsum = 1, kGsoTcp4 = 1, kGsoTcp6 = 4, kGsoUdp = 5;

/// One interface of the bench: writes frames as a pod or a wire would, reads what arrives.
class Port {
public:
    /// `headers`: what arrives tells what is left to be done with it.
    static Result<Port> open(const std::string& interface, bool headers = false);

    /// 0, or the errno of a frame that cannot be sent at all (too long, not an offload that the kernel takes).
    int send(const Bytes& frame, const std::optional<Offload>& offload = {});
    /// The next frame that has arrived; nullopt: none there now. `offload`: what is left to be done with it.
    std::optional<Bytes> receive(Offload* offload = nullptr);
    /// Frames that the kernel had to throw away since the last call: no room in the socket.
    unsigned lost();
    int fd() const { return in_.get(); }

private:
    Fd in_, out_;
    bool headers_ = false;
};

} // namespace twill::interop
