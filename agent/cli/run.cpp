// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>

#include "agent/cli/subcommand.hpp"
#include "agent/cli/suggest.hpp"

namespace twill::cli {

namespace {

void no_options(CLI::App&, Options&) {}

void drops_options(CLI::App& app, Options& options)
{
    app.add_flag("--all", options.all, "show reasons that never happened, too");
}

void detach_options(CLI::App& app, Options& options)
{
    app.add_flag("--yes,-y", options.yes, "do not ask");
    app.add_flag("--now", options.now, "do not leave masqueraded flows to end");
    app.add_flag("--dry-run", options.dry_run, "only list what would go");
    app.add_option("--overlay-name", options.overlay_name, "overlay device, when the agent is not running")
        ->envname("TWILL_OVERLAY_NAME")
        ->capture_default_str();
}

void migrate_options(CLI::App& app, Options& options)
{
    app.add_option("action", options.migrate, "status")->check(CLI::IsMember({"status"}))->required();
}

void nat_options(CLI::App& app, Options& options)
{
    auto& nat = options.nat;
    app.add_option("action", nat.action, "list, stats or trace")
        ->check(CLI::IsMember({"list", "stats", "trace"}))
        ->required();
    app.add_option("src", nat.src, "trace: address[:port] of the sender");
    app.add_option("dst", nat.dst, "trace: address[:port] of the remote end");
    app.add_option("--pod", nat.pod, "list: only of this sender: address, prefix or address:port");
    app.add_option("--remote", nat.remote, "list: only to this remote end: address, prefix or address:port");
    app.add_option("--state", nat.state, "list: only in this state, as the table shows it");
    app.add_flag("--all", options.all, "list: flows that are over, too");
    app.add_option("--proto", nat.proto, "list: only of this protocol; trace: the packet's (default tcp)");
    app.add_option("--top", nat.top, "stats: how many remote ends to show (default 10)");
    app.add_option("--interface", nat.interface, "trace: by which it leaves (default: asks the kernel's routes)");
    app.add_option("--mark", nat.mark, "trace: the packet's mark, such as 0x4000");
}

void completion_options(CLI::App& app, Options& options)
{
    app.add_option("shell", options.shell, "bash")->capture_default_str();
}

constexpr std::array kSubcommands = {
    Subcommand{"status", "is this node's agent well: lease, wire, programs, peers, warnings",
               "twillctl status                     for a person\n"
               "twillctl status -o json | jq .lease  one object of the agent's answer",
               no_options, cmd_status},
    Subcommand{"peers", "other nodes: their pod CIDR, the path to them, traffic",
               "twillctl peers\n"
               "twillctl peers -o json | jq '.items[]|select(.mode==\"vxlan\")'",
               no_options, cmd_peers},
    Subcommand{"endpoints", "pods of this node that the programs deliver to", "twillctl endpoints", no_options,
               cmd_endpoints},
    Subcommand{"drops", "what became of packets, by reason and hook: dropped, left to the stack, forwarded",
               "twillctl drops          reasons that happened\n"
               "twillctl drops --all    every reason\n"
               "twillctl drops -o json | jq '.items[]|select(.class==\"drop\" and .packets>0)'",
               drops_options, cmd_drops},
    Subcommand{"maps", "the BPF maps: what each is, entries, capacity, memory", "twillctl maps", no_options, cmd_maps},
    Subcommand{"migrate", "from flannel: who runs which node, and what would stop a take-over of this one",
               "twillctl migrate status\n"
               "twillctl migrate status -o json | jq '.checks[]|select(.verdict==\"stop\")'",
               migrate_options, cmd_migrate},
    Subcommand{"nat", "masqueraded flows, how full their table is, and what would become of a packet",
               "twillctl nat list                                   flows that live\n"
               "twillctl nat list --remote 198.51.100.7:443 -o json  those to one remote end\n"
               "twillctl nat stats                                  fill, refusals, ports, top remote ends\n"
               "twillctl nat trace 10.42.1.5 198.51.100.7:443       which rule is for it, and which address it gets",
               nat_options, cmd_nat},
    Subcommand{"detach", "take the data plane of this node away",
               "twillctl detach --dry-run    list what would go\n"
               "twillctl detach              asks first\n"
               "twillctl detach --yes        in a script",
               detach_options, cmd_detach},
    Subcommand{"version", "versions of twillctl and of the running agent", "twillctl version", no_options, cmd_version},
    Subcommand{"completion", "completion script for a shell", "source <(twillctl completion bash)", completion_options,
               cmd_completion},
};

constexpr std::string_view kExamples = "twillctl status              is this node well?\n"
                                       "twillctl peers               how are other nodes reached?\n"
                                       "twillctl drops -o json       why were packets dropped?";

/// Help with the examples first.
class ExamplesFirst final : public CLI::Formatter {
public:
    std::string make_help(const CLI::App* app, std::string name, CLI::AppFormatMode mode) const override
    {
        std::string_view examples = kExamples;
        for (const auto& sub : kSubcommands)
            if (sub.name == app->get_name()) examples = sub.examples;
        std::string out = app->get_description() + "\n\nExamples:\n";
        while (!examples.empty()) {
            const auto end = examples.find('\n');
            out += "  " + std::string(examples.substr(0, end)) + "\n";
            examples = end == std::string_view::npos ? std::string_view{} : examples.substr(end + 1);
        }
        out += "\n" + make_usage(app, std::move(name));
        out += make_positionals(app);
        out += make_groups(app, mode);
        out += make_subcommands(app, mode);
        out += make_footer(app);
        return out;
    }
};

void build(CLI::App& app, Options& options)
{
    app.formatter(std::make_shared<ExamplesFirst>());
    app.option_defaults()->always_capture_default();
    app.set_help_flag("-h,--help", "print this and exit");
    app.add_option("--socket", options.socket, "unix socket of the agent")->envname("TWILL_SOCKET");
    app.add_option("--bpf-root", options.bpf_root, "where the maps are pinned")->envname("TWILL_BPF_ROOT");
    app.add_option("-o,--output", options.output, "form of the output")->check(CLI::IsMember({"table", "json"}));
    app.add_flag("--no-headers", options.no_headers, "tables without the line of titles");
    app.footer("\nExit status: 0 ok, 1 failure or unhealthy, 2 usage, 3 agent unreachable, 4 not found, 5 degraded.\n"
               "See twillctl(1).");
    app.require_subcommand(0, 1);
    app.fallthrough(); // global options may stand behind the subcommand
    for (const auto& sub : kSubcommands) {
        CLI::App* parser = app.add_subcommand(std::string(sub.name), std::string(sub.help));
        sub.add_options(*parser, options);
    }
    CLI::App* help = app.add_subcommand("help", "the help of a subcommand");
    help->allow_extras()->fallthrough(false);
}

/// The first word of `args` that is neither an option nor a value of a global one.
std::string first_word(const std::vector<std::string>& args)
{
    constexpr std::array<std::string_view, 4> kTakeValue = {"--socket", "--bpf-root", "-o", "--output"};
    for (std::size_t i = 0; i < args.size(); ++i) {
        if (std::ranges::find(kTakeValue, args[i]) != kTakeValue.end())
            ++i;
        else if (!args[i].starts_with('-'))
            return args[i];
    }
    return "";
}

bool is_subcommand(std::string_view word)
{
    return word == "help" || std::ranges::find(kSubcommands, word, &Subcommand::name) != kSubcommands.end();
}

int unknown_subcommand(const std::string& word, std::ostream& err)
{
    std::vector<std::string_view> names;
    names.reserve(kSubcommands.size());
    for (const auto& sub : kSubcommands) names.push_back(sub.name);
    err << "twillctl: unknown subcommand \"" << word << "\"";
    if (const auto near = nearest(word, names); !near.empty()) err << ": did you mean \"" << near << "\"?";
    err << "\nSee twillctl --help.\n";
    return static_cast<int>(Exit::usage);
}

/// `twillctl help [SUBCOMMAND]`.
int print_help(CLI::App& app, const std::vector<std::string>& words, std::ostream& out, std::ostream& err)
{
    if (words.empty()) {
        out << app.help();
        return 0;
    }
    if (!is_subcommand(words.front())) return unknown_subcommand(words.front(), err);
    out << app.get_subcommand(words.front())->help(app.get_name());
    return 0;
}

/// Runs the chosen subcommand.
int dispatch(CLI::App& app, const Options& options, std::ostream& out, std::ostream& err, const Machine& machine)
{
    const std::string name = app.get_subcommands().front()->get_name();
    const auto maps = machine.maps(options.bpf_root);
    const Api api = machine.api(options.socket);
    const Env env{options, machine, *maps, api, out, err, app};
    return static_cast<int>(std::ranges::find(kSubcommands, name, &Subcommand::name)->run(env));
}

} // namespace

std::span<const Subcommand> subcommands() { return kSubcommands; }

int run(const std::vector<std::string>& args, std::ostream& out, std::ostream& err, const Machine& machine)
{
    Options options;
    CLI::App app{"twillctl looks into twill, the BPF overlay of this node.", "twillctl"};
    build(app, options);
    const std::string word = first_word(args);
    if (!word.empty() && !is_subcommand(word)) return unknown_subcommand(word, err);
    try {
        std::vector<std::string> reversed(args.rbegin(), args.rend()); // CLI11 wants its vector so
        app.parse(reversed);
    } catch (const CLI::CallForHelp&) {
        const auto chosen = app.get_subcommands();
        out << (chosen.empty() ? app.help() : chosen.front()->help(app.get_name()));
        return 0;
    } catch (const CLI::ParseError& error) {
        err << "twillctl: " << error.what() << "\nSee twillctl --help.\n";
        return static_cast<int>(Exit::usage);
    }
    const auto chosen = app.get_subcommands();
    if (chosen.empty()) {
        err << app.help();
        return static_cast<int>(Exit::usage);
    }
    if (chosen.front()->get_name() == "help") return print_help(app, chosen.front()->remaining(), out, err);
    return dispatch(app, options, out, err, machine);
}

} // namespace twill::cli
