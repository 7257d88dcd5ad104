// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "agent/loop/loop.hpp"
#include "agent/reconcile/endpoint_table.hpp"
#include "twill/fd.hpp"
#include "twill/ip.hpp"

namespace twill {

/// Tells who owns which pod address, as CNI's host-local IPAM (`<dir>/networks/<network>/<ip>`) and libcni's result
/// cache (`<dir>/results/<network>-<containerID>-<ifname>`) have it on disk. Nothing of it is trusted: sizes and
/// counts are bounded, symbolic links are not followed, what is no allocation or no JSON is ignored.
/// Directories may be absent, come and go: each second it is checked that the right ones are watched.
/// Control thread only.
class HostLocal {
public:
    /// Allocations and cache entries beyond are not read.
    static constexpr std::size_t kMaxFiles = 65536;
    /// Size of a cache entry that is still read.
    static constexpr std::size_t kMaxResultBytes = std::size_t{256} * 1024;

    struct Listener {
        virtual ~Listener() = default;
        /// The address is allocated, or something of its owner changed.
        virtual void on_owner(const Ip& ip, const Owner& owner) = 0;
        virtual void on_owner_gone(const Ip& ip) = 0;
    };

    /// Starts watching. Nothing is told before scan() or the first change. Without inotify (limits of the system) the
    /// directories are read once a second instead.
    HostLocal(Loop& loop, std::string cni_state_dir, Listener& listener);
    ~HostLocal();
    HostLocal(const HostLocal&) = delete;
    HostLocal& operator=(const HostLocal&) = delete;

    /// Reads everything now and tells the differences to what was told before: owners gone first, then the others.
    void scan();

    /// What is told to be owned at present.
    const std::map<Ip, Owner>& owners() const { return told_; }

private:
    using Owners = std::map<Ip, Owner>;
    /// The result cache: the directory and what is in it, sorted.
    struct Results {
        Fd directory;
        std::vector<std::string> names;
    };
    static constexpr std::size_t kMaxNetworks = 256;

    /// Both: true when what they watch is not what was watched before, or cannot be watched: a scan is due.
    bool watch_directories();
    bool watch(const std::string& path);
    void read_events();
    void schedule_scan();
    /// Adds one network's allocations to `seen`; false when there may be more.
    bool read_network(const Fd& directory, const std::string& network, const Results& results, Owners& seen);
    void tell(Owners seen, bool is_complete);

    std::string dir_;
    Listener& listener_;
    std::map<Ip, Owner> told_;
    Fd inotify_;
    std::map<std::string, int> watches_; ///< directory -> watch descriptor
    Timer tick_;
    Timer debounce_;
    std::unique_ptr<Poll> poll_; // after inotify_: must go first
};

/// Reads an allocation file's content: container ID, then the interface name on a second line where it has one.
/// False: nothing there (yet).
bool parse_allocation(std::string_view content, Owner& owner);

/// The host-side interface that a libcni cache entry names: the last interface without a sandbox (a bridge comes before
/// its port); empty when the text is no cache entry or names none.
std::string host_interface_of(std::string_view cache_entry);

} // namespace twill
