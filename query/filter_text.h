// query/filter_text.h - filters as one text, as they would stand behind `tierlog flows`.
//
//   "--action deny --logged --not --namespace kube-system" --> filters (query/filters.h)
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "store/query.h"

namespace tierlog::query {

// Words are divided by white space; quotes of either kind keep it. Values are checked as well.
// Errors: InvalidArgument with a sentence; --since, --limit and the like are no filters.
Result<std::vector<store::FieldFilter>> parse_filter_text(std::string_view text);

}  // namespace tierlog::query
