// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <string_view>
#include <vector>

#include "agent/nl/message.hpp"
#include "agent/nl/socket.hpp"

namespace twill::nl {

/// Reads a whole table with `parse`, leaving out the messages that parse() declares foreign (EPROTONOSUPPORT) and those
/// that `keep` refuses.
template <typename T, typename Keep>
Result<std::vector<T>> read_all(Socket& socket, Message& request, std::string_view what,
                                Result<T> (*parse)(const nlmsghdr*), Keep keep)
{
    std::vector<T> all;
    TWILL_TRY(socket.dump(
        request, what, [&] { all.clear(); },
        [&](const nlmsghdr* message) -> Result<> {
            auto one = parse(message);
            if (!one && one.error().code != EPROTONOSUPPORT) return one.error();
            if (one && keep(*one)) all.push_back(*std::move(one));
            return Ok{};
        }));
    return all;
}

template <typename T>
Result<std::vector<T>> read_all(Socket& socket, Message& request, std::string_view what,
                                Result<T> (*parse)(const nlmsghdr*))
{
    return read_all(socket, request, what, parse, [](const T&) { return true; });
}

} // namespace twill::nl
