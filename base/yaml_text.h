// base/yaml_text.h - inside of yaml.cpp: a file's text in the form that the YAML parser takes.
//
//   bytes of a file --> [ParserText] --> yaml-cpp --values--> [ParserText::restore] --> nodes
//
// yaml-cpp knows byte order marks in front of the first document only, and refuses an escaped surrogate pair
// ("\ud83d\ude00", RFC 8259 section 7) in double quotes. Each pair is handed to it as four characters of
// three bytes, so that every place stays where it is in the file.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tierlog::yaml {

// Length in bytes of the well-formed UTF-8 sequence at the front of `text`, 0 when there is none.
std::size_t utf8_length(std::string_view text);

// Length of the escape in a double-quoted scalar that `text` begins with (a backslash is its first byte) and
// that stands for one character by number or letter: \u00e9, \n, a pair of surrogates. 0 for any other.
std::size_t escape_length(std::string_view text);

class ParserText {
 public:
  // `bytes` must outlive it.
  explicit ParserText(std::string_view bytes);
  ParserText(const ParserText&) = delete;
  ParserText& operator=(const ParserText&) = delete;

  // What places are counted in: without byte order marks at the beginnings of lines.
  std::string_view text() const { return text_; }
  // The same length, for the parser.
  std::string_view for_parser() const { return pairs_.empty() ? text_ : std::string_view(encoded_); }
  // The value of the scalar that begins at byte `at` of the text, as the file means it.
  void restore(std::string& value, std::size_t at, bool double_quoted) const;

 private:
  std::string without_marks_;
  std::string_view text_;
  std::string encoded_;             // empty without pairs
  std::vector<std::size_t> pairs_;  // where they stand, ascending
};

}  // namespace tierlog::yaml
