// SPDX-License-Identifier: Apache-2.0
#include "agent/reconcile/lease_set.hpp"

#include <doctest/doctest.h>

using namespace twill;

namespace {

Lease lease(const char* pods, const char* node, std::optional<WallTime> expires = std::nullopt)
{
    Lease made;
    made.key = Cidr::parse(pods)->to_key();
    made.pods.v4 = *Cidr::parse(pods);
    made.public_ip.v4 = *Ip::parse(node);
    made.backend_type = "vxlan";
    made.expires = expires;
    return made;
}

const Lease kOne = lease("10.42.1.0/24", "192.0.2.1");
const Lease kTwo = lease("10.42.2.0/24", "192.0.2.2");

} // namespace

TEST_CASE("lease_set: is complete from the first snapshot on, not from events")
{
    LeaseSet set;
    set.apply(LeasePut{kOne});
    CHECK_FALSE(set.is_complete());
    set.apply(LeaseSnapshot{});
    CHECK(set.is_complete());
    CHECK(set.leases().empty());
}

TEST_CASE("lease_set: events put, replace and end leases; unknown keys are no trouble")
{
    LeaseSet set;
    set.apply(LeaseSnapshot{{kOne}, {}});
    set.apply(LeasePut{kTwo});
    Lease moved = kOne;
    moved.public_ip.v4 = *Ip::parse("192.0.2.11");
    set.apply(LeasePut{moved});
    CHECK(set.leases().at(kOne.key) == moved);
    CHECK(set.leases().at(kTwo.key) == kTwo);

    set.apply(LeaseGone{kOne.key});
    set.apply(LeaseGone{"10.42.77.0-24"});
    CHECK(set.leases().size() == 1);
    CHECK(set.since(kOne.key) == 0);
}

TEST_CASE("lease_set: a snapshot replaces everything, so that what a gap hid is found")
{
    LeaseSet set;
    set.apply(LeaseSnapshot{{kOne}, {{"10.42.9.0-24", "PublicIP: empty"}}});
    set.apply(LeaseSnapshot{{kTwo}, {}});
    CHECK(set.leases().count(kOne.key) == 0);
    CHECK(set.leases().count(kTwo.key) == 1);
    CHECK(set.bad().empty());
}

TEST_CASE("lease_set: a lease that turns bad is shown, works on with its last content and heals")
{
    const BadLease bad{kOne.key, "PublicIP \"x\" is not an address"};
    for (const bool by_event : {true, false}) {
        CAPTURE(by_event);
        LeaseSet set;
        set.apply(LeaseSnapshot{{kOne, kTwo}, {}});
        const auto turn_bad = [&] { by_event ? set.apply(LeaseEvent{bad}) : set.apply(LeaseSnapshot{{kTwo}, {bad}}); };
        turn_bad();
        CHECK(set.leases().at(kOne.key) == kOne);
        CHECK(set.bad() == std::vector{bad});

        set.apply(LeasePut{kOne});
        CHECK(set.bad().empty());
        CHECK(set.leases().at(kOne.key) == kOne);

        turn_bad();
        set.apply(LeaseGone{kOne.key});
        CHECK(set.bad().empty());
        CHECK(set.leases().count(kOne.key) == 0);
    }
}

TEST_CASE("lease_set: a lease that was never good is shown and not used")
{
    LeaseSet set;
    set.apply(LeaseSnapshot{{kTwo}, {{kOne.key, "junk"}}});
    CHECK(set.leases().count(kOne.key) == 0);
    CHECK(set.bad().size() == 1);
}

TEST_CASE("lease_set: the kept content of a bad lease ends when it expires, that of good ones is the store's matter")
{
    const WallTime noon = WallTime{} + std::chrono::hours(12);
    const Lease one = lease("10.42.1.0/24", "192.0.2.1", noon);
    const Lease two = lease("10.42.2.0/24", "192.0.2.2", noon);
    LeaseSet set;
    set.apply(LeaseSnapshot{{one, two}, {}});
    CHECK_FALSE(set.next_expiry().has_value());

    set.apply(BadLease{one.key, "junk"});
    CHECK(set.next_expiry() == noon);
    CHECK_FALSE(set.expire(noon - std::chrono::seconds(1)));
    CHECK(set.expire(noon));
    CHECK(set.leases().count(one.key) == 0);
    CHECK(set.leases().count(two.key) == 1);
    CHECK(set.bad().size() == 1);
    CHECK_FALSE(set.next_expiry().has_value());
}

