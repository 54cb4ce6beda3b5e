#include "store/export.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "store/sqlite.h"

namespace tierlog::store {
namespace {

constexpr std::size_t kPage = 5000;

Result<void> copy_catalog(FlowReader& reader, FlowStore& store) {
  Catalog catalog;
  catalog.since = reader.since().value_or(WallTime{});
  TL_ASSIGN(catalog.tiers, reader.tiers());
  TL_ASSIGN(const auto policies, reader.policies());
  for (const PolicyActivity& activity : policies) catalog.policies.push_back(activity.policy);
  TL_ASSIGN(catalog.endpoints, reader.endpoints());
  TL_ASSIGN(const auto rules, reader.rules({}, true));
  std::vector<RuleRow> all;
  for (const RuleActivity& activity : rules) {
    all.push_back(activity.rule);
    if (activity.live) catalog.rules.push_back(activity.rule);
  }
  TL_TRY(store.put_rules(all));
  return store.put_catalog(catalog);  // marks as live what is
}

// As the same schema version makes them alike, table by table.
Result<void> copy_history(const FlowReader& reader, const std::string& to) {
  TL_ASSIGN(auto database, sqlite::Database::open(to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  TL_ASSIGN(auto attach, database.prepare("ATTACH ?1 AS source"));
  TL_TRY(attach.bind(reader.path()).run());
  std::string sql;
  for (const char* table : {"policy_text", "policy_set", "object_history", "rule_key"})
    sql += std::string("INSERT INTO main.") + table + " SELECT * FROM source." + table + ";";
  return database.execute(sql);
}

}  // namespace

Result<std::uint64_t> for_each_record(FlowReader& reader, FlowQuery query, const TakePage& take) {
  TL_ASSIGN(const std::int64_t last, reader.last_sequence());
  query.oldest_first = true;
  query.limit = kPage;
  query.after_sequence = 0;
  std::uint64_t taken = 0;
  std::int64_t first = 0;
  for (;;) {
    TL_ASSIGN(std::vector<StoredRecord> page, reader.flows(query));
    while (!page.empty() && page.back().sequence > last) page.pop_back();
    if (page.empty()) return taken;
    if (first == 0) first = page.front().sequence;
    query.after_sequence = page.back().sequence;
    taken += page.size();
    TL_TRY(take(
        page, static_cast<double>(page.back().sequence - first + 1) / static_cast<double>(last - first + 1)));
  }
}

Result<std::uint64_t> export_flow_index(FlowReader& reader, const FlowQuery& query, const std::string& to,
                                        const std::function<void(double share)>& progress) {
  if (::access(to.c_str(), F_OK) == 0)
    return fail(ErrorCode::InvalidArgument, to + " is there already; expected the name of a new file");
  TL_ASSIGN(const Origin origin, reader.origin());
  TL_ASSIGN(FlowStore store, FlowStore::open_writer(to, origin));
  TL_TRY(copy_catalog(reader, store));
  TL_TRY(copy_history(reader, to));
  std::vector<FlowRecord> records;
  return for_each_record(reader, query,
                         [&](std::span<const StoredRecord> page, double share) -> Result<void> {
                           records.clear();
                           for (const StoredRecord& stored : page) records.push_back(stored.record);
                           TL_TRY(store.insert(records));
                           progress(share);
                           return {};
                         });
}

}  // namespace tierlog::store
