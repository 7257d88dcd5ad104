// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "agent/cli/subcommand.hpp"

namespace twill::cli {

/// Maps in memory; a map that is not there is ENOENT, as with the kernel.
class FakeMaps final : public MapReader {
public:
    struct Map {
        MapInfo info;
        std::vector<Entry> entries;
    };
    std::map<std::string, Map> maps;
    std::optional<tw_cfg> cfg;

    template <typename K, typename V>
    void put(const std::string& map, const K& key, const V& value)
    {
        maps[map].info.name = map;
        maps[map].entries.push_back({bytes_of(key), bytes_of(value)});
    }

    Result<std::vector<std::string>> names() override
    {
        if (maps.empty()) return absent("maps");
        std::vector<std::string> out;
        for (const auto& [name, map] : maps) out.push_back(name);
        return out;
    }
    Result<MapInfo> info(const std::string& map) override
    {
        if (!maps.contains(map)) return absent(map);
        return maps[map].info;
    }
    Result<std::vector<Entry>> entries(const std::string& map) override
    {
        if (!maps.contains(map)) return absent(map);
        return maps[map].entries;
    }
    Result<std::optional<Bytes>> lookup(const std::string& map, const Bytes& key) override
    {
        if (!maps.contains(map)) return absent(map);
        for (const auto& entry : maps[map].entries)
            if (entry.key == key) return std::optional<Bytes>{entry.value};
        return std::optional<Bytes>{};
    }

    Result<tw_cfg> config() override
    {
        if (!cfg) return absent("a program");
        return *cfg;
    }

private:
    static Error absent(const std::string& map) { return {ENOENT, "no twill data plane: " + map + " does not exist"}; }
};

/// twillctl in a box: what it says, how it ends, what it asked of the world.
struct Ctl {
    FakeMaps maps;
    Api api = [](const std::string&, const std::string&) -> Result<HttpReply> {
        return Error{ECONNREFUSED, "socket /s: Connection refused"};
    };
    std::optional<bool> answer; ///< what the person at the terminal says; nullopt: there is none
    std::uint32_t now = 1000;
    std::optional<WayOut> way_out = WayOut{2, false};
    std::string asked;
    std::vector<std::string> executed;
    std::string printed; ///< by what is executed; empty: it is not there
    std::map<std::string, std::vector<std::string>> dirs;
    std::string root;
    std::string socket;
    std::string out;
    std::string err;

    int run(const std::vector<std::string>& args)
    {
        Machine machine;
        machine.maps = [this](const std::string& bpf_root) {
            root = bpf_root;
            auto copy = std::make_unique<FakeMaps>();
            copy->maps = maps.maps;
            copy->cfg = maps.cfg;
            return copy;
        };
        machine.api = [this](const std::string& path) {
            socket = path;
            return api;
        };
        machine.interface_name = [](std::uint32_t ifindex) { return ifindex == 2 ? "eth0" : ""; };
        machine.interface_index = [](const std::string& name) { return name == "eth0" ? 2U : 0U; };
        machine.now = [this] { return now; };
        machine.way_out = [this](const Ip&, const Ip&) -> Result<std::optional<WayOut>> { return way_out; };
        machine.confirm = [this](const std::string& question) {
            asked = question;
            return answer;
        };
        machine.exec = [this](const std::vector<std::string>& command) {
            executed = command;
            return 0;
        };
        machine.output = [this](const std::vector<std::string>& command) -> Result<std::string> {
            executed = command;
            if (printed.empty()) return Error{ENOENT, "twilld is not there"};
            return printed;
        };
        machine.list_dir = [this](const std::string& dir) { return dirs[dir]; };
        std::ostringstream out_stream;
        std::ostringstream err_stream;
        const int status = cli::run(args, out_stream, err_stream, machine);
        out = out_stream.str();
        err = err_stream.str();
        return status;
    }
    Json json() const { return Json::parse(out); }
};

} // namespace twill::cli
