// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/flags.hpp"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "twill/result.hpp"

namespace twill {

namespace {

std::string quote(std::string_view text)
{
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
    return out + '"';
}

/// Go's strconv.ParseBool.
std::optional<bool> parse_go_bool(std::string_view text)
{
    constexpr std::array<std::string_view, 6> kTrue = {"1", "t", "T", "true", "TRUE", "True"};
    constexpr std::array<std::string_view, 6> kFalse = {"0", "f", "F", "false", "FALSE", "False"};
    if (std::ranges::find(kTrue, text) != kTrue.end()) return true;
    if (std::ranges::find(kFalse, text) != kFalse.end()) return false;
    return std::nullopt;
}

/// Removes the underscores that a Go integer literal may have: between digits, or behind the base's prefix.
std::optional<std::string> without_underscores(std::string_view digits, bool has_prefix)
{
    std::string out;
    char previous = has_prefix ? '0' : '_';
    for (const char c : digits) {
        if (c == '_' && previous == '_') return std::nullopt;
        if (c != '_') out += c;
        previous = c;
    }
    if (previous == '_') return std::nullopt;
    return out;
}

/// Go's strconv.ParseInt(text, 0, 64); the error is the end of Go's message.
Result<std::int64_t> parse_go_int(std::string_view text)
{
    const Error bad{EINVAL, "parse error"};
    std::string sign;
    if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
        if (text[0] == '-') sign = "-";
        text.remove_prefix(1);
    }
    int base = 10;
    bool has_prefix = false;
    if (text.size() > 1 && text[0] == '0') {
        const char letter = static_cast<char>(std::tolower(static_cast<unsigned char>(text[1])));
        base = letter == 'x' ? 16 : letter == 'b' ? 2 : 8;
        has_prefix = true;
        text.remove_prefix(letter == 'x' || letter == 'b' || letter == 'o' ? 2 : 1);
    }
    const auto digits = without_underscores(text, has_prefix);
    if (!digits || digits->empty() || digits->front() == '-') return bad;
    const std::string all = sign + *digits;
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value, base);
    if (error == std::errc::result_out_of_range) return Error{ERANGE, "value out of range"};
    if (error != std::errc{} || end != all.data() + all.size()) return bad;
    return value;
}

/// The value as Flags holds it; the error reads as package flag's.
Result<std::string> normalise(const FlagSpec& flag, const std::string& value)
{
    const std::string name{flag.name};
    if (flag.kind == FlagKind::boolean) {
        const auto parsed = parse_go_bool(value);
        if (!parsed) return Error{EINVAL, "invalid boolean value " + quote(value) + " for -" + name + ": parse error"};
        return std::string(*parsed ? "true" : "false");
    }
    if (flag.kind == FlagKind::integer) {
        const auto parsed = parse_go_int(value);
        if (!parsed)
            return Error{EINVAL, "invalid value " + quote(value) + " for flag -" + name + ": " + parsed.error().what};
        return std::to_string(*parsed);
    }
    return value;
}

FlagExit usage_error(const std::string& what) { return {2, what + "\n" + flag_usage()}; }

/// Requests for something else than running: not taken from the environment.
bool is_command(std::string_view name) { return name == "version" || name == "detach" || name == "preflight"; }

/// One pass over the command line, in the order of Go's FlagSet.parseOne.
std::optional<FlagExit> parse_command_line(std::span<const std::string> args, Flags& flags)
{
    std::size_t next = 0;
    while (next < args.size()) {
        const std::string& arg = args[next];
        if (arg.size() < 2 || arg[0] != '-') break;
        ++next;
        if (arg == "--") break;
        std::string name = arg.substr(arg[1] == '-' ? 2 : 1);
        if (name[0] == '-' || name[0] == '=') return usage_error("bad flag syntax: " + arg);
        std::optional<std::string> value;
        if (const auto equals = name.find('='); equals != std::string::npos) {
            value = name.substr(equals + 1);
            name.resize(equals);
        }
        const FlagSpec* flag = find_flag(name);
        if (flag == nullptr) {
            if (name == "help" || name == "h") return FlagExit{0, flag_usage()};
            return usage_error("flag provided but not defined: -" + name);
        }
        if (!value && flag->kind == FlagKind::boolean) value = "true";
        if (!value && next < args.size()) value = args[next++];
        if (!value) return usage_error("flag needs an argument: -" + name);
        auto text = normalise(*flag, *value);
        if (!text) return usage_error(text.error().what);

        FlagValue& held = flags.values[name];
        if (flag->kind != FlagKind::list) held.values.clear();
        held.values.push_back(*std::move(text));
        held.origin = Origin::command_line;
    }
    flags.arguments.assign(args.begin() + static_cast<std::ptrdiff_t>(next), args.end());
    return std::nullopt;
}