TEST_CASE("lease_set: order of arrival survives renewals and snapshots, and starts anew with other pod CIDRs")
{
    LeaseSet set;
    set.apply(LeaseSnapshot{{kOne}, {}});
    set.apply(LeasePut{kTwo});
    CHECK(set.since(kOne.key) < set.since(kTwo.key));

    set.apply(LeasePut{kOne});
    set.apply(LeaseSnapshot{{kOne, kTwo}, {}});
    CHECK(set.since(kOne.key) < set.since(kTwo.key));

    Lease other = kOne;
    other.pods.v4 = *Cidr::parse("10.42.3.0/24");
    set.apply(LeasePut{other});
    CHECK(set.since(kOne.key) > set.since(kTwo.key));
}

TEST_CASE("lease_set: a lease that is gone lingers, and is as it was when it comes back in time")
{
    const SteadyTime start{};
    const auto at = [&](int ms) { return start + std::chrono::milliseconds{ms}; };
    for (const bool by_event : {true, false}) {
        CAPTURE(by_event);
        LeaseSet set(std::chrono::milliseconds{1000});
        set.apply(LeaseSnapshot{{kOne, kTwo}, {}}, start);
        const auto since = set.since(kOne.key);
        const auto lose = [&](int ms) {
            by_event ? set.apply(LeaseEvent{LeaseGone{kOne.key}}, at(ms))
                     : set.apply(LeaseSnapshot{{kTwo}, {}}, at(ms));
        };
        lose(0);
        CHECK(set.next_end() == at(1000));
        CHECK(set.leases().count(kOne.key) == 1);
        CHECK_FALSE(set.end_lingering(at(999)));
        lose(500); // told gone twice: no second respite
        CHECK(set.next_end() == at(1000));
        set.apply(LeasePut{kOne}, at(600));
        CHECK_FALSE(set.next_end());
        CHECK_FALSE(set.end_lingering(at(2000)));
        CHECK(set.since(kOne.key) == since);

        lose(2000);
        set.apply(BadLease{kOne.key, "not JSON"}, at(2500)); // back, if only as junk
        CHECK_FALSE(set.end_lingering(at(9000)));
        CHECK(set.leases().count(kOne.key) == 1);

        lose(3000);
        CHECK(set.end_lingering(at(4000)));
        CHECK(set.leases().count(kOne.key) == 0);
        CHECK(set.leases().count(kTwo.key) == 1);
        CHECK_FALSE(set.next_end());
    }
}

TEST_CASE("lease_set: what takes the place of a lease that is gone ends it at once")
{
    const Lease same_pods = lease("10.42.0.0/23", "192.0.2.3");
    const Lease same_node = lease("10.42.3.0/24", "192.0.2.1");
    for (const Lease& next : {same_pods, same_node}) {
        CAPTURE(next.key);
        LeaseSet set(std::chrono::milliseconds{1000});
        set.apply(LeaseSnapshot{{kOne, kTwo}, {}});
        set.apply(LeaseGone{kOne.key});
        set.apply(LeasePut{next});
        CHECK(set.leases().count(kOne.key) == 0);
        CHECK(set.leases().count(kTwo.key) == 1);
        CHECK(set.leases().count(next.key) == 1);
        CHECK_FALSE(set.next_end());

        LeaseSet at_once(std::chrono::milliseconds{1000});
        at_once.apply(LeaseSnapshot{{kOne, kTwo}, {}});
        at_once.apply(LeaseSnapshot{{kTwo, next}, {}});
        CHECK(at_once.leases().size() == 2);

        LeaseSet before(std::chrono::milliseconds{1000});
        before.apply(LeaseSnapshot{{kOne, kTwo}, {}});
        before.apply(LeasePut{next});
        CHECK(before.since(kOne.key) < before.since(next.key));
        before.apply(LeaseGone{kOne.key});
        CHECK(before.since(kOne.key) > before.since(next.key));
    }
}
