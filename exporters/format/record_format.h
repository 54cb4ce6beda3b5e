// exporters/format/record_format.h - the forms in which records leave: whose names the fields have, and which
// of them.
//
//   FlowRecord --to_json--> tierlog (docs/records.md), calico (its flow logs), ecs (Elastic Common Schema),
//                           ocsf (network activity, class 4001) --fields, omit--> what an output sends
//
// docs/exporting.md has the table of what becomes what.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "exporters/options.h"
#include "store/record.h"

namespace tierlog::exporters {

const std::vector<std::string>& format_names();

// All paths that a record may have in that form ("src_ip", "source.ip"), objects before what is in them; what
// is below labels and in lists has none.
std::vector<std::string> format_paths(std::string_view format);

// What is wrong with a choice of fields: "unknown field …"; one entry for each. Empty: nothing.
std::vector<std::string> check_format(const FormatOptions& options);

class RecordFormat {
 public:
  // The options must have passed check_format().
  explicit RecordFormat(FormatOptions options) : options_(std::move(options)) {}

  nlohmann::ordered_json to_json(const store::FlowRecord& record, const store::Origin& origin) const;
  // Tierlog's own names, whatever the choice.
  bool is_own() const { return options_.name == "tierlog"; }
  bool is_whole() const { return options_.fields.empty() && options_.omit.empty(); }
  // Is that path, or something in it, part of the choice?
  bool keeps(std::string_view path) const;
  // One line of JSON with its line end; what is not UTF-8 in a record is replaced.
  void append_line(std::string& text, const store::FlowRecord& record, const store::Origin& origin) const;

 private:
  FormatOptions options_;
};

// Of record_format.cpp's neighbours: each one form, whole.
nlohmann::ordered_json to_calico(const store::FlowRecord& record, const store::Origin& origin);
nlohmann::ordered_json to_ecs(const store::FlowRecord& record, const store::Origin& origin);
nlohmann::ordered_json to_ocsf(const store::FlowRecord& record, const store::Origin& origin);

// A record that has everything a record can have.
store::FlowRecord full_record();

}  // namespace tierlog::exporters
