#include "cli/table.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace tierlog::cli {
namespace {

// How a table is laid out: the result of fitting it to a width.
struct Layout {
  std::vector<std::size_t> widths;  // 0 = the column is left out
  std::size_t gap = 2;
  bool brief = false;

  std::size_t total() const {
    const auto shown = static_cast<std::size_t>(
        std::count_if(widths.begin(), widths.end(), [](std::size_t w) { return w > 0; }));
    return std::accumulate(widths.begin(), widths.end(), std::size_t{0}) +
           (shown > 1 ? (shown - 1) * gap : 0);
  }
};

const std::string& shown_text(const Cell& cell, bool brief) {
  return brief && !cell.brief.empty() ? cell.brief : cell.text;
}

using Rows = std::vector<std::vector<Cell>>;

// Without rows nobody knows them yet: then the typical widths count.
std::vector<std::size_t> natural_widths(const std::vector<Column>& columns, const Rows& rows, bool wide,
                                        bool brief) {
  std::vector<std::size_t> widths(columns.size(), 0);
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (columns[i].wide_only && !wide) continue;
    widths[i] = std::max<std::size_t>(1, display_width(columns[i].title));
    const std::size_t short_form = columns[i].typical_brief;
    const std::size_t expected = brief && short_form > 0 ? short_form : columns[i].typical;
    if (rows.empty()) widths[i] = std::max(widths[i], expected);
    for (const auto& row : rows) widths[i] = std::max(widths[i], display_width(shown_text(row[i], brief)));
  }
  return widths;
}

// Takes columns off the widest cuttable columns until the table fits or nothing is left to take.
void cut_widest(Layout& layout, const std::vector<Column>& columns, std::size_t width) {
  for (std::size_t excess = layout.total() > width ? layout.total() - width : 0; excess > 0; --excess) {
    std::size_t best = columns.size();
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const bool cuttable = columns[i].min_width > 0 && layout.widths[i] > columns[i].min_width;
      if (cuttable && (best == columns.size() || layout.widths[i] > layout.widths[best])) best = i;
    }
    if (best == columns.size()) return;
    --layout.widths[best];
  }
}

bool drop_one(std::vector<std::size_t>& widths, const std::vector<Column>& columns) {
  std::size_t worst = columns.size();
  for (std::size_t i = 0; i < columns.size(); ++i)
    if (widths[i] > 0 && columns[i].drop > 0 &&
        (worst == columns.size() || columns[i].drop > columns[worst].drop))
      worst = i;
  if (worst == columns.size()) return false;
  widths[worst] = 0;
  return true;
}

Layout lay_out(const std::vector<Column>& columns, const Rows& rows, const View& view) {
  Layout layout{natural_widths(columns, rows, view.wide, false)};
  if (view.wide || layout.total() <= view.width) return layout;
  layout.brief = true;
  layout.widths = natural_widths(columns, rows, false, true);
  if (layout.total() <= view.width) return layout;
  layout.gap = 1;
  std::vector<std::size_t> widths = layout.widths;
  do {
    layout.widths = widths;
    cut_widest(layout, columns, view.width);
  } while (layout.total() > view.width && drop_one(widths, columns));
  return layout;
}

std::string line_of(const std::vector<Column>& columns, const std::vector<Cell>& cells, const Layout& layout,
                    const View& view) {
  std::string line;
  std::size_t pending = 0;  // blanks owed before the next cell: lines end without any
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const std::size_t width = layout.widths[i];
    if (width == 0) continue;
    const std::string& whole = shown_text(cells[i], layout.brief);
    const std::string text = view.wide ? whole : fit(whole, width, columns[i].cut);
    const std::size_t used = display_width(text);
    const std::size_t fill = width > used ? width - used : 0;
    const std::size_t before = columns[i].align == Align::Right ? fill : 0;
    if (!text.empty()) {
      line.append(pending + before, ' ');
      line += styled(text, cells[i].style, view.colour);
      pending = fill - before + layout.gap;
    } else {
      pending += width + layout.gap;
    }
  }
  return line + "\n";
}

std::vector<Cell> titles(const std::vector<Column>& columns) {
  std::vector<Cell> cells;
  for (const Column& column : columns) cells.emplace_back(column.title, Style::Heading);
  return cells;
}

void make_printable(std::vector<Cell>& cells) {
  for (Cell& cell : cells) {
    cell.text = printable(cell.text);
    cell.brief = printable(cell.brief);
  }
}

}  // namespace

std::string styled(std::string_view text, Style style, bool colour) {
  if (!colour || text.empty() || style == Style::Plain) return std::string(text);
  const char* code = style == Style::Allow    ? "\x1b[32m"
                     : style == Style::Deny   ? "\x1b[31m"
                     : style == Style::Staged ? "\x1b[33m"
                                              : "\x1b[1m";
  return code + std::string(text) + "\x1b[0m";
}

void Table::add(std::vector<Cell> cells) {
  cells.resize(columns_.size());
  make_printable(cells);
  rows_.push_back(std::move(cells));
}

std::string Table::render(const View& view) const {
  const Layout layout = lay_out(columns_, rows_, view);
  std::string text = line_of(columns_, titles(columns_), layout, view);
  for (const auto& row : rows_) text += line_of(columns_, row, layout, view);
  return text;
}

LiveTable::LiveTable(std::vector<Column> columns, const View& view)
    : columns_(std::move(columns)), view_(view) {
  Layout layout = lay_out(columns_, {}, view_);
  // Nobody knows the rows, so brief forms are the only choice when there is no room to spare.
  widths_ = std::move(layout.widths);
  gap_ = layout.gap;
  brief_ = layout.brief;
}

std::string LiveTable::header() const {
  return line_of(columns_, titles(columns_), {widths_, gap_, brief_}, view_);
}

std::string LiveTable::row(std::vector<Cell> cells) const {
  cells.resize(columns_.size());
  make_printable(cells);
  return line_of(columns_, cells, {widths_, gap_, brief_}, view_);
}

}  // namespace tierlog::cli
