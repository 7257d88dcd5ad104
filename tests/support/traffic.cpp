// SPDX-License-Identifier: Apache-2.0
// Command line of tw-traffic.
#include "tests/support/traffic.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

namespace twill::traffic {

namespace {

constexpr std::string_view kUsage =
    R"(usage: tw-traffic COMMAND ADDRESS PORT [options]

servers (run until SIGINT or SIGTERM; --background: return once bound, print the pid):
  server       tcp-server and udp-server in one
  tcp-server   sink that answers with the checksum of the stream, and request/response
  udp-server   echoes probes, checks segments

clients:
  tcp-client   send a pseudo-random stream, compare the checksum     --bytes N | --seconds S | --until-signal
  tcp-rr       64-byte request and response, round-trip percentiles  --seconds S | --until-signal
  tcp-quiet    a connection on which nobody speaks until a tcp-wake; then the server does
  tcp-wake     ends the silence of the server's tcp-quiet connections
  tcp-upload   a paced stream, SHA-256 compared                      --mbit N (8) --bytes N | --until-signal
  tcp-download the same from the server to here
  udp-flood    numbered datagrams at a rate, echoed                  --rate PPS --size B --seconds S | --until-signal
  ping-storm   one datagram at a time, as fast as they come back     --size B --seconds S | --until-signal
  udp-gso      UDP_SEGMENT super-packets of checksummed segments     --bytes N --size B

options: --seed N  --timeout S (10)  --max-lost N (0)  --json
exit code: 0 complete and intact, 1 lost, damaged or failed, 2 usage
)";

template <typename T>
Result<Ok> parse_number(std::string_view flag, std::string_view text, T& out)
{
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), out);
    if (ec != std::errc{} || end != text.data() + text.size())
        return Error{EINVAL, std::string(flag) + " " + std::string(text) + ": a number"};
    return Ok{};
}

Result<Ok> parse_option(std::string_view flag, std::string_view value, Options& options)
{
    if (flag == "--bytes") return parse_number(flag, value, options.bytes);
    if (flag == "--seed") return parse_number(flag, value, options.seed);
    if (flag == "--rate") return parse_number(flag, value, options.rate_pps);
    if (flag == "--mbit") return parse_number(flag, value, options.mbit);
    if (flag == "--seconds") return parse_number(flag, value, options.seconds);
    if (flag == "--size") return parse_number(flag, value, options.size_bytes);
    if (flag == "--timeout") return parse_number(flag, value, options.timeout_s);
    if (flag == "--max-lost") return parse_number(flag, value, options.max_lost);
    return Error{EINVAL, std::string(flag) + ": no such option"};
}

Result<Options> parse(const std::vector<std::string>& args)
{
    if (args.size() < 3) return Error{EINVAL, "command, address and port are required"};
    Options options;
    options.command = args[0];
    options.address = args[1];
    TWILL_TRY(parse_number("port", args[2], options.port));
    for (std::size_t i = 3; i < args.size(); ++i) {
        if (args[i] == "--until-signal")
            options.until_signal = true;
        else if (args[i] == "--json")
            options.json = true;
        else if (args[i] == "--background")
            options.background = true;
        else if (i + 1 < args.size()) {
            TWILL_TRY(parse_option(args[i], args[i + 1], options));
            ++i;
        } else
            return Error{EINVAL, args[i] + ": no such option, or its value is missing"};
    }
    return options;
}

/// The parent prints the child's pid and ends; the child goes on without the caller's output.
void move_to_background()
{
    const pid_t child = ::fork();
    if (child < 0) {
        std::perror("tw-traffic: fork");
        ::_exit(1);
    }
    if (child > 0) {
        std::printf("%d\n", static_cast<int>(child));
        std::fflush(stdout);
        ::_exit(0);
    }
    ::setsid();
    const int null = ::open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
}

Result<int> serve(const Options& options, bool tcp, bool udp)
{
    Fd listener, socket;
    if (tcp) {
        TWILL_TRY_AS(fd, bind_to(options, SOCK_STREAM));
        listener = std::move(fd);
    }
    if (udp) {
        TWILL_TRY_AS(fd, bind_to(options, SOCK_DGRAM));
        socket = std::move(fd);
    }
    if (options.background)
        move_to_background();
    else
        std::fputs("listening\n", stdout), std::fflush(stdout);
    if (!tcp) {
        serve_udp(socket);
        return 0;
    }
    std::thread udp_thread;
    if (udp) udp_thread = std::thread([&] { serve_udp(socket); });
    serve_tcp(listener);
    if (udp) udp_thread.join();
    std::fflush(stdout);
    ::_exit(0); // open connections have threads of their own
}

Result<int> run(const Options& options)
{
    using Client = Result<int> (*)(const Options&);
    struct Row {
        std::string_view name;
        Client client;
    };
    constexpr std::array kClients = {
        Row{"tcp-client", tcp_client}, Row{"tcp-rr", tcp_rr},         Row{"tcp-quiet", tcp_quiet},
        Row{"tcp-wake", tcp_wake},     Row{"tcp-upload", tcp_upload}, Row{"tcp-download", tcp_download},
        Row{"udp-flood", udp_flood},   Row{"ping-storm", ping_storm}, Row{"udp-gso", udp_gso}};
    for (const Row& row : kClients)
        if (options.command == row.name) return row.client(options);
    if (options.command == "server") return serve(options, true, true);
    if (options.command == "tcp-server") return serve(options, true, false);
    if (options.command == "udp-server") return serve(options, false, true);
    return Error{EINVAL, options.command + ": no such command"};
}

} // namespace

} // namespace twill::traffic

int main(int argc, char** argv)
{
    using namespace twill::traffic;
    const std::vector<std::string> args{argv + 1, argv + argc};
    if (!args.empty() && (args[0] == "help" || args[0] == "-h" || args[0] == "--help")) {
        std::fwrite(kUsage.data(), 1, kUsage.size(), stdout);
        return 0;
    }
    const auto options = parse(args);
    if (!options) {
        std::fprintf(stderr, "tw-traffic: %s\n%.*s", options.error().what.c_str(), static_cast<int>(kUsage.size()),
                     kUsage.data());
        return 2;
    }
    catch_signals();
    const auto code = run(*options);
    if (code) return *code;
    std::fprintf(stderr, "tw-traffic: %s: %s\n", options->command.c_str(), code.error().what.c_str());
    return code.error().code == EINVAL ? 2 : 1;
}
