// exporters/fluentbit/tag.h - tags made of what a record says: "tierlog.{action}.{tier}".
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/record.h"

namespace tierlog::exporters::fluentbit {

class TagPattern {
 public:
  // Errors: InvalidArgument with a sentence ("unknown field {tear}; …").
  static Result<TagPattern> parse(std::string_view text);
  // Parts of a value that would be taken for a part of the tag (dots, white space, …) become "_"; a value that
  // a record has not is "none".
  void append(std::string& tag, const store::FlowRecord& record, const store::Origin& origin) const;
  bool is_fixed() const { return fields_.empty(); }

 private:
  std::vector<std::string> texts_;   // one more than fields
  std::vector<std::size_t> fields_;  // of the table
};

// What may stand in braces.
std::vector<std::string> tag_fields();

}  // namespace tierlog::exporters::fluentbit
