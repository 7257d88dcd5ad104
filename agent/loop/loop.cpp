// SPDX-License-Identifier: Apache-2.0
#include "agent/loop/loop.hpp"

#include <mutex>
#include <utility>
#include <vector>

namespace twill {

namespace {

/// libuv frees nothing: the state dies in the close callback, after the last use of its handle.
template <typename State>
void close_later(State* state) noexcept
{
    state->handle.data = state;
    uv_close(reinterpret_cast<uv_handle_t*>(&state->handle),
             [](uv_handle_t* handle) { delete static_cast<State*>(handle->data); });
}

/// Copies the callback first: it may destroy the handle that holds it.
void call(const std::function<void()>& callback)
{
    if (auto copy = callback) copy();
}

} // namespace

Loop::Loop() { uv_loop_init(&loop_); }

Loop::~Loop()
{
    uv_run(&loop_, UV_RUN_NOWAIT); // lets close callbacks of destroyed handles run
    uv_loop_close(&loop_);
}

void Loop::run() { uv_run(&loop_, UV_RUN_DEFAULT); }

void Loop::stop() { uv_stop(&loop_); }

struct Timer::State {
    uv_timer_t handle{};
    std::function<void()> callback;
};

Timer::Timer(Loop& loop) : state_(new State)
{
    uv_timer_init(loop.uv(), &state_->handle);
    state_->handle.data = state_.get();
}

void Timer::Close::operator()(State* state) const noexcept
{
    state->callback = nullptr;
    close_later(state);
}

namespace {

template <typename State>
void start_timer(State& state, std::chrono::milliseconds after, std::chrono::milliseconds period,
                 std::function<void()>&& callback)
{
    state.callback = std::move(callback);
    // libuv counts from the loop's cached time, which is old after a long callback.
    uv_update_time(state.handle.loop);
    uv_timer_start(
        &state.handle, [](uv_timer_t* handle) { call(static_cast<State*>(handle->data)->callback); },
        static_cast<std::uint64_t>(after.count()), static_cast<std::uint64_t>(period.count()));
}

} // namespace

void Timer::once(std::chrono::milliseconds after, std::function<void()> callback)
{
    start_timer(*state_, after, std::chrono::milliseconds{0}, std::move(callback));
}

void Timer::every(std::chrono::milliseconds period, std::function<void()> callback)
{
    start_timer(*state_, period, period, std::move(callback));
}

void Timer::stop() { uv_timer_stop(&state_->handle); }

bool Timer::is_active() const { return uv_is_active(reinterpret_cast<const uv_handle_t*>(&state_->handle)) != 0; }

struct Poll::State {
    uv_poll_t handle{};
    std::function<void()> callback;
};

Poll::Poll(Loop& loop, int fd, std::function<void()> on_readable) : state_(new State)
{
    state_->callback = std::move(on_readable);
    uv_poll_init(loop.uv(), &state_->handle, fd);
    state_->handle.data = state_.get();
    // On an error of the descriptor (EPOLLERR) libuv calls back once and watches no further: the owner makes a new
    // Poll.
    uv_poll_start(&state_->handle, UV_READABLE,
                  [](uv_poll_t* handle, int, int) { call(static_cast<State*>(handle->data)->callback); });
}

void Poll::Close::operator()(State* state) const noexcept
{
    uv_poll_stop(&state->handle);
    state->callback = nullptr;
    close_later(state);
}

struct Signal::State {
    uv_signal_t handle{};
    std::function<void()> callback;
};

Signal::Signal(Loop& loop, int signum, std::function<void()> callback) : state_(new State)
{
    state_->callback = std::move(callback);
    uv_signal_init(loop.uv(), &state_->handle);
    state_->handle.data = state_.get();
    uv_signal_start(
        &state_->handle, [](uv_signal_t* handle, int) { call(static_cast<State*>(handle->data)->callback); }, signum);
}

void Signal::Close::operator()(State* state) const noexcept
{
    state->callback = nullptr;
    close_later(state);
}

struct Mailbox::State {
    uv_async_t handle{};
    std::mutex mutex;
    std::vector<std::function<void()>> closures;
};

Mailbox::Mailbox(Loop& loop) : state_(new State)
{
    uv_async_init(loop.uv(), &state_->handle, [](uv_async_t* handle) {
        auto* state = static_cast<State*>(handle->data);
        std::vector<std::function<void()>> closures;
        {
            const std::lock_guard lock(state->mutex);
            closures.swap(state->closures);
        }
        for (const auto& closure : closures) closure();
    });
    state_->handle.data = state_.get();
}

void Mailbox::Close::operator()(State* state) const noexcept { close_later(state); }

void Mailbox::post(std::function<void()> closure)
{
    {
        const std::lock_guard lock(state_->mutex);
        state_->closures.push_back(std::move(closure));
    }
    uv_async_send(&state_->handle);
}

} // namespace twill
