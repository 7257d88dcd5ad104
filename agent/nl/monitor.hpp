// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "agent/loop/loop.hpp"
#include "agent/nl/types.hpp"
#include "twill/result.hpp"

namespace twill::nl {

/// What the kernel changed. `gone`: the object was deleted; the other fields are as they were last.
struct MonitorListener {
    virtual ~MonitorListener() = default;
    virtual void on_link(const Link& link, bool gone) = 0;
    virtual void on_address(const Address& address, bool gone) = 0;
    /// Of all tables but the local one.
    virtual void on_route(const Route& route, bool gone) = 0;
    virtual void on_neighbour(const Neighbour& neighbour, bool gone) = 0;
    virtual void on_fdb(const FdbEntry& entry, bool gone) = 0;
    /// Of a vxlan device's own table.
    virtual void on_vtep(const VtepEntry& entry, bool gone) = 0;
    /// A qdisc of this interface came, went or changed.
    virtual void on_qdisc(IfIndex ifindex) = 0;
    /// Events were lost: everything must be read again. Events after it are newer than the loss.
    virtual void on_resync() = 0;
};

/// How the monitor's socket is set up; for tests.
struct MonitorOptions {
    int receive_buffer_bytes = 1 << 20;
};

/// Tells a listener what changes in the namespace in which it was started.
///
/// API: start() subscribes; whoever starts it reads everything after that, so nothing is missed in between. The
/// listener
///   may destroy the monitor inside a callback.
/// Threading: the loop's thread only.
/// Performance: all that is queued is handled in one readable callback, bounded so that a flood does not starve timers.
/// Errors: a full receive buffer (ENOBUFS) or an unreadable message becomes on_resync(), once a turn.
class Monitor {
public:
    static Result<std::unique_ptr<Monitor>> start(Loop& loop, MonitorListener& listener, MonitorOptions options = {});
    ~Monitor();
    Monitor(const Monitor&) = delete;
    Monitor& operator=(const Monitor&) = delete;

private:
    struct State;
    explicit Monitor(std::shared_ptr<State> state);
    std::shared_ptr<State> state_;
};

} // namespace twill::nl
