// SPDX-License-Identifier: Apache-2.0
#include "agent/dataplane/event_reader.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <cerrno>
#include <cstring>

#include "twill/fd.hpp"

namespace twill {

EventReader::EventReader(std::function<void(const tw_event&)> on_event) : on_event_(std::move(on_event)) {}

EventReader::~EventReader()
{
    poll_.reset(); // watches a descriptor of the ring's
    ring_buffer__free(ring_);
}

Result<std::unique_ptr<EventReader>> EventReader::open(Loop& loop, const PinDir& pins,
                                                       std::function<void(const tw_event&)> on_event)
{
    const std::string path = pins.map("tw_events");
    const Fd map(bpf_obj_get(path.c_str()));
    if (!map) return Error{errno, "open " + path + ": " + std::strerror(errno)};
    std::unique_ptr<EventReader> reader(new EventReader(std::move(on_event)));
    const auto deliver = [](void* context, void* data, std::size_t size) {
        auto* self = static_cast<EventReader*>(context);
        tw_event event;
        if (size >= sizeof(event)) {
            std::memcpy(&event, data, sizeof(event));
            self->on_event_(event);
        }
        // A flood must not starve the loop: the ring stays readable, so the rest follows in the next turn.
        return ++self->in_turn_ % kPerTurn == 0 ? -EAGAIN : 0;
    };
    reader->ring_ = ring_buffer__new(map.get(), deliver, reader.get(), nullptr);
    if (reader->ring_ == nullptr) return Error{errno, "ring buffer tw_events: " + std::string(std::strerror(errno))};
    reader->poll_ = std::make_unique<Poll>(loop, ring_buffer__epoll_fd(reader->ring_),
                                           [self = reader.get()] { ring_buffer__consume(self->ring_); });
    // What was reported while no agent ran.
    ring_buffer__consume(reader->ring_);
    return reader;
}

} // namespace twill
