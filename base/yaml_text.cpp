#include "base/yaml_text.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <optional>

namespace tierlog::yaml {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::size_t kPair = 12;  // bytes of "\ud83d\ude00"

// Characters that stand for none (U+FDD0 to U+FDEF): four of them hold the twenty bits of a pair.
constexpr std::string_view kDigit = "\xef\xb7";
constexpr unsigned char kFirstDigit = 0x90, kLastDigit = 0xaf;
constexpr std::size_t kDigitBytes = 3, kDigits = 4;
constexpr unsigned kBitsOfDigit = 5, kBitsOfSurrogate = 10;

bool is_digit(std::string_view text) {
  return text.size() >= kDigitBytes && text.starts_with(kDigit) &&
         static_cast<unsigned char>(text[2]) >= kFirstDigit &&
         static_cast<unsigned char>(text[2]) <= kLastDigit;
}

bool has_digits(std::string_view text) {
  for (std::size_t at = text.find(kDigit); at != std::string_view::npos; at = text.find(kDigit, at + 1))
    if (is_digit(text.substr(at))) return true;
  return false;
}

// The number behind "\u", four hexadecimal digits.
std::optional<std::uint32_t> escaped_unit(std::string_view text) {
  if (text.size() < 6 || text[0] != '\\' || text[1] != 'u') return std::nullopt;
  std::uint32_t unit = 0;
  for (const char c : text.substr(2, 4)) {
    if (std::isxdigit(static_cast<unsigned char>(c)) == 0) return std::nullopt;
    const int lower = std::tolower(static_cast<unsigned char>(c));
    unit = unit << 4 | static_cast<std::uint32_t>(lower <= '9' ? lower - '0' : lower - 'a' + 10);
  }
  return unit;
}

// The twenty bits of the escaped pair that `text` begins with.
std::optional<std::uint32_t> pair_at(std::string_view text) {
  const auto high = escaped_unit(text);
  if (!high || *high < 0xd800 || *high > 0xdbff) return std::nullopt;
  const auto low = escaped_unit(text.substr(6));
  if (!low || *low < 0xdc00 || *low > 0xdfff) return std::nullopt;
  return (*high - 0xd800) << kBitsOfSurrogate | (*low - 0xdc00);
}

void encode(std::uint32_t bits, char* into) {
  for (std::size_t i = 0; i < kDigits; ++i) {
    const unsigned shift = kBitsOfDigit * static_cast<unsigned>(kDigits - 1 - i);
    *into++ = kDigit[0];
    *into++ = kDigit[1];
    *into++ = static_cast<char>(kFirstDigit + (bits >> shift & 0x1f));
  }
}

std::optional<std::uint32_t> decode(std::string_view text) {
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < kDigits; ++i, text.remove_prefix(kDigitBytes)) {
    if (!is_digit(text)) return std::nullopt;
    bits =
        bits << kBitsOfDigit | static_cast<std::uint32_t>(static_cast<unsigned char>(text[2]) - kFirstDigit);
  }
  return bits;
}

std::string utf8(std::uint32_t code) {  // above U+FFFF
  return {static_cast<char>(0xf0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 0x3f)),
          static_cast<char>(0x80 | (code >> 6 & 0x3f)), static_cast<char>(0x80 | (code & 0x3f))};
}

// Behind an odd number of backslashes stands an escaped one.
bool is_escaped(std::string_view text, std::size_t at) {
  std::size_t before = 0;
  while (before < at && text[at - before - 1] == '\\') ++before;
  return before % 2 == 1;
}

}  // namespace

std::size_t utf8_length(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t length = first >= 0xf0 && first < 0xf5   ? 4
                             : first >= 0xe0 && first < 0xf0 ? 3
                             : first >= 0xc2 && first < 0xe0 ? 2
                                                             : 0;
  if (length == 0 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  const bool overlong = (first == 0xe0 && byte(1) < 0xa0) || (first == 0xf0 && byte(1) < 0x90);
  const bool surrogate = first == 0xed && byte(1) >= 0xa0;
  const bool too_high = first == 0xf4 && byte(1) >= 0x90;
  return overlong || surrogate || too_high ? 0 : length;
}

std::size_t escape_length(std::string_view text) {
  if (text.size() < 2) return 0;
  switch (text[1]) {
    case 'x':
      return 4;
    case 'u':
      return pair_at(text) ? kPair : 6;
    case 'U':
      return 10;
    default:
      return std::isalnum(static_cast<unsigned char>(text[1])) != 0 || text[1] == '_' ? 2 : 0;
  }
}

ParserText::ParserText(std::string_view bytes) : text_(bytes) {
  if (text_.starts_with(kByteOrderMark)) text_.remove_prefix(kByteOrderMark.size());
  constexpr std::string_view kMarkedLine = "\n\xef\xbb\xbf";
  std::size_t from = 0;
  for (std::size_t at = text_.find(kMarkedLine); at != std::string_view::npos;
       at = text_.find(kMarkedLine, from)) {
    without_marks_.append(text_, from, at + 1 - from);
    from = at + kMarkedLine.size();
  }
  if (from > 0) {
    without_marks_.append(text_, from);
    text_ = without_marks_;
  }
  for (std::size_t at = text_.find("\\u"); at != std::string_view::npos; at = text_.find("\\u", at + 1))
    if (pair_at(text_.substr(at)) && !is_escaped(text_, at)) pairs_.push_back(at);
  // Where a text uses these characters itself, its pairs are left to the parser, which refuses them.
  if (!pairs_.empty() && has_digits(text_)) pairs_.clear();
  if (pairs_.empty()) return;
  encoded_ = text_;
  for (const std::size_t at : pairs_) encode(*pair_at(text_.substr(at)), encoded_.data() + at);
}

void ParserText::restore(std::string& value, std::size_t at, bool double_quoted) const {
  if (pairs_.empty() || !has_digits(value)) return;
  auto pair = std::lower_bound(pairs_.begin(), pairs_.end(), at);
  const std::string_view whole = value;
  std::string meant;
  std::size_t done = 0;
  for (std::size_t found = whole.find(kDigit); found != std::string_view::npos;
       found = whole.find(kDigit, found)) {
    const auto bits = decode(whole.substr(found));
    // Not in double quotes it is no escape: it stays as it stands in the file, capital digits or not.
    while (bits && !double_quoted && pair != pairs_.end() && pair_at(text_.substr(*pair)) != bits) ++pair;
    if (!bits || (!double_quoted && pair == pairs_.end())) {
      ++found;
      continue;
    }
    meant.append(whole, done, found - done);
    meant += double_quoted ? utf8(0x10000 + *bits) : std::string(text_.substr(*pair++, kPair));
    done = found += kPair;
  }
  meant.append(whole, done);
  value = std::move(meant);
}

}  // namespace tierlog::yaml
