// cli/table.h - rows as an aligned table that fits the terminal.
//
// When the natural widths do not fit, in this order: cells with a brief form use it, gaps shrink to one
// blank, the widest columns that allow it are cut ("…"), columns with a `drop` rank are left out.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "cli/text.h"

namespace tierlog::cli {

// Colours by meaning; they repeat what a word in the line says.
enum class Style { Plain, Allow, Deny, Staged, Heading };
// `text` with the style's colour around it when `colour` is set.
std::string styled(std::string_view text, Style style, bool colour);

struct Cell {
  std::string text;
  Style style = Style::Plain;
  std::string brief{};  // shorter form for narrow terminals; empty = the same

  Cell() = default;
  Cell(std::string value, Style s = Style::Plain, std::string short_form = {})
      : text(std::move(value)), style(s), brief(std::move(short_form)) {}
  Cell(const char* value) : text(value) {}
};

struct Column {
  std::string title;
  Align align = Align::Left;
  std::size_t min_width = 0;  // may be cut down to this; 0 = is never cut
  Cut cut = Cut::End;
  int drop = 0;  // 0 = always shown, else the highest goes first
  bool wide_only = false;
  // Expected widths, full and brief, for tables whose rows come one after the other.
  std::size_t typical = 0;
  std::size_t typical_brief = 0;  // 0 = the same
};

struct View {
  std::size_t width = 120;
  bool wide = false;  // all columns, nothing cut
  bool colour = false;
};

class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // One cell a column; cells are made printable() here.
  void add(std::vector<Cell> cells);
  bool empty() const { return rows_.empty(); }
  std::size_t rows() const { return rows_.size(); }
  std::string render(const View& view) const;  // header and rows, each ended by a newline

 private:
  friend class LiveTable;
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// The same for rows that are not known yet (--follow): widths are settled once, by `typical`.
class LiveTable {
 public:
  LiveTable(std::vector<Column> columns, const View& view);
  std::string header() const;
  std::string row(std::vector<Cell> cells) const;

 private:
  std::vector<Column> columns_;
  View view_;
  std::vector<std::size_t> widths_;  // 0 = left out
  std::size_t gap_ = 2;
  bool brief_ = false;
};

}  // namespace tierlog::cli
