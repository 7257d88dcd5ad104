// SPDX-License-Identifier: Apache-2.0
#include "agent/store/kube_sieve.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace twill;
using Take = SieveRule::Take;

namespace {

struct Sieved {
    std::vector<std::string> elements;
    std::vector<std::string> tops;
    std::optional<Error> error;
    bool is_between = false;
};

std::vector<SieveRule> list_rules()
{
    return {{"kind"},
            {"metadata", Take::part, {{"continue"}}},
            {"items", Take::each, {{"metadata", Take::part, {{"name"}, {"annotations", Take::part, {{"my.org/*"}}}}}}}};
}

Sieved sieve(std::string_view text, std::size_t piece_bytes, std::vector<SieveRule> rules = list_rules())
{
    Sieved result;
    JsonSieve under_test(std::move(rules), [&](std::string_view json, bool is_element) {
        (is_element ? result.elements : result.tops).emplace_back(json);
    });
    for (std::size_t at = 0; at < text.size() && !result.error; at += piece_bytes)
        if (auto fed = under_test.feed(text.substr(at, piece_bytes)); !fed) result.error = fed.error();
    result.is_between = under_test.is_between();
    return result;
}

const std::string kList = R"( {"kind" : "List","other":[1,{"a":"]}\"\\"},[]],"metadata":{"x":{},"continue":"a\"}b"},
 "items":[{"spec":{"big":["}",{}]},"metadata":{"labels":{"name":"no"},"name":"n1","annotations":{"a":"1","my.org/b":"{\"c\":1}"}}},
  {}, 7, "text", null, [{"metadata":{"name":"inner"}}], {"metadata":{"name":null}}],"last":-1.5e3} )";

} // namespace

TEST_CASE("kube_sieve: what the rules name comes out, whatever the pieces it arrives in")
{
    for (std::size_t piece_bytes = 1; piece_bytes <= kList.size(); ++piece_bytes) {
        CAPTURE(piece_bytes);
        const auto result = sieve(kList, piece_bytes);
        REQUIRE_MESSAGE(!result.error, result.error->what);
        CHECK(result.is_between);
        REQUIRE(result.tops.size() == 1);
        CHECK(result.tops[0] == R"({"kind":"List","metadata":{"continue":"a\"}b"},"items":[]})");
        REQUIRE(result.elements.size() == 3);
        CHECK(result.elements[0] == R"({"metadata":{"name":"n1","annotations":{"my.org/b":"{\"c\":1}"}}})");
        CHECK(result.elements[1] == "{}");
        CHECK(result.elements[2] == R"({"metadata":{"name":null}})");
    }
}

TEST_CASE("kube_sieve: objects after each other come out one by one")
{
    const auto result = sieve("{\"kind\":1}\n{\"kind\":2}{}\n{\"kind\":", 3);
    CHECK(result.tops == std::vector<std::string>{R"({"kind":1})", R"({"kind":2})", "{}"});
    CHECK_FALSE(result.is_between);
    CHECK_FALSE(result.error);
}

TEST_CASE("kube_sieve: what another type stands in place of is handed on as it is")
{
    const auto result = sieve(R"({"kind":{"a":[1]},"metadata":[1,2],"items":{"a":1}})", 4);
    REQUIRE(result.tops.size() == 1);
    CHECK(result.tops[0] == R"({"kind":{"a":[1]},"metadata":[1,2],"items":{"a":1}})");
}

TEST_CASE("kube_sieve: what is no JSON is an error, at any cut")
{
    for (const auto* text :
         {"x", "[1]", "\"a\"", "7", "{,}", "{\"a\"}", "{\"a\" 1}", "{\"a\":}", "{\"a\":1,}", "{\"a\":1 2}", "{a:1}",
          "{\"items\":[,]}", "{\"items\":[{}}", "{\"metadata\":{]", "{\"items\":[1,]}", "}"})
        for (const std::size_t piece_bytes : {1, 2, 100}) {
            CAPTURE(text);
            CHECK(sieve(text, piece_bytes).error);
        }
}

TEST_CASE("kube_sieve: an object larger than any and one nested too deep are refused, what is dropped may be large")
{
    const std::string large(JsonSieve::kMaxEmitBytes, 'x');
    CHECK(sieve(R"({"kind":")" + large + "\"}", 4096).error->code == EFBIG);
    CHECK(sieve(R"({"items":[{"metadata":{"name":")" + large + "\"}}]}", 4096).error->code == EFBIG);
    CHECK_FALSE(sieve(R"({"other":")" + large + R"(","items":[{"spec":")" + large + "\"}]}", 4096).error);
    CHECK(sieve(R"({"other":)" + std::string(100, '['), 7).error->code == EINVAL);
    // A thousand elements are together larger than one may be.
    std::string many = R"({"items":[{})";
    for (int i = 0; i < 3000; ++i) many += R"(,{"metadata":{"name":")" + std::string(500, 'n') + "\"}}";
    const auto result = sieve(many + "]}", 4096);
    CHECK_FALSE(result.error);
    CHECK(result.elements.size() == 3001);
}
