#include "base/fields.h"

#include <algorithm>

namespace tierlog::yaml {
namespace {

// `"5" is a number` / `found a list`: what stands there, said shortly.
std::string found(const Node& node) {
  if (node.kind == Kind::Scalar) return "\"" + node.text + "\" is " + node.kind_name();
  return "found " + node.kind_name();
}

}  // namespace

std::string one_of(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i];
  }
  return text;
}

std::string unknown_word(std::string_view what, std::string_view word,
                         const std::vector<std::string>& known) {
  std::string text =
      "unknown " + std::string(what) + " \"" + std::string(word) + "\"; expected " + one_of(known);
  const std::string near = nearest(word, known);
  if (!near.empty()) text += " (did you mean " + near + "?)";
  return text;
}

std::optional<std::string> read_string(const Node& node, std::string_view what, Diagnostics& findings) {
  const bool plain_other = node.kind == Kind::Scalar && node.kind_name() != "a string" && !node.quoted;
  if (node.kind == Kind::Scalar && !plain_other) return node.text;
  findings.error(node.place, std::string(what) + ": " + found(node) + "; expected a string" +
                                 (plain_other ? " (write it in quotes)" : ""));
  return std::nullopt;
}

Fields::Fields(const Node& node, std::string what, Diagnostics& findings)
    : node_(node), what_(std::move(what)), findings_(findings) {
  if (!is_map()) findings_.error(node.place, what_ + ": " + found(node) + "; expected a map");
}

Fields::~Fields() {
  std::vector<std::string> sorted = known_;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  for (const auto& entry : node_.entries) {
    const Node& key = entry.first;
    if (std::binary_search(sorted.begin(), sorted.end(), key.text)) continue;
    const std::string near = nearest(key.text, sorted);
    findings_.error(key.place, "unknown field \"" + key.text + "\" in " + what_ + "; expected " +
                                   one_of(sorted) + (near.empty() ? "" : " (did you mean " + near + "?)"));
  }
}

const Node* Fields::get(std::string_view key) {
  known_.emplace_back(key);
  const Node* value = node_.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

const Node* Fields::require(std::string_view key) {
  const Node* value = get(key);
  if (value == nullptr && is_map())
    findings_.error(place_of(key),
                    "missing field \"" + std::string(key) + "\" in " + what_ + "; it is required");
  return value;
}

void Fields::accept(std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) known_.emplace_back(key);
}

bool Fields::has(std::string_view key) const {
  const Node* value = node_.find(key);
  return value != nullptr && !value->is_null();
}

SourceRef Fields::place_of(std::string_view key) const {
  for (const auto& entry : node_.entries)
    if (entry.first.text == key) return entry.first.place;
  return node_.place;
}

std::optional<std::string> Fields::string(std::string_view key) {
  const Node* value = get(key);
  if (value == nullptr) return std::nullopt;
  return read_string(*value, key, findings_);
}

std::optional<std::string> Fields::require_string(std::string_view key) {
  const Node* value = require(key);
  if (value == nullptr) return std::nullopt;
  auto text = read_string(*value, key, findings_);
  if (text && text->empty()) {
    findings_.error(value->place, std::string(key) + " is empty; expected a text");
    return std::nullopt;
  }
  return text;
}

std::optional<bool> Fields::boolean(std::string_view key) {
  const Node* value = get(key);
  if (value == nullptr) return std::nullopt;
  const auto boolean = value->as_bool();
  if (!boolean)
    findings_.error(value->place, std::string(key) + ": " + found(*value) + "; expected true or false");
  return boolean;
}

std::optional<double> Fields::number(std::string_view key) {
  const Node* value = get(key);
  if (value == nullptr) return std::nullopt;
  const auto number = value->as_double();
  if (!number) findings_.error(value->place, std::string(key) + ": " + found(*value) + "; expected a number");
  return number;
}

std::optional<std::int64_t> Fields::integer(std::string_view key, std::int64_t lowest, std::int64_t highest) {
  const Node* value = get(key);
  if (value == nullptr) return std::nullopt;
  const auto integer = value->as_int();
  if (integer && *integer >= lowest && *integer <= highest) return integer;
  findings_.error(value->place, std::string(key) + ": " +
                                    (integer ? value->text + " is out of range" : found(*value)) +
                                    "; expected a whole number from " + std::to_string(lowest) + " to " +
                                    std::to_string(highest));
  return std::nullopt;
}

std::optional<std::size_t> Fields::choice(std::string_view key, const std::vector<std::string>& words) {
  const Node* value = get(key);
  if (value == nullptr) return std::nullopt;
  const auto text = read_string(*value, key, findings_);
  if (!text) return std::nullopt;
  const auto at = std::find(words.begin(), words.end(), *text);
  if (at != words.end()) return static_cast<std::size_t>(at - words.begin());
  findings_.error(value->place, unknown_word(key, *text, words));
  return std::nullopt;
}

std::vector<const Node*> Fields::list(std::string_view key) {
  std::vector<const Node*> items;
  const Node* value = get(key);
  if (value == nullptr) return items;
  if (value->kind != Kind::Sequence) {
    findings_.error(value->place, std::string(key) + ": " + found(*value) + "; expected a list");
    return items;
  }
  for (const Node& item : value->items) {
    if (item.is_null())
      findings_.error(item.place, std::string(key) + ": an item is empty; expected a value");
    else
      items.push_back(&item);
  }
  return items;
}

std::vector<std::string> Fields::strings(std::string_view key) {
  std::vector<std::string> texts;
  for (const Node* item : list(key))
    if (auto text = read_string(*item, key, findings_)) texts.push_back(std::move(*text));
  return texts;
}

const Node* Fields::map(std::string_view key) {
  const Node* value = get(key);
  if (value == nullptr || value->kind == Kind::Map) return value;
  findings_.error(value->place, std::string(key) + ": " + found(*value) + "; expected a map");
  return nullptr;
}

}  // namespace tierlog::yaml
