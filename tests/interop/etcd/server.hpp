// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tests/unit/store/store_fixture.hpp"

namespace twill::test {

/// Runs `command` in a shell; its output, and its status in *status where asked for, else it must be 0.
std::string sh(const std::string& command, int* status = nullptr);

/// A real etcd on loopback with its data in a directory of its own. Dies with the test.
class EtcdServer {
public:
    /// Extra flags of etcd; `scheme` https needs --cert-file and the like among them.
    explicit EtcdServer(std::vector<std::string> flags = {}, std::string scheme = "http");
    ~EtcdServer();
    EtcdServer(const EtcdServer&) = delete;
    EtcdServer& operator=(const EtcdServer&) = delete;

    std::string url() const { return scheme_ + "://127.0.0.1:" + std::to_string(port_); }
    void start();
    /// Ends it with `signal` and waits.
    void stop(int signal);
    void pause() const;
    void go_on() const;
    /// etcdctl with the flags of this server and `more`; must succeed. Keys and values are quoted by the caller.
    std::string ctl(const std::string& command) const;
    int try_ctl(const std::string& command) const;
    std::string ctl_flags; ///< credentials for ctl()
    const std::string& directory() const { return dir_.path(); }

private:
    bool is_answering() const;
    TempDir dir_;
    std::vector<std::string> flags_;
    std::string scheme_;
    int port_ = 0;
    int peer_port_ = 0;
    int pid_ = 0;
};

} // namespace twill::test
