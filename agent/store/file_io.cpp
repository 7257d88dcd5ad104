// SPDX-License-Identifier: Apache-2.0
#include "agent/store/file_io.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "twill/fd.hpp"

namespace twill {

namespace {

std::string directory_of(const std::string& path)
{
    const auto slash = path.rfind('/');
    return slash == path.npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

/// Unique among all writers: process, and a count within it.
std::string temp_path(const std::string& path)
{
    static std::atomic<unsigned> count{0};
    const auto slash = path.rfind('/');
    const std::string name = slash == path.npos ? path : path.substr(slash + 1);
    return directory_of(path) + "/." + name + "." + std::to_string(getpid()) + "-" + std::to_string(count++) +
           std::string(kTempSuffix);
}

Result<> fill(const Fd& fd, const std::string& path, std::string_view content, mode_t mode)
{
    while (!content.empty()) {
        const ssize_t written = write(fd.get(), content.data(), content.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return file_error(errno, "write", path);
        content.remove_prefix(static_cast<std::size_t>(written));
    }
    if (fchmod(fd.get(), mode) != 0) return file_error(errno, "chmod", path);
    if (fsync(fd.get()) != 0) return file_error(errno, "fsync", path);
    return Ok{};
}

} // namespace

Error file_error(int code, std::string_view operation, std::string_view path)
{
    return Error{code, std::string(operation) + " " + std::string(path) + ": " + std::strerror(code)};
}

Result<std::string> read_file(const std::string& path, std::size_t most)
{
    const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)); // a FIFO must not block the loop
    if (!fd) return file_error(errno, "open", path);
    struct stat status {};
    if (fstat(fd.get(), &status) != 0) return file_error(errno, "stat", path);
    if (!S_ISREG(status.st_mode)) return Error{EINVAL, "read " + path + ": not a regular file"};

    std::string content;
    char block[8192];
    for (;;) {
        const ssize_t got = read(fd.get(), block, sizeof(block));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return file_error(errno, "read", path);
        if (got == 0) return content;
        content.append(block, static_cast<std::size_t>(got));
        if (content.size() > most)
            return Error{EFBIG, "read " + path + ": more than " + std::to_string(most) + " bytes"};
    }
}

Result<> write_file(const std::string& path, std::string_view content, mode_t mode)
{
    const std::string temp = temp_path(path);
    Fd fd(open(temp.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    // Errors name what was asked for: a name that is new each time would make each error a new one.
    if (!fd) return file_error(errno, "create", path);
    Result<> outcome = fill(fd, path, content, mode);
    fd.reset();
    if (outcome && rename(temp.c_str(), path.c_str()) != 0) outcome = file_error(errno, "rename to", path);
    if (!outcome) {
        unlink(temp.c_str());
        return outcome;
    }
    const std::string directory = directory_of(path);
    const Fd parent(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    // The file is in place; some file systems cannot sync a directory, which costs only durability.
    if (parent && fsync(parent.get()) != 0 && errno == EIO) return file_error(EIO, "fsync", directory);
    return Ok{};
}

Result<> remove_file(const std::string& path)
{
    if (unlink(path.c_str()) != 0 && errno != ENOENT) return file_error(errno, "unlink", path);
    return Ok{};
}

Result<> make_directory(const std::string& path, mode_t mode)
{
    if (mkdir(path.c_str(), mode) != 0) {
        if (errno == EEXIST) return Ok{};
        return file_error(errno, "mkdir", path);
    }
    if (chmod(path.c_str(), mode) != 0) return file_error(errno, "chmod", path);
    return Ok{};
}

} // namespace twill
