// SPDX-License-Identifier: Apache-2.0
// tw-interop-diff: the same packets through the kernel's vxlan and through twill. diff.sh makes the worlds.
#include <sched.h>

#include <charconv>
#include <cstdio>
#include <string>
#include <vector>

#include "tests/interop/compare.hpp"
#include "tests/interop/packets.hpp"

namespace twill::interop {
namespace {

struct Options {
    Comparison::Settings settings;
    std::string title;
    std::uint64_t seed = 1, first = 0, packets = 0;
    bool is_table = false;
};

constexpr char kUsage[] = "usage: tw-interop-diff --lab NAME --pins DIRECTORY --title TEXT [--offload]\n"
                          "         [--table] [--packets N [--seed N] [--first INDEX]] [--failures N] [--verbose]\n";

Result<Options> parse(const std::vector<std::string>& args)
{
    Options options;
    const auto number = [](const std::string& text, auto& out) -> Result<> {
        const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
        if (ec != std::errc{} || end != text.data() + text.size()) return Error{EINVAL, text + ": a number"};
        return Ok{};
    };
    for (std::size_t i = 0; i < args.size(); ++i) {
        const std::string& flag = args[i];
        if (flag == "--offload") {
            options.settings.is_offloaded = true;
            continue;
        }
        if (flag == "--verbose") {
            options.settings.is_verbose = true;
            continue;
        }
        if (flag == "--table") {
            options.is_table = true;
            continue;
        }
        if (i + 1 == args.size()) return Error{EINVAL, flag + ": no such option, or its value is missing"};
        const std::string& value = args[++i];
        if (flag == "--lab")
            options.settings.lab = value;
        else if (flag == "--pins")
            options.settings.bpf_roots = value;
        else if (flag == "--title")
            options.title = value;
        else if (flag == "--packets")
            TWILL_TRY(number(value, options.packets));
        else if (flag == "--seed")
            TWILL_TRY(number(value, options.seed));
        else if (flag == "--first")
            TWILL_TRY(number(value, options.first));
        else if (flag == "--failures")
            TWILL_TRY(number(value, options.settings.max_failures));
        else
            return Error{EINVAL, flag + ": no such option"};
    }
    if (options.settings.lab.empty() || options.settings.bpf_roots.empty())
        return Error{EINVAL, "--lab and --pins are needed"};
    return options;
}

/// Packets keep their order only on one CPU.
void stay_on_this_cpu()
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<std::size_t>(::sched_getcpu()), &set);
    (void)::sched_setaffinity(0, sizeof(set), &set);
}

Result<unsigned> run(const Options& options)
{
    stay_on_this_cpu();
    TWILL_TRY_AS(comparison, Comparison::open(options.settings));
    if (options.is_table)
        for (const auto& packet : table(options.settings.is_offloaded)) {
            TWILL_TRY(comparison.run(packet));
            if (comparison.has_failed_enough()) break;
        }
    std::uint64_t sent = 0;
    for (std::uint64_t index = options.first; sent < options.packets && !comparison.has_failed_enough(); ++index)
        for (const auto& packet : random_packets(options.seed, index, options.settings.is_offloaded)) {
            TWILL_TRY(comparison.run(packet));
            ++sent;
        }
    comparison.print(options.title.c_str());
    return comparison.failures();
}

} // namespace
} // namespace twill::interop

int main(int argc, char** argv)
{
    using namespace twill::interop;
    const auto options = parse({argv + 1, argv + argc});
    if (!options) {
        std::fprintf(stderr, "tw-interop-diff: %s\n%s", options.error().what.c_str(), kUsage);
        return 2;
    }
    const auto failures = run(*options);
    if (!failures) {
        std::fprintf(stderr, "tw-interop-diff: %s\n", failures.error().what.c_str());
        return 1;
    }
    return *failures == 0 ? 0 : 1;
}
