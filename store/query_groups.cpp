// Sums over records: what the fields are in SQL, and how the rows of one statement become groups.
#include <algorithm>
#include <map>

#include "base/diagnostics.h"
#include "store/filter_sql.h"
#include "store/groups.h"
#include "store/reader.h"
#include "store/rollup_groups.h"
#include "store/sightings.h"

namespace tierlog::store {
namespace {

using Of = GroupField::Of;

// "ns/pod", "node n1", "set ns/name", an address.
#define TL_PEER(p)                                                                             \
  "CASE " p ".kind WHEN 0 THEN " p ".namespace || '/' || " p ".name WHEN 1 THEN 'node ' || " p \
  ".name "                                                                                     \
  "WHEN 2 THEN 'set ' || ltrim(" p ".namespace || '/' || " p ".name, '/') ELSE " p ".ip END"
#define TL_WORKLOAD(p)                                                                                \
  "CASE " p ".kind WHEN 0 THEN " p ".namespace || '/' || coalesce(nullif(" p ".workload, ''), " p     \
  ".name) WHEN 1 THEN 'node ' || " p ".name WHEN 2 THEN 'set ' || ltrim(" p ".namespace || '/' || " p \
  ".name, '/') ELSE 'outside' END"

constexpr const char* kProtocol =
    "CASE f.proto WHEN 1 THEN 'icmp' WHEN 6 THEN 'tcp' WHEN 17 THEN 'udp' WHEN 58 THEN 'icmpv6'"
    " WHEN 132 THEN 'sctp' WHEN 136 THEN 'udplite' ELSE CAST(f.proto AS TEXT) END";

constexpr const char* kPort =
    "coalesce(CAST(f.dst_port AS TEXT) || '/', '') || CASE f.proto WHEN 1 THEN 'icmp' WHEN 6 THEN 'tcp'"
    " WHEN 17 THEN 'udp' WHEN 58 THEN 'icmpv6' WHEN 132 THEN 'sctp' WHEN 136 THEN 'udplite'"
    " ELSE CAST(f.proto AS TEXT) END";

// A rule's own direction is that of its records.
constexpr const char* kRule =
    "CASE WHEN r.rule_index IS NULL THEN '' WHEN r.rule_index < 0 THEN 'end-of-tier'"
    " ELSE CASE (SELECT rule.direction FROM rule WHERE rule.rule_id = r.rule_id) WHEN 0 THEN 'ingress'"
    " ELSE 'egress' END || '[' || r.rule_index || ']' END";

// Of the pod whose policies were asked.
constexpr const char* kNamespace = "CASE f.direction WHEN 0 THEN d.namespace ELSE s.namespace END";

constexpr GroupField kFields[] = {
    {"policy", "r.policy", Of::Rule},
    {"tier", "r.tier", Of::Rule},
    {"kind", "r.policy_kind", Of::Rule},
    {"rule", kRule, Of::Rule},
    {"rule-id", "printf('%x', r.rule_id)", Of::Rule},
    {"revision", "CAST(nullif(r.policy_revision, 0) AS TEXT)", Of::Rule},
    {"action", "CASE f.action WHEN 0 THEN 'allow' ELSE 'deny' END", Of::Slice},
    {"reason", "tl_reason(f.reason)"},
    {"from", TL_PEER("s"), Of::From},
    {"to", TL_PEER("d"), Of::To},
    {"from-workload", TL_WORKLOAD("s"), Of::From},
    {"to-workload", TL_WORKLOAD("d"), Of::To},
    {"from-namespace", "s.namespace", Of::From},
    {"to-namespace", "d.namespace", Of::To},
    {"namespace", kNamespace},
    {"from-ip", "s.ip", Of::From},
    {"to-ip", "d.ip", Of::To},
    {"port", kPort},
    {"protocol", kProtocol},
    {"service", "f.dst_service"},
    {"direction", "CASE f.direction WHEN 0 THEN 'ingress' ELSE 'egress' END", Of::Row, true},
    {"reporter", "CASE f.reporter WHEN 0 THEN 'src' ELSE 'dst' END", Of::Slice, true},
    {"node", "(SELECT value FROM meta WHERE key = 'node')", Of::Slice},
    {"cluster", "(SELECT value FROM meta WHERE key = 'cluster')", Of::Slice},
};

// The source's view of an allowed connection to a pod of this node tells again what the destination's view tells.
constexpr const char* kOncePerConnection = " AND NOT (f.reporter = 0 AND f.action = 0 AND d.local)";

// Columns: the bin, the sums, first and last time, then one a field.
constexpr int kSumsAt = 1, kFirstAt = 7, kNamesAt = 9;

std::string names_sql(const GroupQuery& query) {
  std::string names;
  for (std::size_t i = 0; i < query.fields.size(); ++i)
    names += std::string(", coalesce(") + query.fields[i]->sql + ", '') AS g" + std::to_string(i);
  return names;
}

std::string group_by_sql(const GroupQuery& query) {
  std::string by = " GROUP BY bin";
  for (std::size_t i = 0; i < query.fields.size(); ++i) by += ", g" + std::to_string(i);
  return by;
}

std::string row_groups_sql(const GroupQuery& query, const std::string& where, const std::string& bin) {
  return "SELECT " + bin +
         " AS bin, count(*), coalesce(sum(f.connections), 0),"
         " coalesce(sum(iif(f.action = 1, f.verdict_packets, 0)), 0),"
         " coalesce(sum(coalesce(f.packets_out, iif(f.action = 1, f.verdict_packets, 0)) +"
         " coalesce(f.packets_in, 0)), 0), coalesce(sum(f.bytes_out), 0), coalesce(sum(f.bytes_in), 0),"
         " min(f.start_ns), max(f.end_ns)" +
         names_sql(query) +
         " FROM flow AS f CROSS JOIN peer AS s ON s.id = f.src CROSS JOIN peer AS d ON d.id = f.dst"
         " CROSS JOIN rule_revision AS r ON r.id = f.rule WHERE " +
         where + (counts_connections_once(query) ? kOncePerConnection : "") + group_by_sql(query);
}

void merge(FlowSums& into, const Sums& sums, WallTime first, WallTime last) {
  if (into.sums.records == 0 || first < into.first) into.first = first;
  if (into.sums.records == 0 || last > into.last) into.last = last;
  into.sums.add(sums);
}

using Order = GroupQuery::Order;

bool before(const FlowSums& a, const FlowSums& b, Order order) {
  const auto bytes = [](const Sums& sums) { return sums.bytes_out + sums.bytes_in; };
  switch (order) {
    case Order::Newest:
      return a.last > b.last;
    case Order::Oldest:
      return a.last < b.last;
    case Order::Records:
      return a.sums.records > b.sums.records;
    case Order::Connections:
      return a.sums.connections > b.sums.connections;
    case Order::Packets:
      return a.sums.packets > b.sums.packets;
    case Order::Name:
      return a.names < b.names;
    case Order::Bytes:
      break;
  }
  return bytes(a.sums) > bytes(b.sums);
}

void sort_groups(std::vector<FlowSums>& groups, std::optional<Order> asked) {
  const Order order = asked.value_or(Order::Bytes);
  std::sort(groups.begin(), groups.end(), [&](const FlowSums& a, const FlowSums& b) {
    if (before(a, b, order)) return true;
    if (before(b, a, order)) return false;
    if (before(a, b, Order::Packets)) return true;
    if (before(b, a, Order::Packets)) return false;
    return a.names < b.names;
  });
}

Sums read_sums(const sqlite::Statement& row) {
  return {row.count(kSumsAt),     row.count(kSumsAt + 1), row.count(kSumsAt + 2),
          row.count(kSumsAt + 3), row.count(kSumsAt + 4), row.count(kSumsAt + 5)};
}

// Beginning of the bin that `t` is in: bins begin at round times.
WallTime bin_start(WallTime t, Nanoseconds width) {
  return from_ns(to_ns(t) - ((to_ns(t) % width.count()) + width.count()) % width.count());
}

Result<std::vector<GroupLine>> row_groups(sqlite::Database& database, const GroupQuery& query, const Origin& here) {
  TL_ASSIGN(WhereClause where, where_sighted(database, query.flows, here));
  const std::string width = query.bin ? where.add(query.bin->count()) : "";
  TL_ASSIGN(auto select,
            database.prepare(row_groups_sql(query, where.sql(), query.bin ? "f.end_ns / " + width : "0")));
  where.bind(select);
  std::vector<GroupLine> lines;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return lines;
    GroupLine line{{}, select.integer(0), read_sums(select), from_ns(select.integer(kFirstAt)),
                   from_ns(select.integer(kFirstAt + 1))};
    for (std::size_t i = 0; i < query.fields.size(); ++i)
      line.names.push_back(select.text(kNamesAt + static_cast<int>(i)));
    lines.push_back(std::move(line));
  }
}

}  // namespace

