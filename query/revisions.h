// query/revisions.h - a policy through time: what its rules said and from when on.
//
//   FlowReader::policy_sets --> the versions of one policy --> `tierlog policies --history`
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "store/query.h"

namespace tierlog::query {

struct RuleLine {
  char change = ' ';  // '+' new, '-' gone, ' ' as before
  std::string text;   // "ingress[0] Allow tcp from …"

  bool operator==(const RuleLine&) const = default;
};

struct Revision {
  std::string policy, policy_kind;
  std::uint32_t number = 0;  // 0: not known. What its records say: the same rules again have the number they had
  bool again = false;        // an earlier one of the list has the same number: a change was undone
  WallTime since{};
  std::optional<WallTime> until;  // empty: still in force
  bool removed = false;           // from `since` on it was not there
  std::vector<RuleLine> rules;    // against the revision before
  // By records of its time.
  std::uint64_t allowed_connections = 0, denied_packets = 0;
};

// Of all policies whose display is among `displays`, oldest first.
Result<std::vector<Revision>> revisions_of(store::FlowReader& reader,
                                           const std::vector<std::string>& displays);

}  // namespace tierlog::query
