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
