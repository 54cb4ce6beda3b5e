// base/fields.h - reading a map of a user's file field by field, with exact findings.
//
//   base/yaml.h trees --> [Fields] --> whoever knows what the fields mean (policies, topologies, settings)
//
// Whatever is wrong becomes a finding at its place and reads as absent, so that a reader goes on and all
// findings come at once. null reads as absent, as Kubernetes has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/yaml.h"

namespace tierlog::yaml {

// "Allow, Deny, Log or Pass".
std::string one_of(const std::vector<std::string>& words);
// `unknown action "Dney"; expected Allow, Deny, Log or Pass (did you mean Deny?)`
std::string unknown_word(std::string_view what, std::string_view word, const std::vector<std::string>& known);
// The item as text; a finding when it is none ("5 is a number; expected a string (write it in quotes)").
std::optional<std::string> read_string(const Node& node, std::string_view what, Diagnostics& findings);

class Fields {
 public:
  // `what` names the map in messages: "the policy's spec". A node that is no map is a finding and has no
  // fields.
  Fields(const Node& node, std::string what, Diagnostics& findings);
  // Fields that nobody asked for are findings, with the nearest name that somebody did ask for.
  ~Fields();
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  // The value of a field, nullptr when absent or null.
  const Node* get(std::string_view key);
  // A missing one is a finding at the map.
  const Node* require(std::string_view key);
  void accept(std::initializer_list<std::string_view> keys);  // legal, but nobody reads them
  bool has(std::string_view key) const;                       // present and not null; does not make it legal
  // Where the field's key stands; the map's place when it is absent.
  SourceRef place_of(std::string_view key) const;

  std::optional<std::string> string(std::string_view key);
  std::optional<std::string> require_string(std::string_view key);  // not empty
  std::optional<bool> boolean(std::string_view key);
  std::optional<double> number(std::string_view key);
  std::optional<std::int64_t> integer(std::string_view key, std::int64_t lowest, std::int64_t highest);
  // The index of the field's word in `words`.
  std::optional<std::size_t> choice(std::string_view key, const std::vector<std::string>& words);
  std::vector<const Node*> list(std::string_view key);     // items of a list; null items are findings
  std::vector<std::string> strings(std::string_view key);  // a list of strings
  const Node* map(std::string_view key);

  const Node& node() const { return node_; }
  bool is_map() const { return node_.kind == Kind::Map; }
  const std::string& what() const { return what_; }
  Diagnostics& findings() { return findings_; }

 private:
  const Node& node_;
  std::string what_;
  Diagnostics& findings_;
  std::vector<std::string> known_;
};

}  // namespace tierlog::yaml
