#include "store/activity.h"

#include <algorithm>
#include <map>
#include <utility>

#include "store/schema.h"

namespace tierlog::store {
namespace {

bool only_counts(const RuleRow& rule) {
  return rule.action == "Pass" || rule.action == "Log";
}

void raise(std::optional<WallTime>& to, std::optional<WallTime> time) {
  if (time && (!to || *to < *time)) to = time;
}

}  // namespace

Result<ActivityReader> ActivityReader::open(const std::string& path) {
  // Says what a missing file is.
  TL_ASSIGN(FlowReader names, FlowReader::open(path));
  TL_ASSIGN(auto database, sqlite::Database::open(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX));
  TL_TRY(check_schema(database, path));
  TL_TRY(database.execute("PRAGMA query_only = ON"));
  ActivityReader made(std::move(names), std::move(database));
  TL_ASSIGN(made.version_of_,
            made.database_.prepare(
                "SELECT value FROM meta WHERE key IN ('identity', 'catalog_version') ORDER BY key"));
  TL_ASSIGN(made.counters_,
            made.database_.prepare(
                "SELECT rule_id, now_packets + before_packets, now_bytes + before_bytes, grown_ns"
                " FROM counter"));
  TL_ASSIGN(made.recorded_,
            made.database_.prepare("SELECT rule_id, packets, suppressed, last_ns FROM recorded"));
  TL_ASSIGN(made.losses_,
            made.database_.prepare(
                "SELECT cause, rule_id, now_packets + before_packets FROM lost ORDER BY cause, rule_id"));
  TL_ASSIGN(made.staged_,
            made.database_.prepare("SELECT policy, denied_packets, last_ns FROM staged_recorded"));
  return made;
}

Result<std::string> ActivityReader::version() {
  std::string text = ".";  // of a file that knows none
  for (;;) {
    TL_ASSIGN(const bool row, version_of_.step());
    if (!row) break;
    text += version_of_.text(0) + ".";
  }
  version_of_.reset();
  return text;
}

Result<void> ActivityReader::read_names(Activity& into) {
  TL_ASSIGN(into.rules, names_.rules({}, true));
  TL_ASSIGN(into.policies, names_.policies());
  TL_ASSIGN(into.endpoints, names_.endpoints());
  place_.clear();
  for (std::size_t i = 0; i < into.rules.size(); ++i)
    place_.emplace(static_cast<std::int64_t>(into.rules[i].rule.id), i);
  return {};
}

// Null where the name is younger than the names that are in: they are read again the next time.
RuleActivity* ActivityReader::rule(Activity& in, std::int64_t id) {
  const auto found = place_.find(id);
  return found == place_.end() ? nullptr : &in.rules[found->second];
}

Result<void> ActivityReader::read_counters(Activity& into) {
  for (;;) {
    TL_ASSIGN(const bool row, counters_.step());
    if (!row) break;
    RuleActivity* one = rule(into, counters_.integer(0));
    if (one == nullptr) continue;
    one->kernel_packets = counters_.count(1);
    one->kernel_bytes = counters_.count(2);
    if (only_counts(one->rule) && !counters_.is_null(3)) raise(one->last_hit, from_ns(counters_.integer(3)));
  }
  counters_.reset();
  return {};
}

Result<void> ActivityReader::read_recorded(Activity& into) {
  for (;;) {
    TL_ASSIGN(const bool row, recorded_.step());
    if (!row) break;
    RuleActivity* one = rule(into, recorded_.integer(0));
    if (one == nullptr) continue;
    one->recorded_packets = recorded_.count(1);
    one->suppressed = recorded_.count(2);
    if (!recorded_.is_null(3)) raise(one->last_hit, from_ns(recorded_.integer(3)));
  }
  recorded_.reset();
  return {};
}

Result<void> ActivityReader::read_losses(Activity& into) {
  into.losses.clear();
  for (RuleActivity& one : into.rules) one.unattributed = 0;
  for (;;) {
    TL_ASSIGN(const bool row, losses_.step());
    if (!row) break;
    into.losses.push_back(
        {losses_.text(0), RuleId{static_cast<std::uint32_t>(losses_.integer(1))}, losses_.count(2)});
    if (RuleActivity* one = rule(into, losses_.integer(1))) one->unattributed += losses_.count(2);
  }
  losses_.reset();
  return {};
}

Result<void> ActivityReader::read_policies(Activity& into) {
  std::map<std::string, PolicyActivity*, std::less<>> by_name;
  for (PolicyActivity& one : into.policies) by_name[one.policy.display] = &one;
  for (const RuleActivity& one : into.rules) {
    // As view policy_activity has it: the end of a tier does not count as passing or logging.
    if (only_counts(one.rule) && one.rule.rule_index.value_or(-1) < 0) continue;
    if (const auto found = by_name.find(one.rule.policy); found != by_name.end())
      raise(found->second->last_hit, one.last_hit);
  }
  for (;;) {
    TL_ASSIGN(const bool row, staged_.step());
    if (!row) break;
    const auto found = by_name.find(staged_.view(0));
    if (found == by_name.end()) continue;
    found->second->staged_denied = staged_.count(1);
    if (!staged_.is_null(2)) raise(found->second->last_hit, from_ns(staged_.integer(2)));
  }
  staged_.reset();
  return {};
}

Result<void> ActivityReader::read(Activity& into) {
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(database_, "DEFERRED"));
  TL_ASSIGN(std::string now, version());
  if (now != version_) {
    TL_TRY(read_names(into));
    version_ = std::move(now);
  }
  TL_TRY(read_counters(into));
  TL_TRY(read_recorded(into));
  TL_TRY(read_losses(into));
  return read_policies(into);
}

}  // namespace tierlog::store
