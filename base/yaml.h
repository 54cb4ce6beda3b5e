// base/yaml.h - YAML and JSON text as a tree whose every key and value knows its place.
//
// Built on yaml-cpp's event interface: its own node tree silently keeps duplicate keys and misplaces the
// marks of aliases and empty values. A duplicate key is a finding. Used by everything that reads a
// user's file: policies, topologies, test cases, tierlogd.yaml.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/diagnostics.h"

namespace tierlog::yaml {

enum class Kind : std::uint8_t { Null, Scalar, Sequence, Map };

// From byte `offset` of a scalar's text on, its bytes stand one after the other from (line, column).
struct TextPiece {
  std::size_t offset = 0;
  int line = 0;
  int column = 0;
};

struct Entry;

struct Node {
  Kind kind = Kind::Null;
  std::string text;     // of a scalar
  bool quoted = false;  // "yes", '5': a string whatever it looks like
  SourceRef place;
  std::vector<Node> items;        // of a sequence
  std::vector<Entry> entries;     // of a map, keys are scalars, in file order
  std::vector<TextPiece> pieces;  // of a scalar with escapes or several lines

  const Node* find(std::string_view key) const;  // nullptr when absent or not a map
  bool is_null() const;                          // null, ~ or empty, unquoted
  std::string kind_name() const;                 // "a map", "a list", "a string", "a number", "null"
  // Each reads an unquoted scalar of that type (a quoted one is none of them).
  std::optional<std::int64_t> as_int() const;
  std::optional<double> as_double() const;
  std::optional<bool> as_bool() const;
  // Unquoted text that some readers of YAML take for a number other than its decimal digits say: 0x50, 0120, 8e1.
  bool is_odd_number() const;
  // Where byte `offset` of a scalar's text stands in the file: behind the quote, in the right line of a
  // folded text.
  SourceRef place_at(std::size_t offset) const;
};

// Key and value. No std::pair: clang 14 wants Node whole before it looks at one.
struct Entry {
  Node first;
  Node second;
};

// Bounds on what a document may be; beyond them a finding, not a crash.
struct Limits {
  std::size_t max_bytes = 16u << 20;
  std::size_t max_depth = 64;
  std::size_t max_nodes = 2'000'000;  // aliases count as often as they are used
  std::size_t max_copied = 500'000;   // of them by aliases: a few bytes of text can ask for any number
};

struct Documents {
  std::vector<Node> documents;  // empty documents are left out
  Diagnostics findings;
};

Documents parse(std::string_view text, const std::string& file_name, const Limits& limits = {});
// A file's text ("-": standard input's); why it cannot be read is a finding without a line.
std::optional<std::string> read_file(const std::string& path, Diagnostics& findings,
                                     const Limits& limits = {});
// Both, one after the other.
Documents parse_file(const std::string& path, const Limits& limits = {});

}  // namespace tierlog::yaml
