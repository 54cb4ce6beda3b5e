#include "base/diagnostics.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <tuple>

namespace tierlog {
namespace {

char lower(char c) { return static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// Damerau-Levenshtein (adjacent swaps count one), ignoring case.
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1;
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + change});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]))
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
    before = last;
    last = row;
  }
  return last[b.size()];
}

// Messages quote what users wrote: a line break or an escape sequence of a terminal must not come through.
std::string on_one_line(const std::string& message) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte != 0x7f)
      text += c;
    else
      text += std::string("\\x") + kHex[byte >> 4] + kHex[byte & 15];
  }
  return text;
}

}  // namespace

std::string SourceRef::to_string() const {
  if (line == 0) return file;
  if (column == 0) return file + ":" + std::to_string(line);
  return file + ":" + std::to_string(line) + ":" + std::to_string(column);
}

std::string Diagnostic::to_string() const {
  return place.to_string() + (severity == Severity::Warning ? ": warning: " : ": ") + on_one_line(message);
}

void Diagnostics::error(SourceRef place, std::string message) {
  all_.push_back({Severity::Error, std::move(place), std::move(message)});
  ++errors_;
}

void Diagnostics::warning(SourceRef place, std::string message) {
  all_.push_back({Severity::Warning, std::move(place), std::move(message)});
}

void Diagnostics::add(const Diagnostics& other) {
  all_.insert(all_.end(), other.all_.begin(), other.all_.end());
  errors_ += other.errors_;
}

void Diagnostics::sort() {
  std::stable_sort(all_.begin(), all_.end(), [](const Diagnostic& a, const Diagnostic& b) {
    return std::tie(a.place.file, a.place.line, a.place.column) <
           std::tie(b.place.file, b.place.line, b.place.column);
  });
  all_.erase(std::unique(all_.begin(), all_.end()), all_.end());
  errors_ = static_cast<std::size_t>(std::count_if(
      all_.begin(), all_.end(), [](const Diagnostic& d) { return d.severity == Severity::Error; }));
}

std::string Diagnostics::to_string() const {
  std::string text;
  for (const Diagnostic& finding : all_) text += finding.to_string() + "\n";
  return text;
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const std::size_t d = distance(word, candidate);
    if (d < best_distance) {
      best_distance = d;
      best = candidate;
    }
  }
  return best;
}

}  // namespace tierlog
