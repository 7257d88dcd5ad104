// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "twill/result.hpp"

namespace twill::cli {

struct HttpReply {
    int status = 0;
    std::string body;
    bool is_success() const { return status >= 200 && status < 300; }
};

/// One request to the agent. Errors: ENOENT and ECONNREFUSED nobody listens, EACCES, ETIMEDOUT, EIO.
using Api = std::function<Result<HttpReply>(const std::string& method, const std::string& path)>;

/// HTTP/1.1 over the unix socket at `socket_path`.
Api unix_api(std::string socket_path);

} // namespace twill::cli
