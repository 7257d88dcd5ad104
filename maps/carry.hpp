// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "maps/map.hpp"
#include "twill/result.hpp"

struct btf;

namespace twill {

/// Where a type's fields are: what two versions of a struct can have in common. Structs inside are flattened
/// ("node.high"); an array is one field; a type that is no struct is one field without a name.
struct Layout {
    struct Field {
        std::string name;
        std::size_t offset = 0;
        std::size_t size = 0;
    };
    std::vector<Field> fields;
    std::size_t size = 0;
};

/// nullopt: it has bit fields, unions or what else cannot be copied by name.
std::optional<Layout> layout_of(const btf* types, unsigned type);

/// From one version of a struct to another: fields of the same name and size are copied, the others become zero.
class Conversion {
public:
    Conversion(const Layout& from, const Layout& to);

    /// Neither side has a field that the other has not.
    bool is_lossless() const { return is_lossless_; }
    /// `to` has the size of its layout.
    void apply(const unsigned char* from, unsigned char* to) const;

private:
    struct Move {
        std::size_t from, to, size;
    };
    std::vector<Move> moves_;
    std::size_t to_size_;
    bool is_lossless_;
};

/// Puts every entry of `from` into `to`, two maps of the same name and perhaps of different versions, by the names of
/// their fields (BTF). For arrays, per-CPU ones too, entries of zeros are left out. Returns how many were put. ENOTSUP:
/// keys that differ, no BTF, or another kind of map than hash, LRU hash, trie, array and per-CPU array.
Result<std::size_t> carry_over(const RawMap& from, const RawMap& to);

} // namespace twill
