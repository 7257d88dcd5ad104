// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace twill::cli {

void Table::add(std::vector<std::string> cells)
{
    cells.resize(columns_.size());
    for (auto& cell : cells)
        if (cell.empty()) cell = "-";
    rows_.push_back(std::move(cells));
}

void Table::print(std::ostream& out, bool with_header) const
{
    std::vector<std::size_t> widths;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
        std::size_t width = with_header ? columns_[i].title.size() : 0;
        for (const auto& row : rows_) width = std::max(width, row[i].size());
        widths.push_back(width);
    }
    const auto line = [&](const auto& cell_of) {
        std::string text;
        for (std::size_t i = 0; i < columns_.size(); ++i) {
            if (i > 0) text += "  ";
            const std::string& cell = cell_of(i);
            text += columns_[i].align == Align::right ? fmt::format("{:>{}}", cell, widths[i])
                                                      : fmt::format("{:<{}}", cell, widths[i]);
        }
        text.erase(text.find_last_not_of(' ') + 1);
        out << text << '\n';
    };
    if (with_header) line([&](std::size_t i) -> const std::string& { return columns_[i].title; });
    for (const auto& row : rows_) line([&](std::size_t i) -> const std::string& { return row[i]; });
}

std::string human_bytes(std::uint64_t bytes)
{
    constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    if (bytes < 1024) return fmt::format("{} B", bytes);
    double value = static_cast<double>(bytes) / 1024;
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < kUnits.size()) {
        value /= 1024;
        ++unit;
    }
    return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

} // namespace twill::cli
