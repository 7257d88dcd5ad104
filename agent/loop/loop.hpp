// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <uv.h>

#include <chrono>
#include <functional>
#include <memory>

#include "twill/result.hpp"

namespace twill {

/// The control thread's event loop: a libuv loop with owning handles. All methods and callbacks: control thread.
/// Handles may be destroyed at any time, also inside their own callback; they must not outlive the Loop.
class Loop {
public:
    Loop();
    ~Loop();
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

    /// Runs until stop() is called or no handle is left.
    void run();
    void stop();
    uv_loop_t* uv() { return &loop_; }

private:
    uv_loop_t loop_;
};

/// Calls back once or periodically. Restarting replaces what was pending.
class Timer {
public:
    explicit Timer(Loop& loop);
    void once(std::chrono::milliseconds after, std::function<void()> callback);
    void every(std::chrono::milliseconds period, std::function<void()> callback);
    void stop();
    bool is_active() const;

private:
    struct State;
    struct Close {
        void operator()(State* state) const noexcept;
    };
    std::unique_ptr<State, Close> state_;
};

/// Calls back whenever a borrowed descriptor is readable. The descriptor must stay open as long as the Poll lives.
class Poll {
public:
    Poll(Loop& loop, int fd, std::function<void()> on_readable);

private:
    struct State;
    struct Close {
        void operator()(State* state) const noexcept;
    };
    std::unique_ptr<State, Close> state_;
};

/// Calls back on the loop for each delivery of one signal.
class Signal {
public:
    Signal(Loop& loop, int signum, std::function<void()> callback);

private:
    struct State;
    struct Close {
        void operator()(State* state) const noexcept;
    };
    std::unique_ptr<State, Close> state_;
};

/// Runs closures of other threads on the loop's thread. post() is the one call that other threads may make.
class Mailbox {
public:
    explicit Mailbox(Loop& loop);
    void post(std::function<void()> closure);

private:
    struct State;
    struct Close {
        void operator()(State* state) const noexcept;
    };
    std::unique_ptr<State, Close> state_;
};

} // namespace twill
