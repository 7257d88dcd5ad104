// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "twill/result.hpp"

namespace twill {

/// Error of a failed system call on a file: `code` is errno, text "<operation> <path>: <reason>".
Error file_error(int code, std::string_view operation, std::string_view path);

/// Content of a regular file. EFBIG above `most` bytes, EINVAL for other kinds of file, errno of open() and read().
Result<std::string> read_file(const std::string& path, std::size_t most);

/// Replaces `path` in one step: a temporary file beside it, fsync, rename, fsync of the directory. A reader sees the
/// old content or the new; after an error, the old. The temporary name starts with '.' and ends with kTempSuffix.
Result<> write_file(const std::string& path, std::string_view content, mode_t mode);
inline constexpr std::string_view kTempSuffix = ".twill-tmp";

/// Deletes a file; one that is absent is deleted.
Result<> remove_file(const std::string& path);

/// Creates one directory, with `mode` whatever the umask. One that exists is left as it is.
Result<> make_directory(const std::string& path, mode_t mode);

} // namespace twill