std::vector<std::string_view> group_field_names() {
  std::vector<std::string_view> names;
  for (const GroupField& field : kFields) names.emplace_back(field.name);
  return names;
}

Result<std::vector<const GroupField*>> parse_group_fields(std::string_view text) {
  std::vector<const GroupField*> fields;
  while (true) {
    const auto comma = text.find(',');
    const std::string word(text.substr(0, comma));
    const auto* found = std::find_if(std::begin(kFields), std::end(kFields),
                                     [&](const GroupField& field) { return field.name == word; });
    if (found == std::end(kFields)) {
      std::string all;
      std::vector<std::string> names;
      for (const std::string_view name : group_field_names()) {
        names.emplace_back(name);
        all += (all.empty() ? "" : ", ") + std::string(name);
      }
      const std::string close = nearest(word, names);
      return fail(ErrorCode::InvalidArgument, "--group-by \"" + word + "\" is not known" +
                                                  (close.empty() ? "" : "; did you mean " + close + "?") +
                                                  " (known: " + all + ")");
    }
    fields.push_back(found);
    if (comma == std::string_view::npos) return fields;
    text.remove_prefix(comma + 1);
  }
}

void Sums::add(const Sums& other) {
  records += other.records;
  connections += other.connections;
  denied_packets += other.denied_packets;
  packets += other.packets;
  bytes_out += other.bytes_out;
  bytes_in += other.bytes_in;
}

