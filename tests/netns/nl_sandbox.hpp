// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "agent/loop/loop.hpp"
#include "agent/nl/socket.hpp"

namespace twill::test {

/// A network namespace for one test case, with `lo` up: the process moves into it and the one before it goes.
class Namespace {
public:
    Namespace();
    nl::Socket& socket() { return *socket_; }

private:
    Result<nl::Socket> socket_;
};

/// Runs a shell command; the test case fails when it does.
void shell(const std::string& command);
/// What a shell command prints.
std::string output(const std::string& command);
/// Everything that netlink and the interfaces' sysctls show of this namespace, once it has come to rest: carrier
/// changes and IPv6 addresses take effect a moment after the request.
std::string everything();
/// Lines that only one of `before` and everything() has, marked - and +, whatever their order. Empty as soon as they
/// hold the same; what remains after seconds otherwise.
std::string difference_from(const std::string& before);
/// Runs the loop until `is_reached`, at most five seconds; false when it never was.
bool run_until(Loop& loop, const std::function<bool()>& is_reached);
/// Runs the loop until nothing has been ready for a moment.
void run_idle(Loop& loop);

} // namespace twill::test