/// An empty variable counts as absent, as with flanneld.
std::optional<FlagExit> read_environment(const Env& env, Flags& flags)
{
    for (const FlagSpec& flag : flag_table()) {
        FlagValue& held = flags.values[std::string(flag.name)];
        if (held.origin == Origin::command_line || is_command(flag.name)) continue;
        const std::string name = env_name(flag);
        const auto value = env(name);
        if (!value || value->empty()) continue;
        auto text = normalise(flag, *value);
        if (text) {
            held = {{*std::move(text)}, Origin::environment};
            continue;
        }
        const std::string_view allowed = flag.kind == FlagKind::boolean ? "true, false" : "a whole number";
        const std::string why = "environment " + name + " " + quote(*value) + ": allowed: " + std::string(allowed);
        if (flag.owner == FlagOwner::twill) return FlagExit{1, "twilld: " + why + "\n"};
        flags.warnings.push_back(why + "; ignored");
    }
    for (const auto name : plain_variables())
        if (const auto value = env(std::string(name)); value && !value->empty())
            flags.variables.insert_or_assign(std::string(name), *value);
    constexpr std::string_view kDepth = "EVENT_QUEUE_DEPTH";
    if (const auto& depth = flags.variable(kDepth); !depth.empty() && !parse_go_int(depth))
        flags.warnings.push_back("environment " + std::string(kDepth) + " " + quote(depth) +
                                 ": allowed: a whole number; ignored, twilld has no such queue");
    return std::nullopt;
}

} // namespace

const FlagSpec* find_flag(std::string_view name)
{
    const auto table = flag_table();
    const auto found = std::ranges::find(table, name, &FlagSpec::name);
    return found == table.end() ? nullptr : &*found;
}

std::string env_name(const FlagSpec& flag)
{
    std::string name = flag.owner == FlagOwner::flannel ? "FLANNELD_" : "TWILL_";
    for (const char c : flag.name)
        name += c == '-' || c == '.' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return name;
}

const std::string& Flags::text(std::string_view name) const
{
    static const std::string kEmpty;
    const auto found = values.find(name);
    return found == values.end() || found->second.values.empty() ? kEmpty : found->second.values.back();
}

std::int64_t Flags::integer(std::string_view name) const
{
    const auto parsed = parse_go_int(text(name));
    return parsed ? *parsed : 0;
}

const std::string& Flags::variable(std::string_view name) const
{
    static const std::string kEmpty;
    const auto found = variables.find(name);
    return found == variables.end() ? kEmpty : found->second;
}

Env process_env()
{
    return [](const std::string& name) -> std::optional<std::string> {
        const char* value = std::getenv(name.c_str());
        if (value == nullptr) return std::nullopt;
        return std::string(value);
    };
}

std::variant<Flags, FlagExit> parse_flags(std::span<const std::string> args, const Env& env)
{
    Flags flags;
    for (const FlagSpec& flag : flag_table()) {
        FlagValue& held = flags.values[std::string(flag.name)];
        if (flag.kind != FlagKind::list) held.values.emplace_back(flag.default_value);
    }
    if (auto exit = parse_command_line(args, flags)) return *std::move(exit);
    if (flags.boolean("version")) return FlagExit{0, "twilld " + std::string(version()) + "\n"};
    if (auto exit = read_environment(env, flags)) return *std::move(exit);

    FlagValue& node = flags.values["node"];
    if (node.origin == Origin::builtin)
        if (const auto name = env("NODE_NAME"); name && !name->empty()) node = {{*name}, Origin::environment};
    if (!flags.arguments.empty())
        flags.warnings.push_back("argument " + quote(flags.arguments.front()) +
                                 " is no flag: it and all that follows is ignored");
    return flags;
}

std::string flag_usage()
{
    std::string out = "Usage: twilld [flags]\n";
    auto owner = FlagOwner::twill;
    for (const FlagSpec& flag : flag_table()) {
        if (flag.owner != owner || &flag == flag_table().data()) {
            owner = flag.owner;
            out += owner == FlagOwner::flannel ? "\nflannel's flags (environment FLANNELD_<NAME>):\n"
                                               : "\ntwill's own flags (environment TWILL_<NAME>):\n";
        }
        out += "  -" + std::string(flag.name);
        if (!flag.value_name.empty()) out += " " + std::string(flag.value_name);
        out += "\n    \t" + std::string(flag.help);
        const bool is_plain = flag.kind == FlagKind::boolean && flag.default_value == "false";
        if (!flag.default_value.empty() && !is_plain) out += " (default " + std::string(flag.default_value) + ")";
        out += "\n";
    }
    return out;
}

std::string_view version() { return TWILL_VERSION; }

} // namespace twill
