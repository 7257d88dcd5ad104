// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace twill {

/// How a flag's text is read. The wording of errors is that of Go's package flag, which flanneld uses.
enum class FlagKind : std::uint8_t {
    boolean, ///< needs no value; `-x=false` turns it off
    integer, ///< Go's ParseInt(s, 0, 64): decimal, 0x, 0o, 0b, underscores
    text,
    list ///< text, repeatable
};

/// Decides the prefix in the environment and what a bad value there costs.
enum class FlagOwner : std::uint8_t {
    flannel, ///< FLANNELD_<NAME>; a bad value is a warning, as with flanneld
    twill,   ///< TWILL_<NAME>; a bad value is fatal
};

/// One row of the flag table.
struct FlagSpec {
    std::string_view name;
    FlagKind kind = FlagKind::text;
    FlagOwner owner = FlagOwner::twill;
    std::string_view default_value; ///< as text; lists have none
    std::string_view value_name;    ///< what the usage calls the value
    std::string_view help;
};

/// Every flag of twilld: flannel's first, then twill's own.
std::span<const FlagSpec> flag_table();
/// nullptr when no such flag exists.
const FlagSpec* find_flag(std::string_view name);
/// "POD_NAME", "POD_NAMESPACE", ...: variables of flannel that no flag stands for.
std::span<const std::string_view> plain_variables();
/// "FLANNELD_SUBNET_FILE", "TWILL_BPF_ROOT".
std::string env_name(const FlagSpec& flag);

/// Where a value came from; the later enumerator wins.
enum class Origin : std::uint8_t { builtin, net_conf, environment, command_line };

/// A flag's values as text: exactly one, but for lists, which may have none or several.
struct FlagValue {
    std::vector<std::string> values;
    Origin origin = Origin::builtin;
    bool operator==(const FlagValue&) const = default;
};

/// Every flag of the table with its value. Booleans read "true" or "false", integers are decimal.
struct Flags {
    std::map<std::string, FlagValue, std::less<>> values;
    std::vector<std::string> arguments; ///< what follows the flags
    /// What flannel reads from the environment and has no flag for: see plain_variables(). Empty counts as absent.
    std::map<std::string, std::string, std::less<>> variables;
    std::vector<std::string> warnings; ///< bad values of flannel's variables: for the log
    /// The (last) value; empty for an empty list or an unknown name.
    const std::string& text(std::string_view name) const;
    bool boolean(std::string_view name) const { return text(name) == "true"; }
    std::int64_t integer(std::string_view name) const;
    /// Empty when the variable is not set.
    const std::string& variable(std::string_view name) const;
};

/// The program ends instead of running: print `message` (complete lines) to stderr, exit with `status`.
struct FlagExit {
    int status = 0;
    std::string message;
};

/// Looks up an environment variable.
using Env = std::function<std::optional<std::string>(const std::string& name)>;
/// The process's own environment.
Env process_env();

/// Parses `args` (without the program's name) as Go's package flag does, then fills in the environment and defaults.
/// -help, -version: status 0. Bad syntax: status 2 with usage. A bad TWILL_* variable: status 1.
std::variant<Flags, FlagExit> parse_flags(std::span<const std::string> args, const Env& env);

/// The usage text, one entry for each flag.
std::string flag_usage();
/// "0.1.0".
std::string_view version();

} // namespace twill
