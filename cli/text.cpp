#include "cli/text.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace tierlog::cli {
namespace {

struct Range {
  char32_t first, last;
};

// Shown as nothing, or change the order of what is around them: never printed as they are.
constexpr Range kHidden[] = {{0x00, 0x1f},     {0x7f, 0x9f},     {0xad, 0xad},      {0x61c, 0x61c},
                             {0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e},  {0x2060, 0x206f},
                             {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f}};
constexpr Range kCombining[] = {{0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},   {0x610, 0x61a},
                                {0x64b, 0x65f},   {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x20d0, 0x20ff},
                                {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};
constexpr Range kWide[] = {{0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},  {0xac00, 0xd7a3},
                           {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},  {0xffe0, 0xffe6},
                           {0x1f300, 0x1f64f}, {0x1f680, 0x1faff}, {0x20000, 0x3fffd}};

template <std::size_t n>
bool in(const Range (&ranges)[n], char32_t c) {
  return std::any_of(std::begin(ranges), std::end(ranges),
                     [c](const Range& r) { return r.first <= c && c <= r.last; });
}

struct CodePoint {
  char32_t value = 0;
  std::size_t bytes = 0;  // 0: the first byte is no start of a valid sequence
};

CodePoint decode(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const std::size_t length = lead >= 0xf0 && lead < 0xf5   ? 4
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xc2 && lead < 0xe0 ? 2
                                                           : 0;
  if (length == 0 || text.size() < length) return {};
  char32_t value = lead & (0xffu >> (length + 1));
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    value = (value << 6) | (byte(i) & 0x3f);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  const bool surrogate = value >= 0xd800 && value <= 0xdfff;
  if (overlong || surrogate || value > 0x10ffff) return {};
  return {value, length};
}

std::string escaped(char32_t value) {
  if (value == '\n') return "\\n";
  if (value == '\t') return "\\t";
  if (value == '\r') return "\\r";
  char text[16];
  std::snprintf(text, sizeof text, value < 0x80 ? "\\x%02x" : "\\u{%x}", static_cast<unsigned>(value));
  return text;
}

std::size_t width_of(char32_t c) {
  return in(kCombining, c) ? 0 : in(kWide, c) ? 2 : 1;
}

struct Piece {
  std::string_view bytes;
  std::size_t width;
};

std::vector<Piece> pieces(std::string_view text) {
  std::vector<Piece> all;
  while (!text.empty()) {
    const CodePoint c = decode(text);
    const std::size_t length = std::max<std::size_t>(c.bytes, 1);
    all.push_back({text.substr(0, length), c.bytes == 0 ? 1 : width_of(c.value)});
    text.remove_prefix(length);
  }
  return all;
}

template <typename Iterator>
std::size_t count_within(Iterator from, Iterator to, std::size_t width) {
  std::size_t taken = 0, used = 0;
  for (; from != to && used + from->width <= width; ++from, ++taken) used += from->width;
  return taken;
}

}  // namespace

std::string printable(std::string_view bytes) {
  std::string safe;
  safe.reserve(bytes.size());
  while (!bytes.empty()) {
    const CodePoint c = decode(bytes);
    if (c.bytes == 0) {
      char text[8];
      std::snprintf(text, sizeof text, "\\x%02x", static_cast<unsigned char>(bytes.front()));
      safe += text;
    } else if (in(kHidden, c.value)) {
      safe += escaped(c.value);
    } else {
      safe += bytes.substr(0, c.bytes);
    }
    bytes.remove_prefix(std::max<std::size_t>(c.bytes, 1));
  }
  return safe;
}

std::size_t display_width(std::string_view text) {
  std::size_t width = 0;
  for (const Piece& piece : pieces(text)) width += piece.width;
  return width;
}

std::string fit(std::string_view text, std::size_t width, Cut cut) {
  const std::vector<Piece> all = pieces(text);
  std::size_t total = 0;
  for (const Piece& piece : all) total += piece.width;
  if (total <= width) return std::string(text);
  if (width == 0) return {};
  const std::size_t room = width - 1;  // for the "…"
  const std::size_t tail_room = cut == Cut::End ? 0 : cut == Cut::Start ? room : room - room / 2;
  std::string result;
  const std::size_t head = count_within(all.begin(), all.end(), room - tail_room);
  for (std::size_t i = 0; i < head; ++i) result += all[i].bytes;
  result += "…";
  const std::size_t tail = count_within(all.rbegin(), all.rend(), tail_room);
  for (std::size_t i = all.size() - tail; i < all.size(); ++i) result += all[i].bytes;
  return result;
}

std::string padded(std::string_view text, std::size_t width, Align align) {
  const std::size_t used = display_width(text);
  const std::string blanks(width > used ? width - used : 0, ' ');
  return align == Align::Left ? std::string(text) + blanks : blanks + std::string(text);
}

}  // namespace tierlog::cli
