// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "agent/cli/api_client.hpp"
#include "agent/cli/map_reader.hpp"
#include "agent/cli/table.hpp"
#include "twill/ip.hpp"
#include "twill/result.hpp"

namespace CLI {
class App;
}

namespace twill::cli {

using Json = nlohmann::ordered_json;

/// Exit status of twillctl; documented in twillctl(1).
enum class Exit : std::uint8_t { ok = 0, failure = 1, usage = 2, unreachable = 3, not_found = 4, degraded = 5 };

/// What the command line says.
struct Options {
    std::string socket = "/run/twill/twill.sock";
    std::string bpf_root = "/sys/fs/bpf/twill";
    std::string output = "table";
    bool no_headers = false;
    bool all = false;                    ///< drops --all, nat list --all
    bool yes = false;                    ///< detach --yes
    bool now = false;                    ///< detach --now
    bool dry_run = false;                ///< detach --dry-run
    std::string overlay_name = "twill0"; ///< detach --overlay-name
    std::string shell = "bash";          ///< completion SHELL
    std::string migrate = "status";      ///< migrate ACTION
    struct Nat {
        std::string action;                    ///< nat ACTION
        std::string src, dst;                  ///< nat trace SRC DST
        std::string pod, remote, proto, state; ///< nat list --pod ..., and --proto of trace
        std::string interface;                 ///< nat trace --interface
        std::string mark;                      ///< nat trace --mark
        std::string top;                       ///< nat stats --top
    } nat;
    bool wants_json() const { return output == "json"; }
};

/// By which interface a packet leaves; `is_local`: it does not, its destination is this node itself.
struct WayOut {
    std::uint32_t ifindex = 0;
    bool is_local = false;
};

/// The world outside of twillctl; tests have their own.
struct Machine {
    std::function<std::unique_ptr<MapReader>(const std::string& bpf_root)> maps;
    std::function<Api(const std::string& socket_path)> api;
    std::function<std::string(std::uint32_t ifindex)> interface_name;      ///< empty: no such interface
    std::function<std::uint32_t(const std::string& name)> interface_index; ///< 0: no such interface
    std::function<std::uint32_t()> now;                                    ///< CLOCK_MONOTONIC, seconds
    /// How the kernel would forward a packet from `src`, or send it if that is its own. nullopt: it would not.
    std::function<Result<std::optional<WayOut>>(const Ip& src, const Ip& dst)> way_out;
    std::function<std::optional<bool>(const std::string& question)> confirm;  ///< nullopt: nobody to ask
    std::function<int(const std::vector<std::string>& command)> exec;         ///< does not return, or a positive errno
    std::function<std::vector<std::string>(const std::string& dir)> list_dir; ///< names, sorted; empty if absent
    /// What it printed when it ended with 0; its messages go to ours.
    std::function<Result<std::string>(const std::vector<std::string>& command)> output;
};
/// This machine.
Machine real_machine();

/// What a subcommand works with. Data goes to `out`, messages to `err`.
struct Env {
    const Options& options;
    const Machine& machine;
    MapReader& maps;
    const Api& api;
    std::ostream& out;
    std::ostream& err;
    CLI::App& app;
};

/// One row of the table in main.cpp's library: name, one line of help, examples, what it adds to the parser, body.
struct Subcommand {
    std::string_view name;
    std::string_view help;
    std::string_view examples; ///< lines "command   what it does"
    void (*add_options)(CLI::App& app, Options& options);
    Exit (*run)(const Env& env);
};
std::span<const Subcommand> subcommands();

Exit cmd_status(const Env& env);
Exit cmd_peers(const Env& env);
Exit cmd_endpoints(const Env& env);
Exit cmd_drops(const Env& env);
Exit cmd_maps(const Env& env);
Exit cmd_migrate(const Env& env);
Exit cmd_nat(const Env& env);
Exit cmd_detach(const Env& env);
Exit cmd_version(const Env& env);
Exit cmd_completion(const Env& env);

/// Parses `args` (without the program's name), runs the subcommand and returns the exit status.
int run(const std::vector<std::string>& args, std::ostream& out, std::ostream& err, const Machine& machine);

/// Prints "twillctl: <what>" and returns `exit`.
Exit fail(const Env& env, Exit exit, std::string_view what);
/// The same with the exit status that an error of a map means: not_found for ENOENT.
Exit fail_map(const Env& env, const Error& error);
/// Pretty JSON and a newline. Bytes that are no UTF-8 become U+FFFD.
void print_json(const Env& env, const Json& value);
/// "eth0 (2)"; "(2)" if there is no such interface any more, "-" for 0.
std::string show_interface(const Env& env, std::uint32_t ifindex);
/// {"items": [...]}.
Json items(Json list);

// Readers of an answer that another version may have written: what is missing or of another type reads as empty.
const Json& member(const Json& object, const char* key);
std::string text(const Json& object, const char* key);
bool flag(const Json& object, const char* key);
std::uint64_t number(const Json& object, const char* key);
/// The texts of a list with blanks between, or `none`.
std::string joined(const Json& list, const char* none);

/// The objects of such a list, as the agent tells it. EPROTO: it answered something else.
Result<std::vector<Json>> ask_items(const Env& env, const std::string& path);

/// Rows as the maps tell them, or, on the kernel overlay, where there are none, as the agent does. IPv4 comes first: as
/// bytes an IPv4-mapped address sorts among the IPv6 ones.
template <typename Row, typename Key>
Result<std::vector<Row>> from_maps_or_agent(const Env& env, Result<std::vector<Row>> (*read_maps)(const Env&),
                                            Result<std::vector<Row>> (*ask)(const Env&), Key Row::*key)
{
    auto rows = read_maps(env);
    if (!rows && rows.error().code == ENOENT)
        if (auto asked = ask(env)) rows = std::move(asked);
    if (!rows) return rows;
    std::ranges::sort(*rows, [key](const Row& a, const Row& b) {
        return std::pair((a.*key).family(), a.*key) < std::pair((b.*key).family(), b.*key);
    });
    return rows;
}

} // namespace twill::cli
