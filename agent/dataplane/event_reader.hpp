// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "agent/loop/loop.hpp"
#include "maps/abi/event.h"
#include "maps/pins.hpp"
#include "twill/result.hpp"

struct ring_buffer;

namespace twill {

/// Reads the ring buffer tw_events. Callbacks come on the control thread; a record of unknown kind is the callee's to
/// skip.
class EventReader {
public:
    static Result<std::unique_ptr<EventReader>> open(Loop& loop, const PinDir& pins,
                                                     std::function<void(const tw_event&)> on_event);
    ~EventReader();
    EventReader(const EventReader&) = delete;
    EventReader& operator=(const EventReader&) = delete;

private:
    explicit EventReader(std::function<void(const tw_event&)> on_event);

    static constexpr unsigned kPerTurn = 256;

    std::function<void(const tw_event&)> on_event_;
    unsigned in_turn_ = 0;
    ring_buffer* ring_ = nullptr;
    std::unique_ptr<Poll> poll_;
};

} // namespace twill
