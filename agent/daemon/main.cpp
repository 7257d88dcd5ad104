// SPDX-License-Identifier: Apache-2.0
#include <sysexits.h>

#include <csignal>
#include <cstdio>
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>

#include "agent/daemon/api_server.hpp"
#include "agent/daemon/memory.hpp"
#include "agent/daemon/metrics.hpp"
#include "agent/daemon/migrate.hpp"
#include "agent/daemon/node.hpp"
#include "agent/daemon/sd_notify.hpp"
#include "agent/daemon/stores.hpp"
#include "agent/daemon/teardown.hpp"
#include "agent/dataplane/nat_tables.hpp"

namespace twill {

namespace {

int fail(const Error& error)
{
    log::error(error.what);
    return 1;
}

Response health(bool ok, std::string_view good, std::string_view bad)
{
    return ok ? Response::text(std::string(good)) : Response::text(std::string(bad), 503);
}

/// What flannel's health server answers, the kubelet's probes ask for it; and metrics.
void serve_health(ApiServer& api, const Node& node, Metrics& metrics)
{
    api.route("GET", "/metrics", [&](const Request&) {
        Response response = Response::text(metrics.text(node.is_ready(), node.nat_capacity()));
        response.content_type = "text/plain; version=0.0.4; charset=utf-8";
        return response;
    });
    api.route("GET", "/healthz", [](const Request&) { return health(true, "flanneld is running", ""); });
    api.route("GET", "/readyz", [&node](const Request&) {
        return health(node.is_ready(), "flanneld is ready", "flanneld is not ready yet");
    });
}

/// A store that does not answer keeps no agent that is to end.
constexpr std::chrono::milliseconds kLeaveTime{2000};

/// `leave`: what follows a detach, with or without flows that are still translated.
void serve(ApiServer& api, Node& node, Metrics& metrics, const std::function<void(bool is_draining)>& leave)
{
    serve_health(api, node, metrics);
    api.route("GET", "/v1/status", [&node](const Request&) { return Response::json(to_json(node.status())); });
    api.route("GET", "/v1/peers", [&node](const Request&) { return Response::json(to_json(node.peers())); });
    api.route("GET", "/v1/endpoints", [&node](const Request&) { return Response::json(to_json(node.endpoints())); });
    api.route("GET", "/v1/migrate", [&node](const Request&) { return Response::json(node.migration()); });
    const auto detach = [&node, leave](std::chrono::seconds patience) {
        const auto done = node.detach(patience);
        if (done)
            log::info("data plane taken away", {{"flows_draining", done->draining}, {"flows_ended", done->ended}});
        else
            log::error("data plane is not wholly taken away", done.error());
        nlohmann::json body{{"detached", true}};
        if (done && done->draining != 0) body["draining"] = {{"flows", done->draining}, {"seconds", patience.count()}};
        if (done && done->ended != 0) body["ended"] = {{"flows", done->ended}};
        auto response = done ? Response::json(body.dump()) : Response::problem(500, done.error().what);
        response.after_sent = [leave, is_draining = done && done->draining != 0] { leave(is_draining); };
        return response;
    };
    api.route("POST", "/v1/detach", [&node, detach](const Request&) { return detach(node.detach_timeout()); });
    api.route("POST", "/v1/detach/now", [detach](const Request&) { return detach(std::chrono::seconds{0}); });
}

/// Runs the agent until a signal, a detach or a fatal error. Traffic goes on in all cases but detach.
int run_agent(Flags flags, const Settings& settings)
{
    const SystemClock clock;
    Loop loop;
    int status = 0;
    auto api = ApiServer::listen(loop, settings.socket_path);
    if (!api) return fail(api.error());
    auto store = open_store(settings, loop, clock);
    if (!store) return fail(store.error());
    std::unique_ptr<ApiServer> health_server;
    if (settings.healthz_port != 0) {
        auto listening = ApiServer::listen_tcp(loop, settings.healthz_ip, settings.healthz_port);
        if (!listening) return fail(listening.error());
        health_server = *std::move(listening);
    }
    Node node(loop, clock, std::move(flags), settings, *std::move(store), [&](const Error& error) {
        status = fail(error);
        loop.stop();
    });
    Timer leaving(loop);
    Metrics metrics(clock, PinDir(settings.bpf_root));
    bool is_draining = false;
    const auto leave = [&](bool drains) {
        is_draining = drains;
        node.leave([&] {
            if (!is_draining) loop.stop();
        });
        if (!drains) return leaving.once(kLeaveTime, [&loop] { loop.stop(); });
        // Whoever asks is told that no agent runs, and another one can start. Not within a request of theirs.
        leaving.once(std::chrono::milliseconds{1}, [&] {
            api->reset();
            health_server.reset();
            node.drain([&loop] { loop.stop(); });
        });
    };
    serve(**api, node, metrics, leave);
    if (health_server) serve_health(*health_server, node, metrics);
    const auto stop = [&] {
        if (is_draining) return node.end_drain();
        loop.stop();
    };
    const Signal on_term(loop, SIGTERM, stop);
    const Signal on_int(loop, SIGINT, stop);
    // Much at once, the rest when the last passes of the start and the first questions of clients are over.
    Timer trim(loop);
    trim.every(std::chrono::milliseconds{1000}, [&, seconds = 0]() mutable {
        if (!node.is_ready()) return;
        ++seconds;
        if (seconds == 1 || seconds == 5) drop_startup_memory();
        if (seconds == 5) trim.stop();
    });
    node.start();
    if (status == 0) loop.run();
    if (auto told = sd_notify("STOPPING=1"); !told) log::warn("sd_notify failed", told.error());
    if (status == 0) log::info("stopped");
    return status;
}

int run(int argc, char** argv)
{
    const std::vector<std::string> args(argv + 1, argv + argc);
    auto parsed = parse_flags(args, process_env());
    if (const auto* exit = std::get_if<FlagExit>(&parsed)) {
        std::cerr << exit->message;
        return exit->status;
    }
    auto& flags = std::get<Flags>(parsed);
    const auto settings = make_settings(flags);
    if (!settings) return fail(settings.error());
    log::init(settings->log_format, settings->log_level());
    for (const auto& warning : flags.warnings) log::warn(warning);
    if (settings->detach) {
        const auto nat = NatTables::open(PinDir(settings->bpf_root));
        const auto flows = nat ? nat->count_flows() : Result<std::size_t>(std::size_t{0});
        if (flows && *flows != 0) log::warn("masqueraded flows end", {{"flows", *flows}});
        const auto done = tear_down(settings->bpf_root, settings->overlay_name);
        return done ? 0 : fail(done.error());
    }
    if (settings->preflight) {
        std::cout << migration_json(nullptr, "", check_migration(read_migrate_input(*settings, std::nullopt))) << '\n';
        return 0;
    }
    keep_memory_low();
    std::signal(SIGPIPE, SIG_IGN);
    return run_agent(std::move(flags), *settings);
}

} // namespace

} // namespace twill

int main(int argc, char** argv)
{
    try {
        return twill::run(argc, argv);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "twilld: %s\n", error.what());
        return EX_SOFTWARE;
    }
}
