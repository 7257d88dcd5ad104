// SPDX-License-Identifier: Apache-2.0
#include "maps/carry.hpp"

#include <bpf/btf.h>
#include <doctest/doctest.h>

#include <cstring>
#include <memory>

using namespace twill;

namespace {

using Bytes = std::vector<unsigned char>;

/// Types of one version, as the kernel keeps them with a map.
class Types {
public:
    Types() : btf_(btf__new_empty(), btf__free)
    {
        byte_ = btf__add_int(btf_.get(), "unsigned char", 1, 0);
        word_ = btf__add_int(btf_.get(), "unsigned int", 4, 0);
        index_ = btf__add_int(btf_.get(), "__ARRAY_SIZE_TYPE__", 4, 0);
    }
    int byte() const { return byte_; }
    int word() const { return word_; }
    int bytes(unsigned count) { return btf__add_array(btf_.get(), index_, byte_, count); }
    struct Member {
        const char* name;
        int type;
        unsigned offset; ///< bytes
        unsigned bits = 0;
    };
    int add_struct(const char* name, unsigned size, const std::vector<Member>& members)
    {
        const int id = btf__add_struct(btf_.get(), name, size);
        for (const auto& member : members)
            btf__add_field(btf_.get(), member.name, member.type, member.offset * 8, member.bits);
        return id;
    }
    int alias(const char* name, int type) { return btf__add_typedef(btf_.get(), name, type); }
    int add_union(unsigned size) { return btf__add_union(btf_.get(), "u", size); }
    std::optional<Layout> layout(int type) const { return layout_of(btf_.get(), static_cast<unsigned>(type)); }

private:
    std::unique_ptr<btf, decltype(&btf__free)> btf_;
    int byte_, word_, index_;
};

Bytes converted(const Layout& from, const Layout& to, const Bytes& value)
{
    Bytes out(to.size, 0xff);
    Conversion(from, to).apply(value.data(), out.data());
    return out;
}

} // namespace

TEST_CASE("carry: a field in the middle moves what follows, and starts at zero")
{
    Types old, now;
    const auto before = old.layout(
        old.add_struct("peer", 8, {{"mode", old.word(), 0}, {"mac", old.bytes(3), 4}, {"on", old.byte(), 7}}));
    const auto after = now.layout(now.add_struct(
        "peer", 12,
        {{"mode", now.word(), 0}, {"added", now.word(), 4}, {"mac", now.bytes(3), 8}, {"on", now.byte(), 11}}));
    REQUIRE(before);
    REQUIRE(after);
    CHECK(converted(*before, *after, {1, 2, 3, 4, 5, 6, 7, 8}) == Bytes{1, 2, 3, 4, 0, 0, 0, 0, 5, 6, 7, 8});
    CHECK(converted(*after, *before, {1, 2, 3, 4, 9, 9, 9, 9, 5, 6, 7, 8}) == Bytes{1, 2, 3, 4, 5, 6, 7, 8});
    CHECK_FALSE(Conversion(*before, *after).is_lossless());
    CHECK_FALSE(Conversion(*after, *before).is_lossless());
    CHECK(Conversion(*before, *before).is_lossless());
}

TEST_CASE("carry: structs inside are copied field by field, also through a typedef")
{
    Types old, now;
    const int old_addr = old.add_struct("addr", 4, {{"high", old.bytes(2), 0}, {"low", old.bytes(2), 2}});
    const auto before = old.layout(old.add_struct("node", 4, {{"addr", old_addr, 0}}));
    const int new_addr =
        now.alias("addr_t", now.add_struct("addr", 4, {{"low", now.bytes(2), 0}, {"high", now.bytes(2), 2}}));
    const auto after = now.layout(now.add_struct("node", 8, {{"more", now.word(), 0}, {"addr", new_addr, 4}}));
    REQUIRE(before);
    REQUIRE(after);
    CHECK(converted(*before, *after, {1, 2, 3, 4}) == Bytes{0, 0, 0, 0, 3, 4, 1, 2});
}

TEST_CASE("carry: a field of another size is another field")
{
    Types old, now;
    const auto before = old.layout(old.add_struct("s", 4, {{"n", old.word(), 0}}));
    const auto after = now.layout(now.add_struct("s", 1, {{"n", now.byte(), 0}}));
    REQUIRE(before);
    REQUIRE(after);
    CHECK(converted(*before, *after, {1, 2, 3, 4}) == Bytes{0});
}

TEST_CASE("carry: a plain number is a field; unions and bit fields are refused")
{
    Types types;
    const auto word = types.layout(types.word());
    REQUIRE(word);
    CHECK(converted(*word, *word, {1, 2, 3, 4}) == Bytes{1, 2, 3, 4});
    CHECK_FALSE(types.layout(types.add_union(4)));
    CHECK_FALSE(types.layout(types.add_struct("s", 8, {{"u", types.add_union(4), 0}})));
    CHECK_FALSE(types.layout(types.add_struct("s", 4, {{"b", types.word(), 0, 3}})));
    CHECK_FALSE(types.layout(9999));
}
