// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

namespace twill::cli {

/// Text in columns, as wide as their longest cell and two blanks apart. Numbers are set to the right.
class Table {
public:
    enum class Align : std::uint8_t { left, right };
    struct Column {
        std::string title;
        Align align = Align::left;
    };

    explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
    /// One cell for each column; an empty cell is shown as "-".
    void add(std::vector<std::string> cells);
    void print(std::ostream& out, bool with_header) const;

private:
    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

/// "1.5 MiB"; plain bytes below 1 KiB.
std::string human_bytes(std::uint64_t bytes);

} // namespace twill::cli
