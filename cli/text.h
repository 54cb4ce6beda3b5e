// cli/text.h - text as a terminal shows it: width in columns, safe to print, cut to a width.
//
// Names, labels and messages come from files and pods and may hold any bytes. printable() makes them
// harmless first (nothing can move the cursor or reorder the line); the others expect its result.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace tierlog::cli {

// Control characters, invisible and direction-changing code points and bytes that are no UTF-8 become
// "\n", "\t", "\x1b" or "\u{202e}"; everything else stays.
std::string printable(std::string_view bytes);

// Columns that `text` takes: 2 for wide East Asian and emoji, 0 for combining marks.
std::size_t display_width(std::string_view text);

enum class Cut { End, Middle, Start };
// `text`, or a part of it with "…" for what was cut out, at most `width` columns wide.
std::string fit(std::string_view text, std::size_t width, Cut cut = Cut::End);

enum class Align { Left, Right };
// Filled with blanks to `width` columns; longer text stays as it is.
std::string padded(std::string_view text, std::size_t width, Align align = Align::Left);

}  // namespace tierlog::cli
