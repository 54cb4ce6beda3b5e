#include "query/listing.h"

#include <algorithm>

#include "base/text.h"
#include "query/names.h"
#include "store/patterns.h"

namespace tierlog::query {
namespace {

using Field = store::FieldFilter::Field;

std::string unit_phrase(Nanoseconds ago) {
  using namespace std::chrono_literals;
  if (ago == 1h) return "hour";
  if (ago == 24h) return "day";
  if (ago == 1min) return "minute";
  return format_duration(ago);
}

Result<void> require_all_policies(store::FlowReader& reader, const store::FlowQuery& query) {
  for (const store::FieldFilter& filter : query.filters) {
    if (filter.field != Field::Policy || filter.negate) continue;
    for (const std::string& value : store::split_values(filter.values))
      TL_TRY(require_policies(reader, value));
  }
  return {};
}

bool asks_for_policy(const store::FlowQuery& query) {
  return std::any_of(query.filters.begin(), query.filters.end(), [](const store::FieldFilter& filter) {
    return filter.field == Field::Policy && !filter.negate;
  });
}

// A staged policy denies nothing, but says what it would.
Result<std::string> staged_hint(store::FlowReader& reader, const Listing& listing) {
  TL_ASSIGN(const auto board, reader.policies());
  std::uint64_t would = 0;
  for (const std::string& display : listing.policies) {
    const auto found = std::find_if(board.begin(), board.end(), [&](const store::PolicyActivity& activity) {
      return activity.policy.display == display;
    });
    if (found == board.end() || !found->policy.staged) return std::string();
    would += found->staged_denied;
  }
  return listing.policies.front() + " is staged and denies nothing; it would have denied " +
         counted(would, "packet") +
         ": `tierlog flows --staged-action deny` lists what staged policies would deny";
}

}  // namespace

Result<std::string> reason_for_nothing(store::FlowReader& reader, const Listing& listing) {
  const Asked& asked = listing.asked;
  const std::string what = asked.denied ? "denied flow" : "flow";
  store::FlowQuery any_record;
  any_record.limit = 1;
  TL_ASSIGN(const auto any, reader.flows(any_record));
  TL_TRY(require_known_names(reader, asked.query));
  if (any.empty())
    return std::string(
        "nothing has been recorded yet: records appear with the first connection from or to an "
        "enforced pod (`tierlog status` says whether the daemon sees traffic)");
  if (asked.query.since || asked.query.until) {
    store::FlowQuery whole_time = asked.query;
    whole_time.since = whole_time.until = std::nullopt;
    whole_time.limit = 1;
    TL_ASSIGN(const auto newest, reader.flows(whole_time));
    if (!newest.empty())
      return "no " + what + " matches" + range_text(asked.range, asked.query) + "; the newest that does ended " +
             format_for_people(newest.front().record.end) + " UTC (try another time range)";
  }
  if (!listing.policies.empty()) {
    TL_ASSIGN(const auto hint, staged_hint(reader, listing));
    if (!hint.empty()) return hint;
  }
  if (!asked.policy.empty() && !asked.restricts)
    return listing.policies.front() +
           (listing.policies.size() > 1 ? " and the others that match have" : " has") +
           " denied nothing that is recorded; `tierlog rules " + asked.policy +
           "` shows what its rules counted";
  if (asked.denied && !asked.restricts)
    return std::string("nothing has been denied so far; `tierlog flows` lists what was allowed");
  return "no recorded " + what + " matches these filters; leave one out or list all with `tierlog flows`";
}

Result<Listing> begin(store::FlowReader& reader, Asked asked) {
  Listing listing;
  TL_ASSIGN(listing.groups, read_groups(asked.range, asked.query));
  store::FlowQuery& query = asked.query;
  TL_TRY(require_all_policies(reader, query));
  if (!asked.policy.empty()) {
    TL_ASSIGN(listing.policies, require_policies(reader, asked.policy));
    if (asks_for_policy(query))
      return fail(ErrorCode::InvalidArgument, "POLICY and --policy both choose policies; give one of them");
    query.filters.push_back({Field::Policy, {asked.policy}, false});
  }
  if (asked.denied) query.filters.push_back({Field::Action, {"deny"}, false});
  TL_ASSIGN(listing.origin, reader.origin());
  if (listing.groups) listing.groups->flows = query;
  listing.asked = std::move(asked);
  return listing;
}

store::FlowQuery one_more(store::FlowQuery query) {
  if (query.limit > 0) ++query.limit;
  return query;
}

std::string there_is_more(const store::FlowQuery& query) {
  return std::string("there are more than the ") + (query.oldest_first ? "oldest " : "newest ") +
         with_commas(query.limit) + "; --limit 0 shows all";
}

std::vector<std::string> notes_of(const store::GroupQuery& query, const store::GroupResult& result) {
  std::vector<std::string> notes;
  if (result.all > result.groups.size())
    notes.push_back("the " + with_commas(result.groups.size()) + " largest of " + counted(result.all, "group") +
                    "; the sums are over all of them");
  const store::Sums& all = result.total.sums;
  const bool by_bytes = all.bytes_out + all.bytes_in > 0;
  if (query.bin)
    notes.push_back("OVER TIME: " + std::string(by_bytes ? "bytes" : "connections and denied packets") + " from " +
                    format_for_people(result.from) + " UTC on, " + counted(result.total.bins.size(), "bin") + " of " +
                    format_duration(result.bin));
  return notes;
}

std::string range_text(const Range& range, const store::FlowQuery& query) {
  std::string text;
  if (query.since) {
    const auto ago = parse_duration(*range.since);
    text = ago ? " in the last " + unit_phrase(*ago) : " since " + format_for_people(*query.since);
  }
  if (query.until) text += " until " + format_for_people(*query.until);
  return text;
}

}  // namespace tierlog::query
