// query/listing.h - what `flows` and `denied` list, whoever asks: completes the question, and says why an
// answer is empty.
//
//   cli/, api/ --[Asked]--> begin() --[Listing]--> FlowReader --rows--> query/items.h
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "query/filters.h"
#include "store/groups.h"
#include "store/query.h"

namespace tierlog::query {

struct Asked {
  store::FlowQuery query;
  Range range;             // as typed
  std::string policy;      // POLICY of `denied`
  bool denied = false;     // only what was denied, summed by flow
  bool restricts = false;  // a filter or time range was given
};

struct Listing {
  Asked asked;                              // its query is complete
  std::optional<store::GroupQuery> groups;  // sums instead of records
  std::vector<std::string> policies;        // displays that POLICY stands for
  store::Origin origin;
};

// Errors: InvalidArgument; NotFound for a policy that nobody knows, with the nearest known name.
Result<Listing> begin(store::FlowReader& reader, Asked asked);

// Why the listing is empty, and what to try. Errors: NotFound for a name in a filter that nobody knows.
Result<std::string> reason_for_nothing(store::FlowReader& reader, const Listing& listing);

// One row more than the limit, to find out whether there is more; and what to say then.
store::FlowQuery one_more(store::FlowQuery query);
std::string there_is_more(const store::FlowQuery& query);

// What is to be known of sums: which groups are left out, what the bins are.
std::vector<std::string> notes_of(const store::GroupQuery& query, const store::GroupResult& result);

// " in the last hour", " since 2026-...", "": the time range as the end of a sentence.
std::string range_text(const Range& range, const store::FlowQuery& query);

}  // namespace tierlog::query
