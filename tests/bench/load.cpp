// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/load.hpp"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <string_view>
#include <thread>

namespace twill::bench {

namespace {

struct Load {
    std::string_view name;
    Serve serve;
    Measure measure;
};

constexpr std::array kLoads = {
    Load{"stream", serve_stream, measure_stream}, Load{"rr", serve_rr, measure_rr},
    Load{"rr32", serve_rr, measure_rr32},         Load{"crr", serve_crr, measure_crr},
    Load{"udp", serve_udp, measure_udp},
};

constexpr const char* kHelp =
    "usage: tw-bench-load LOAD --from NETNS --to NETNS --address IP [options]\n"
    "A client in one network namespace, a server in another, one line of JSON with what was measured.\n"
    "  LOAD         stream (Gbit/s, CPU s per GB), rr (us), rr32, crr (transactions/s), udp (delivered/s)\n"
    "  --seconds S  measured time (1), after --warmup S (0.2)\n"
    "  --cpus C,S   CPU of the client and of the server (0,1); -1 is any\n"
    "  --buffer N   bytes of the socket buffers of TCP (0: the kernel tunes them)\n"
    "  --size N     payload of a UDP datagram (64)\n";

/// This process, from now on, is in that namespace, on that CPU.
Result<> enter(const std::string& netns, int cpu)
{
    const std::string path = "/run/netns/" + netns;
    const Fd fd{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!fd) return system_error("open " + path);
    if (::setns(fd.get(), CLONE_NEWNET) != 0) return system_error("enter " + path);
    if (cpu < 0) return Ok{};
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (::sched_setaffinity(0, sizeof(set), &set) != 0) return system_error("run on CPU " + std::to_string(cpu));
    return Ok{};
}

void print_error(const char* who, const Error& error)
{
    std::fprintf(stderr, "tw-bench-load: %s: %s\n", who, error.what.c_str());
}

[[noreturn]] void be_server(const Load& load, const Options& options, Shared& shared, pid_t client)
{
    ::prctl(PR_SET_PDEATHSIG, SIGKILL); // no server outlives its client
    if (::getppid() != client) ::_exit(1);
    auto result = enter(options.to, options.server_cpu);
    if (result) result = load.serve(options, shared);
    const bool client_left = !result && (result.error().code == ECONNRESET || result.error().code == EPIPE);
    if (!result && !client_left) print_error("server", result.error());
    ::_exit(result ? 0 : 1);
}

Result<Values> be_client(const Load& load, const Options& options, Shared& shared, pid_t server)
{
    TWILL_TRY(enter(options.from, options.client_cpu));
    while (shared.port == 0) {
        if (::waitpid(server, nullptr, WNOHANG) != 0) return Error{ESRCH, "the server did not start"};
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return load.measure(options, shared);
}

int run(const Load& load, const Options& options)
{
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        print_error("memory", system_error("mmap"));
        return 1;
    }
    auto& shared = *new (memory) Shared;
    const pid_t self = ::getpid();
    const pid_t server = ::fork();
    if (server < 0) {
        print_error("server", system_error("fork"));
        return 1;
    }
    if (server == 0) be_server(load, options, shared, self);
    const auto values = be_client(load, options, shared, server);
    ::kill(server, SIGKILL);
    ::waitpid(server, nullptr, 0);
    if (!values) {
        print_error("client", values.error());
        return 1;
    }
    const char* before = "{";
    for (const auto& [name, value] : *values) {
        std::printf("%s\"%s\":%.6g", before, name.c_str(), value);
        before = ",";
    }
    std::puts("}");
    return 0;
}

template <typename Number>
bool parse(std::string_view text, Number& value)
{
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} && end == text.data() + text.size();
}

bool parse_cpus(std::string_view text, Options& options)
{
    const auto comma = text.find(',');
    return comma != text.npos && parse(text.substr(0, comma), options.client_cpu) &&
           parse(text.substr(comma + 1), options.server_cpu);
}

bool parse_option(std::string_view name, std::string_view value, Options& options)
{
    if (name == "--seconds") return parse(value, options.seconds) && options.seconds > 0;
    if (name == "--warmup") return parse(value, options.warmup_s) && options.warmup_s >= 0;
    if (name == "--cpus") return parse_cpus(value, options);
    if (name == "--buffer") return parse(value, options.buffer_bytes) && options.buffer_bytes >= 0;
    if (name == "--size") return parse(value, options.size_bytes) && options.size_bytes <= 2048;
    std::string* text = name == "--from"      ? &options.from
                        : name == "--to"      ? &options.to
                        : name == "--address" ? &options.address
                                              : nullptr;
    if (text != nullptr) *text = value;
    return text != nullptr && !value.empty();
}

int main_of(int argc, char** argv)
{
    Options options;
    if (argc == 2 && std::strcmp(argv[1], "--help") == 0) {
        std::fputs(kHelp, stdout);
        return 0;
    }
    const Load* load = nullptr;
    for (const Load& each : kLoads)
        if (argc > 1 && each.name == argv[1]) load = &each;
    bool good = load != nullptr && argc % 2 == 0;
    for (int i = 2; good && i + 1 < argc; i += 2) good = parse_option(argv[i], argv[i + 1], options);
    if (!good || options.from.empty() || options.to.empty() || options.address.empty()) {
        std::fputs(kHelp, stderr);
        return 2;
    }
    options.load = load->name;
    return run(*load, options);
}

} // namespace

} // namespace twill::bench

int main(int argc, char** argv) { return twill::bench::main_of(argc, argv); }
