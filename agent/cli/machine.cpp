// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <net/if.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <iostream>
#include <system_error>
#include <utility>

#include "agent/cli/subcommand.hpp"
#include "agent/nl/route.hpp"
#include "twill/fd.hpp"

namespace twill::cli {

namespace {

std::string interface_name(std::uint32_t ifindex)
{
    std::array<char, IF_NAMESIZE> name{};
    return if_indextoname(ifindex, name.data()) == nullptr ? std::string{} : std::string(name.data());
}

/// Only a person at a terminal can be asked; anything but y or yes is no.
std::optional<bool> confirm(const std::string& question)
{
    if (isatty(STDIN_FILENO) == 0 || isatty(STDERR_FILENO) == 0) return std::nullopt;
    std::cerr << question << " [y/N] " << std::flush;
    std::string answer;
    std::getline(std::cin, answer);
    return answer == "y" || answer == "Y" || answer == "yes";
}

/// Reads until the command closes its output, then its end.
Result<std::string> read_output(Fd from, pid_t child, const std::string& name)
{
    std::string text;
    std::array<char, 4096> buffer{};
    for (ssize_t got = 0; (got = ::read(from.get(), buffer.data(), buffer.size())) != 0;) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) break;
        text.append(buffer.data(), static_cast<std::size_t>(got));
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return Error{ENOENT, name + " is not there"};
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return Error{EIO, name + " failed"};
    return text;
}

/// The program beside this one is preferred to the one in PATH: they are of one version.
int exec(const std::vector<std::string>& command)
{
    std::vector<std::string> words = command;
    std::vector<char*> argv;
    argv.reserve(words.size() + 1);
    for (auto& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    std::error_code failed;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", failed);
    if (!failed) {
        const auto beside = self.parent_path() / words[0];
        execv(beside.c_str(), argv.data());
        if (errno != ENOENT) return errno;
    }
    execvp(words[0].c_str(), argv.data());
    return errno;
}

Result<std::string> output(const std::vector<std::string>& command)
{
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) return Error{errno, "pipe"};
    Fd from{ends[0]};
    Fd to{ends[1]};
    const pid_t child = fork();
    if (child < 0) return Error{errno, "fork"};
    if (child == 0) {
        dup2(to.get(), STDOUT_FILENO);
        exec(command);
        _exit(127);
    }
    to = Fd{};
    return read_output(std::move(from), child, command.front());
}

/// The clock that the programs read (bpf_ktime_get_ns).
std::uint32_t monotonic_seconds()
{
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint32_t>(now.tv_sec);
}

/// What is not ours comes in by the interface that leads back to it.
Result<std::optional<WayOut>> way_out(const Ip& src, const Ip& dst)
{
    TWILL_TRY_AS(socket, nl::Socket::open());
    TWILL_TRY_AS(back, nl::lookup(socket, src));
    std::optional<nl::RouteLookup> found;
    if (back && back->type != nl::kRouteLocal) {
        TWILL_TRY_AS(forwarded, nl::lookup_forwarded(socket, dst, src, back->ifindex));
        found = forwarded;
    } else {
        TWILL_TRY_AS(sent, nl::lookup(socket, dst));
        found = sent;
    }
    if (!found) return std::optional<WayOut>{};
    return std::optional(WayOut{static_cast<std::uint32_t>(found->ifindex.value), found->type == nl::kRouteLocal});
}

std::vector<std::string> list_dir(const std::string& dir)
{
    std::error_code failed;
    std::vector<std::string> names;
    for (std::filesystem::directory_iterator it(dir, failed), end; !failed && it != end; it.increment(failed))
        names.push_back(it->path().filename().string());
    std::ranges::sort(names);
    return names;
}

} // namespace

Machine real_machine()
{
    return {[](const std::string& root) { return std::make_unique<PinnedMaps>(root); },
            [](const std::string& socket) { return unix_api(socket); },
            interface_name,
            [](const std::string& name) { return static_cast<std::uint32_t>(if_nametoindex(name.c_str())); },
            monotonic_seconds,
            way_out,
            confirm,
            exec,
            list_dir,
            output};
}

} // namespace twill::cli
