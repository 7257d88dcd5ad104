// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/etcd/server.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "twill/fd.hpp"

namespace twill::test {

namespace {

int free_port()
{
    const Fd fd(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    return ntohs(address.sin_port);
}

} // namespace

std::string sh(const std::string& command, int* status)
{
    std::string output;
    FILE* pipe = popen((command + " 2>&1").c_str(), "r");
    REQUIRE(pipe != nullptr);
    std::array<char, 4096> bytes{};
    while (const auto size = fread(bytes.data(), 1, bytes.size(), pipe)) output.append(bytes.data(), size);
    const int outcome = pclose(pipe);
    if (status != nullptr)
        *status = outcome;
    else
        REQUIRE_MESSAGE(outcome == 0, (command + ": " + output));
    return output;
}

EtcdServer::EtcdServer(std::vector<std::string> flags, std::string scheme)
    : flags_(std::move(flags)), scheme_(std::move(scheme)), port_(free_port()), peer_port_(free_port())
{
    start();
}

EtcdServer::~EtcdServer()
{
    if (pid_ > 0) stop(SIGKILL);
}

void EtcdServer::start()
{
    const std::string peer = "http://127.0.0.1:" + std::to_string(peer_port_);
    std::vector<std::string> args = {"etcd",
                                     "--data-dir=" + dir_.path() + "/data",
                                     "--listen-client-urls=" + url(),
                                     "--advertise-client-urls=" + url(),
                                     "--listen-peer-urls=" + peer,
                                     "--initial-advertise-peer-urls=" + peer,
                                     "--initial-cluster=default=" + peer,
                                     "--unsafe-no-fsync"};
    args.insert(args.end(), flags_.begin(), flags_.end());
    pid_ = fork();
    REQUIRE(pid_ >= 0);
    if (pid_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        const int log = ::open((dir_.path() + "/log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(log, 1);
        dup2(log, 2);
        std::vector<char*> argv;
        for (auto& arg : args) argv.push_back(arg.data());
        argv.push_back(nullptr);
        execvp("etcd", argv.data());
        _exit(127);
    }
    for (int i = 0; i < 600 && !is_answering(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds{50});
    REQUIRE_MESSAGE(is_answering(), read_text(dir_.path() + "/log"));
}

bool EtcdServer::is_answering() const
{
    const Fd fd(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port_));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

void EtcdServer::stop(int signal)
{
    kill(pid_, signal);
    if (signal == SIGKILL) kill(pid_, SIGCONT);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
}

void EtcdServer::pause() const { kill(pid_, SIGSTOP); }

void EtcdServer::go_on() const { kill(pid_, SIGCONT); }

std::string EtcdServer::ctl(const std::string& command) const
{
    return sh("ETCDCTL_API=3 etcdctl --command-timeout=60s --dial-timeout=20s --endpoints=" + url() + " " + ctl_flags +
              " " + command);
}

int EtcdServer::try_ctl(const std::string& command) const
{
    int status = 0;
    sh("ETCDCTL_API=3 etcdctl --endpoints=" + url() + " " + ctl_flags + " " + command, &status);
    return status;
}

} // namespace twill::test
