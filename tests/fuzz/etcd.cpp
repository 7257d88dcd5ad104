// SPDX-License-Identifier: Apache-2.0
// What an etcd server may send: frames cut anywhere, messages, keys, values. The first byte chooses.
#include <cstdint>
#include <string_view>

#include "agent/store/etcd_codec.hpp"
#include "agent/store/etcd_view.hpp"

using namespace twill;

namespace {

void frames(std::string_view bytes)
{
    GrpcReader reader(1U << 20);
    const auto take = [](std::string_view) { return true; };
    while (!bytes.empty()) {
        const auto size = std::min<std::size_t>(bytes.size(), static_cast<unsigned char>(bytes[0]) + 1U);
        if (!reader.feed(bytes.substr(0, size), take)) return;
        bytes.remove_prefix(size);
    }
}

/// The input as one lease under a key, split at the first newline.
void entry(std::string_view bytes)
{
    const auto end = std::min(bytes.find('\n'), bytes.size());
    const std::string key(bytes.substr(0, end));
    const std::string value(bytes.substr(std::min(end + 1, bytes.size())));
    EtcdView view;
    view.put_lease(key, {"", value, 1, 2, 3});
    view.put_marker(key, value);
    view.held(std::nullopt);
    const auto lease = view.lease(key);
    if (!lease) return;
    // What is taken is written as something that is taken, and means the same.
    auto again = parse_etcd_lease(key, format_etcd_lease(*lease, Vni{1}));
    if (!again) __builtin_trap();
    again->marker = lease->marker;
    if (*again != *lease) __builtin_trap();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size)
{
    if (size == 0) return 0;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 7) {
    case 0:
        frames(bytes);
        break;
    case 1:
        entry(bytes);
        break;
    case 2:
        if (const auto listing = decode_list(bytes, 2))
            view_of(EtcdKeys("/coreos.com/network"), listing->ranges[0], listing->ranges[1]);
        break;
    case 3:
        (void)decode_watch(bytes);
        break;
    case 4:
        (void)decode_grant(bytes);
        (void)decode_txn(bytes);
        break;
    case 5:
        (void)decode_authenticate(bytes);
        break;
    default:
        (void)grpc_outcome({200, {{"grpc-status", std::string(bytes)}, {"grpc-message", std::string(bytes)}}}, {});
    }
    return 0;
}
