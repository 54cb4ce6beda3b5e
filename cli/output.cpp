#include "cli/output.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/console.h"

namespace tierlog::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string dump(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

Json parse(const std::string& item) {
  return Json::parse(item, nullptr, false);
}

std::string csv_value(const Json& value) {
  if (value.is_null()) return {};
  return csv_field(value.is_string() ? value.get<std::string>() : dump(value));
}

std::vector<std::string> keys_of(const std::vector<Json>& items) {
  std::vector<std::string> keys;
  for (const Json& item : items)
    for (const auto& [key, value] : item.items())
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
  return keys;
}

std::string csv_header(const std::vector<std::string>& keys) {
  std::string line;
  for (const std::string& key : keys) line += (line.empty() ? "" : ",") + csv_field(key);
  return line + "\n";
}

std::string csv_row(const std::vector<std::string>& keys, const Json& item) {
  std::string line;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    if (i > 0) line += ',';
    if (item.contains(keys[i])) line += csv_value(item[keys[i]]);
  }
  return line + "\n";
}

void print_json(const Listing& listing) {
  Json items = Json::array();
  for (const std::string& item : listing.items) items.push_back(parse(item));
  Json notes = listing.notes;
  if (items.empty() && !listing.empty.empty()) notes.push_back(listing.empty);
  out(dump(Json{{"items", std::move(items)}, {"notes", std::move(notes)}}, 2) + "\n");
}

void print_csv(const Listing& listing) {
  std::vector<Json> items;
  for (const std::string& item : listing.items) items.push_back(parse(item));
  std::vector<std::string> keys = listing.keys;
  for (std::string& key : keys_of(items))
    if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(std::move(key));
  if (keys.empty()) return;
  out(csv_header(keys));
  for (const Json& item : items) out(csv_row(keys, item));
}

void print_table(const Listing& listing, bool wide) {
  if (listing.table.empty()) return;
  out(listing.table.render(stdout_view(wide)));
  if (!listing.summary.empty()) out(printable(listing.summary) + "\n");
}

}  // namespace

Result<Format> parse_format(std::string_view text, std::string_view allowed) {
  static constexpr std::pair<std::string_view, Format> kNames[] = {{"table", Format::Table},
                                                                   {"wide", Format::Wide},
                                                                   {"json", Format::Json},
                                                                   {"jsonl", Format::Jsonl},
                                                                   {"csv", Format::Csv}};
  const std::string all = "|" + std::string(allowed) + "|";
  for (const auto& [name, format] : kNames)
    if (name == text && all.find("|" + std::string(name) + "|") != std::string::npos) return format;
  return fail(ErrorCode::InvalidArgument,
              "-o \"" + std::string(text) + "\" is no output form here; expected " + std::string(allowed));
}

void print(const Listing& listing, Format format) {
  if (format == Format::Json) return print_json(listing);
  if (format == Format::Jsonl)
    for (const std::string& item : listing.items) out(item + "\n");
  if (format == Format::Csv) print_csv(listing);
  if (format == Format::Table || format == Format::Wide) print_table(listing, format == Format::Wide);
  if (listing.items.empty() && !listing.empty.empty()) say(listing.empty);
  for (const std::string& note : listing.notes) say(note);
}

void ItemStream::print(const std::string& item) {
  if (format_ != Format::Csv) return out(item + "\n");
  const Json object = parse(item);
  if (csv_keys_.empty()) csv_keys_ = keys_of({object});
  if (!std::exchange(begun_, true)) out(csv_header(csv_keys_));
  out(csv_row(csv_keys_, object));
}

std::string indented(const std::string& json) {
  return dump(parse(json), 2) + "\n";
}

std::string csv_field(std::string_view text) {
  if (text.find_first_of(",\"\r\n") == std::string_view::npos) return std::string(text);
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

}  // namespace tierlog::cli
