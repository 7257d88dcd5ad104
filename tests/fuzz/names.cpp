// SPDX-License-Identifier: Apache-2.0
// Short texts in stores: keys, file names, times, addresses, prefixes. What is read and written reads back as the same.
// The first byte chooses.
#include <cstdlib>
#include <string_view>

#include "agent/store/dir_watch.hpp"
#include "agent/store/etcd_view.hpp"
#include "agent/store/kube_node.hpp"
#include "agent/store/lease_dir.hpp"
#include "agent/store/rfc3339.hpp"
#include "twill/mac.hpp"

using namespace twill;

namespace {

/// Reads back as what it was.
template <typename T>
bool same(const Result<T>& again, const T& first)
{
    return again && *again == first;
}

void check(bool holds)
{
    if (!holds) std::abort();
}

void keys(std::string_view text)
{
    const auto key = LeaseKey::parse(text);
    if (!key) return;
    const auto again = LeaseKey::parse(key->to_string());
    check(again && *again == *key && key->overlaps(*key));
}

void addresses(std::string_view text)
{
    if (const auto ip = Ip::parse(text)) check(same(Ip::parse(ip->to_string()), *ip));
    if (const auto cidr = Cidr::parse(text)) check(same(Cidr::parse(cidr->to_string()), *cidr));
    if (const auto mac = Mac::parse(text)) check(same(Mac::parse(mac->to_string()), *mac));
}

void times(std::string_view text)
{
    const auto time = parse_rfc3339(text);
    if (!time) return;
    const auto again = parse_rfc3339(format_rfc3339(*time));
    check(again && *again == std::chrono::floor<std::chrono::seconds>(*time));
}

/// A prefix, a newline, a key of the store.
void etcd_keys(std::string_view text)
{
    const auto end = std::min(text.find('\n'), text.size());
    const EtcdKeys keys(text.substr(0, end));
    const auto key = text.substr(std::min(end + 1, text.size()));
    (void)keys.marker_key(key);
    for (const auto& full : {std::string(key), keys.lease(key)})
        if (const auto found = keys.lease_key(full)) check(keys.lease(*found) == full);
    check(keys.marker_key(keys.marker(key)) == std::string(key));
    check(EtcdKeys(keys.prefix()).prefix() == keys.prefix());
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const unsigned char* data, std::size_t size)
{
    if (size == 0) return 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    switch (data[0] % 7) {
    case 0:
        keys(text);
        break;
    case 1:
        addresses(text);
        break;
    case 2:
        times(text);
        break;
    case 3:
        if (const auto key = LeaseDir::key_of(text)) check(!key->empty() && *key + ".json" == text);
        break;
    case 4:
        etcd_keys(text);
        break;
    case 5:
        if (const auto prefix = annotation_prefix(text)) check(same(annotation_prefix(*prefix), *prefix));
        break;
    default: {
        WatchBatch batch;
        DirWatch::decode(text.data(), text.size(), {{1, "/a"}, {2, "/b"}}, batch);
    }
    }
    return 0;
}