Result<GroupResult> FlowReader::groups(const GroupQuery& query) {
  TL_ASSIGN(const Origin here, impl_->origin());
  // One snapshot: up to where the sums count, and the sums.
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(impl_->database, "DEFERRED"));
  TL_ASSIGN(auto lines, is_told_by_rollups(query) ? rollup_groups(impl_->database, query, here)
                                                  : row_groups(impl_->database, query, here));
  GroupResult result;
  std::map<std::vector<std::string>, FlowSums> groups;
  std::vector<std::tuple<FlowSums*, std::int64_t, Sums>> by_bin;
  for (GroupLine& line : lines) {
    FlowSums& group = groups[line.names];
    group.names = std::move(line.names);
    merge(group, line.sums, line.first, line.last);
    merge(result.total, line.sums, line.first, line.last);
    if (query.bin) by_bin.emplace_back(&group, line.bin, line.sums);
  }
  result.from = query.flows.since.value_or(result.total.first);
  result.until = query.flows.until.value_or(query.flows.since ? SystemClock().wall() : result.total.last);
  if (query.bin && !groups.empty()) {
    result.bin = *query.bin;
    const std::int64_t base = to_ns(bin_start(result.from, *query.bin)) / query.bin->count();
    const std::int64_t end =
        to_ns(bin_start(std::max(result.until, result.total.last), *query.bin)) / query.bin->count();
    const auto count = static_cast<std::size_t>(end - base + 1);
    if (count > kMaxBins)
      return fail(ErrorCode::InvalidArgument,
                  "--bins gives " + std::to_string(count) + " bins; choose wider ones, or a shorter --since");
    result.from = from_ns(base * query.bin->count());
    for (auto& [names, group] : groups) group.bins.resize(count);
    result.total.bins.resize(count);
    for (const auto& [group, number_of_bin, sums] : by_bin) {
      const auto at = static_cast<std::size_t>(std::clamp<std::int64_t>(number_of_bin - base, 0, end - base));
      group->bins[at].add(sums);
      result.total.bins[at].add(sums);
    }
  }
  result.all = groups.size();
  for (auto& [names, group] : groups) result.groups.push_back(std::move(group));
  sort_groups(result.groups, query.order);
  if (query.top > 0 && result.groups.size() > query.top) result.groups.resize(query.top);
  return result;
}

}  // namespace tierlog::store
