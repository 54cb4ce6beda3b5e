// cli/output.h - every listing in the five forms of -o.
//
//   command --[Listing: table rows + JSON items + notes]--> table | wide | json | jsonl | csv
//
// json is one object {"items":[…],"notes":[…]}; jsonl an item a line; csv has the items' keys as its
// first line, nested values as JSON text. Notes go to stderr in every form but json.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cli/table.h"

namespace tierlog::cli {

enum class Format { Table, Wide, Json, Jsonl, Csv };
inline constexpr const char* kAllFormats = "table|wide|json|jsonl|csv";
inline constexpr const char* kTextOrJson = "table|json";

// `allowed`: the names that the command knows, separated by "|".
Result<Format> parse_format(std::string_view text, std::string_view allowed = kAllFormats);

struct Listing {
  explicit Listing(std::vector<Column> columns) : table(std::move(columns)) {}

  Table table;
  std::vector<std::string> items;  // one JSON object each
  std::vector<std::string> notes;
  std::string summary;  // the line under the table
  std::string empty;    // why there is nothing, and what to try
  std::vector<std::string> keys;  // columns of csv, whatever items there are; empty: those that the items have
};

void print(const Listing& listing, Format format);

// Items of a listing that has no end: lines for jsonl and csv, as they come.
class ItemStream {
 public:
  // `keys`: columns of csv; those of the first item unless given.
  explicit ItemStream(Format format, std::vector<std::string> keys = {}) : format_(format), csv_keys_(std::move(keys)) {}
  void print(const std::string& item);

 private:
  Format format_;
  bool begun_ = false;
  std::vector<std::string> csv_keys_;
};

// A JSON value as people read it: two blanks a level.
std::string indented(const std::string& json);
std::string csv_field(std::string_view text);  // quoted as RFC 4180 says, when it must be

}  // namespace tierlog::cli
