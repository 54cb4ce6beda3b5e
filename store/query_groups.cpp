// Sums over records: what the fields are in SQL, and how the rows of one statement become groups.
#include <algorithm>
#include <map>

#include "base/diagnostics.h"
#include "store/filter_sql.h"
#include "store/groups.h"
#include "store/reader.h"

namespace tierlog::store {
namespace {

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

constexpr const char* kRule =
    "CASE WHEN r.rule_index IS NULL THEN '' WHEN r.rule_index < 0 THEN 'end-of-tier'"
    " ELSE CASE f.direction WHEN 0 THEN 'ingress' ELSE 'egress' END || '[' || r.rule_index || ']' END";

// Of the pod whose policies were asked.
constexpr const char* kNamespace = "CASE f.direction WHEN 0 THEN d.namespace ELSE s.namespace END";

constexpr GroupField kFields[] = {
    {"policy", "r.policy"},
    {"tier", "r.tier"},
    {"kind", "r.policy_kind"},
    {"rule", kRule},
    {"rule-id", "printf('%x', r.rule_id)"},
    {"revision", "CAST(nullif(r.policy_revision, 0) AS TEXT)"},
    {"action", "CASE f.action WHEN 0 THEN 'allow' ELSE 'deny' END"},
    {"reason", "tl_reason(f.reason)"},
    {"from", TL_PEER("s")},
    {"to", TL_PEER("d")},
    {"from-workload", TL_WORKLOAD("s")},
    {"to-workload", TL_WORKLOAD("d")},
    {"from-namespace", "s.namespace"},
    {"to-namespace", "d.namespace"},
    {"namespace", kNamespace},
    {"from-ip", "s.ip"},
    {"to-ip", "d.ip"},
    {"port", kPort},
    {"protocol", kProtocol},
    {"service", "f.dst_service"},
    {"direction", "CASE f.direction WHEN 0 THEN 'ingress' ELSE 'egress' END", true},
    {"reporter", "CASE f.reporter WHEN 0 THEN 'src' ELSE 'dst' END", true},
    {"node", "(SELECT value FROM meta WHERE key = 'node')"},
    {"cluster", "(SELECT value FROM meta WHERE key = 'cluster')"},
};

// The source's view of an allowed connection to a pod of this node tells again what the destination's view
// tells. Which pods those are is in the history of endpoints.
constexpr const char* kOncePerConnection =
    " AND NOT (f.reporter = 0 AND f.action = 0 AND f.dst IN (SELECT peer.id FROM peer WHERE peer.kind = 0 AND"
    " peer.ip IN (SELECT address.value FROM object_history AS h, json_each(h.value, '$.addresses') AS address"
    " WHERE h.kind = 0 AND h.value ->> 'local' AND NOT h.value ->> 'host_network')))";

bool tells_reporters_apart(const GroupQuery& query) {
  using Field = FieldFilter::Field;
  return std::any_of(query.fields.begin(), query.fields.end(),
                     [](const GroupField* field) { return field->is_reporter; }) ||
         std::any_of(query.flows.filters.begin(), query.flows.filters.end(), [](const FieldFilter& filter) {
           return filter.field == Field::Reporter || filter.field == Field::Direction;
         });
}

// Columns: the bin, the sums, first and last time, then one a field.
constexpr int kSumsAt = 1, kFirstAt = 8, kNamesAt = 10;

std::string groups_sql(const GroupQuery& query, const std::string& where, const std::string& bin) {
  std::string names, by;
  for (std::size_t i = 0; i < query.fields.size(); ++i) {
    names += std::string(", coalesce(") + query.fields[i]->sql + ", '') AS g" + std::to_string(i);
    by += ", g" + std::to_string(i);
  }
  return "SELECT " + bin +
         " AS bin, count(*), coalesce(sum(f.connections), 0),"
         " coalesce(sum(iif(f.action = 1, f.verdict_packets, 0)), 0),"
         " coalesce(sum(coalesce(f.packets_out, iif(f.action = 1, f.verdict_packets, 0)) +"
         " coalesce(f.packets_in, 0)), 0), coalesce(sum(f.bytes_out), 0), coalesce(sum(f.bytes_in), 0), 0,"
         " min(f.start_ns), max(f.end_ns)" +
         names +
         " FROM flow AS f CROSS JOIN peer AS s ON s.id = f.src CROSS JOIN peer AS d ON d.id = f.dst"
         " CROSS JOIN rule_revision AS r ON r.id = f.rule WHERE " +
         where + (tells_reporters_apart(query) ? "" : kOncePerConnection) + " GROUP BY bin" + by;
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
  TL_ASSIGN(WhereClause where, WhereClause::of(query.flows, here));
  std::string bin = "0";
  if (query.bin) bin = "f.end_ns / " + where.add(query.bin->count());
  TL_ASSIGN(auto select, impl_->database.prepare(groups_sql(query, where.sql(), bin)));
  where.bind(select);
  GroupResult result;
  std::map<std::vector<std::string>, FlowSums> groups;
  std::vector<std::tuple<FlowSums*, std::int64_t, Sums>> by_bin;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) break;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < query.fields.size(); ++i)
      names.push_back(select.text(kNamesAt + static_cast<int>(i)));
    FlowSums& group = groups[names];
    group.names = std::move(names);
    const Sums sums = read_sums(select);
    const WallTime first = from_ns(select.integer(kFirstAt)), last = from_ns(select.integer(kFirstAt + 1));
    merge(group, sums, first, last);
    merge(result.total, sums, first, last);
    if (query.bin) by_bin.emplace_back(&group, select.integer(0), sums);
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
