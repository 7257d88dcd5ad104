// SPDX-License-Identifier: Apache-2.0
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <iostream>
#include <system_error>

#include "agent/cli/subcommand.hpp"

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
            confirm,
            exec,
            list_dir};
}

} // namespace twill::cli
