#include "store/schema.h"

#include <iterator>
#include <string>

#include "store/denied_blocks.h"
#include "store/flow_store.h"
#include "store/reference_uses.h"
#include "store/rollups.h"

namespace tierlog::store {
namespace {

constexpr const char* kTables = R"sql(
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- Dictionaries: a row is written when its value is first seen. Empty text stands for null.
CREATE TABLE text(id INTEGER PRIMARY KEY AUTOINCREMENT, hash INTEGER NOT NULL, value TEXT NOT NULL) STRICT;
CREATE INDEX text_hash ON text(hash);
INSERT INTO text(id, hash, value) VALUES (1, 0, '[]');
CREATE TABLE peer(
  id INTEGER PRIMARY KEY AUTOINCREMENT, ip TEXT NOT NULL, kind INTEGER NOT NULL, namespace TEXT NOT NULL,
  name TEXT NOT NULL, workload TEXT NOT NULL, labels TEXT NOT NULL) STRICT;
CREATE INDEX peer_ip ON peer(ip);
-- A rule with the names it had when it decided.
CREATE TABLE rule_revision(
  id INTEGER PRIMARY KEY AUTOINCREMENT, rule_id INTEGER NOT NULL, tier TEXT NOT NULL, policy TEXT NOT NULL,
  policy_kind TEXT NOT NULL, policy_namespace TEXT NOT NULL, policy_name TEXT NOT NULL, rule_index INTEGER,
  policy_revision INTEGER NOT NULL) STRICT;
CREATE INDEX rule_revision_rule ON rule_revision(rule_id);
CREATE INDEX rule_revision_policy ON rule_revision(policy);

-- action: 0 allow, 1 deny; reporter: 0 src, 1 dst; direction: 0 ingress, 1 egress.
CREATE TABLE flow(
  seq INTEGER PRIMARY KEY, id ANY NOT NULL, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL,
  reporter INTEGER NOT NULL, direction INTEGER NOT NULL, action INTEGER NOT NULL, reason INTEGER NOT NULL,
  rule INTEGER NOT NULL, src INTEGER NOT NULL, dst INTEGER NOT NULL, proto INTEGER NOT NULL,
  src_port INTEGER, dst_port INTEGER, icmp_type INTEGER, icmp_code INTEGER,
  logged_by INTEGER NOT NULL, trace INTEGER NOT NULL, staged INTEGER NOT NULL, dst_service TEXT,
  connections INTEGER, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER, packets_in INTEGER, bytes_out INTEGER, bytes_in INTEGER,
  tcp_flags TEXT, ct_state TEXT) STRICT;
CREATE INDEX flow_end ON flow(end_ns);
-- action is in it so that a search need not touch the table.
CREATE INDEX flow_denied_rule ON flow(rule, end_ns, action) WHERE action = 1;
CREATE INDEX flow_denied_end ON flow(end_ns) WHERE action = 1;

-- What is enforced. Rules stay when they are no longer live: records refer to them.
CREATE TABLE tier(position INTEGER NOT NULL, name TEXT NOT NULL, tier_order REAL, default_action TEXT NOT NULL) STRICT;
CREATE TABLE policy(
  position INTEGER NOT NULL, display TEXT NOT NULL, tier TEXT NOT NULL, kind TEXT NOT NULL,
  short_kind TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, policy_order REAL,
  revision INTEGER NOT NULL, endpoints_selected INTEGER NOT NULL, staged INTEGER NOT NULL,
  selector TEXT NOT NULL, source TEXT NOT NULL) STRICT;
CREATE TABLE rule(
  rule_id INTEGER PRIMARY KEY, policy TEXT NOT NULL, policy_kind TEXT NOT NULL, tier TEXT NOT NULL,
  policy_namespace TEXT NOT NULL, policy_name TEXT NOT NULL, direction INTEGER NOT NULL, rule_index INTEGER,
  action TEXT NOT NULL, reason TEXT NOT NULL, revision INTEGER NOT NULL, text TEXT NOT NULL,
  source TEXT NOT NULL, also_policies TEXT NOT NULL, live INTEGER NOT NULL) STRICT;
-- also_policies as rows: an end of tier is found by any of the policies that were asked.
CREATE TABLE rule_also(rule_id INTEGER NOT NULL, policy TEXT NOT NULL, PRIMARY KEY(policy, rule_id))
  STRICT, WITHOUT ROWID;
CREATE TABLE endpoint(
  namespace TEXT NOT NULL, name TEXT NOT NULL, node TEXT NOT NULL, interface TEXT NOT NULL,
  workload TEXT NOT NULL, labels TEXT NOT NULL, addresses TEXT NOT NULL, enforced INTEGER NOT NULL,
  ingress_policies TEXT NOT NULL, egress_policies TEXT NOT NULL) STRICT;

-- What the kernel counted: now_… is its counter, before_… the sum of its earlier lives.
CREATE TABLE counter(
  rule_id INTEGER PRIMARY KEY, now_packets INTEGER NOT NULL, now_bytes INTEGER NOT NULL,
  before_packets INTEGER NOT NULL DEFAULT 0, before_bytes INTEGER NOT NULL DEFAULT 0, grown_ns INTEGER) STRICT;
CREATE TABLE lost(
  cause TEXT NOT NULL, rule_id INTEGER NOT NULL, now_packets INTEGER NOT NULL,
  before_packets INTEGER NOT NULL DEFAULT 0, changed_ns INTEGER, PRIMARY KEY(cause, rule_id)) STRICT, WITHOUT ROWID;
-- Sums over all records ever written, kept with each batch: also of records that retention took away.
CREATE TABLE recorded(
  rule_id INTEGER PRIMARY KEY, packets INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0,
  connections INTEGER NOT NULL DEFAULT 0, denied_packets INTEGER NOT NULL DEFAULT 0,
  suppressed INTEGER NOT NULL DEFAULT 0, last_ns INTEGER) STRICT;
CREATE TABLE staged_recorded(
  policy TEXT PRIMARY KEY, denied_packets INTEGER NOT NULL DEFAULT 0, last_ns INTEGER) STRICT, WITHOUT ROWID;
)sql";

std::string rfc3339(const std::string& ns) {
  return "strftime('%Y-%m-%dT%H:%M:%S', " + ns + " / 1000000000, 'unixepoch') || printf('.%09dZ', " + ns +
         " % 1000000000)";
}

std::string peer_columns(const std::string& side) {
  const std::string p = side + "_peer.";
  return "CASE " + p +
         "kind WHEN 0 THEN 'pod' WHEN 1 THEN 'node' WHEN 2 THEN 'networkset' WHEN 3 THEN 'private'"
         " ELSE 'public' END AS " +
         side + "_kind, nullif(" + p + "namespace, '') AS " + side + "_namespace, nullif(" + p +
         "name, '') AS " + side + "_pod, nullif(" + p + "workload, '') AS " + side + "_workload, " + p +
         "labels AS " + side + "_labels";
}

std::string reason_column() {
  std::string sql = "CASE f.reason";
  for (int reason = 0; reason <= static_cast<int>(Reason::Other); ++reason)
    sql.append(" WHEN ")
        .append(std::to_string(reason))
        .append(" THEN '")
        .append(name(static_cast<Reason>(reason)))
        .append("'");
  return sql + " END AS reason";
}

std::string proto_column() {
  std::string sql = "CASE f.proto";
  for (const std::uint8_t proto : {protocol::kIcmp, protocol::kTcp, protocol::kUdp, protocol::kIcmpV6,
                                   protocol::kSctp, protocol::kUdpLite})
    sql.append(" WHEN ")
        .append(std::to_string(proto))
        .append(" THEN '")
        .append(protocol::name(proto))
        .append("'");
  return sql + " ELSE CAST(f.proto AS TEXT) END AS proto";
}

// Scalar subqueries for what is rarely asked for: a query that does not name the column does not pay.
std::string flows_view(const std::string& view_name, const std::string& where, const std::string& more = {}) {
  return "CREATE VIEW " + view_name + R"sql( AS SELECT
  CASE typeof(f.id) WHEN 'blob' THEN lower(substr(hex(f.id), 1, 8) || '-' || substr(hex(f.id), 9, 4) || '-'
    || substr(hex(f.id), 13, 4) || '-' || substr(hex(f.id), 17, 4) || '-' || substr(hex(f.id), 21))
    ELSE f.id END AS id,
  )sql" + rfc3339("f.start_ns") +
         " AS start_time, " + rfc3339("f.end_ns") + R"sql( AS end_time,
  f.start_ns AS start_ns, f.end_ns AS end_ns,
  (SELECT nullif(value, '') FROM meta WHERE key = 'cluster') AS cluster,
  (SELECT nullif(value, '') FROM meta WHERE key = 'node') AS node,
  CASE f.reporter WHEN 0 THEN 'src' ELSE 'dst' END AS reporter,
  CASE f.direction WHEN 0 THEN 'ingress' ELSE 'egress' END AS direction,
  CASE f.action WHEN 0 THEN 'allow' ELSE 'deny' END AS action,
  )sql" + reason_column() +
         R"sql(,
  nullif(r.tier, '') AS tier, nullif(r.policy, '') AS policy, nullif(r.policy_kind, '') AS policy_kind,
  nullif(r.policy_namespace, '') AS policy_namespace, nullif(r.policy_name, '') AS policy_name,
  r.rule_index AS rule_index, nullif(r.rule_id, 0) AS rule_id, nullif(r.policy_revision, 0) AS policy_revision,
  (SELECT value FROM text WHERE text.id = f.logged_by) AS logged_by,
  (SELECT value FROM text WHERE text.id = f.trace) AS trace,
  (SELECT value FROM text WHERE text.id = f.staged) AS staged,
  )sql" + proto_column() +
         ", src_peer.ip AS src_ip, f.src_port AS src_port, " + peer_columns("src") +
         ", dst_peer.ip AS dst_ip, f.dst_port AS dst_port, " + peer_columns("dst") + R"sql(,
  f.dst_service AS dst_service, f.icmp_type AS icmp_type, f.icmp_code AS icmp_code,
  f.connections AS connections, f.verdict_packets AS verdict_packets,
  f.packets_out AS packets_out, f.packets_in AS packets_in, f.bytes_out AS bytes_out, f.bytes_in AS bytes_in,
  f.tcp_flags AS tcp_flags, f.ct_state AS ct_state,)sql" +
         more + R"sql( f.seq AS sequence
FROM flow AS f JOIN rule_revision AS r ON r.id = f.rule JOIN peer AS src_peer ON src_peer.id = f.src
  JOIN peer AS dst_peer ON dst_peer.id = f.dst)sql" +
         where + ";\n";
}

// `decided` sums by the names that the records had; Pass and Log rules have no records, only counters.
std::string policy_activity_view() {
  return R"sql(
CREATE VIEW policy_activity AS
WITH decided AS (
  SELECT n.policy AS policy, sum(s.connections) AS allowed, sum(s.denied_packets) AS denied, max(s.last_ns) AS last_ns
  FROM recorded AS s JOIN (SELECT DISTINCT rule_id, policy FROM rule_revision WHERE policy <> '') AS n
    ON n.rule_id = s.rule_id GROUP BY n.policy),
counted AS (
  SELECT rule.policy AS policy,
    sum(CASE action WHEN 'Pass' THEN now_packets + before_packets ELSE 0 END) AS passed,
    sum(CASE action WHEN 'Log' THEN now_packets + before_packets ELSE 0 END) AS logged, max(grown_ns) AS last_ns
  FROM counter JOIN rule ON rule.rule_id = counter.rule_id
  WHERE action IN ('Pass', 'Log') AND rule_index >= 0 GROUP BY rule.policy),
summed AS (
  SELECT p.*, coalesce(d.allowed, 0) AS allowed, coalesce(d.denied, 0) AS denied,
    coalesce(c.passed, 0) AS passed, coalesce(c.logged, 0) AS logged,
    coalesce(s.denied_packets, 0) AS staged_denied,
    nullif(max(coalesce(d.last_ns, 0), coalesce(c.last_ns, 0), coalesce(s.last_ns, 0)), 0) AS last_hit_ns
  FROM policy AS p LEFT JOIN decided AS d ON d.policy = p.display LEFT JOIN counted AS c ON c.policy = p.display
    LEFT JOIN staged_recorded AS s ON s.policy = p.display)
SELECT position, nullif(tier, '') AS tier, (SELECT tier_order FROM tier WHERE tier.name = summed.tier) AS tier_order,
  display AS policy, kind AS policy_kind, short_kind, nullif(namespace, '') AS policy_namespace, name AS policy_name,
  policy_order, revision AS policy_revision, staged, selector, source, endpoints_selected, allowed, denied, passed,
  logged, staged_denied, last_hit_ns, )sql" +
         rfc3339("last_hit_ns") + R"sql( AS last_hit_time
FROM summed ORDER BY position;
)sql";
}

std::string other_views() {
  return R"sql(
CREATE VIEW rules AS SELECT
  rule.rule_id AS rule_id, printf('%x', rule.rule_id) AS rule_hex, nullif(tier, '') AS tier,
  nullif(policy, '') AS policy, nullif(policy_kind, '') AS policy_kind,
  nullif(policy_namespace, '') AS policy_namespace, nullif(policy_name, '') AS policy_name, also_policies,
  CASE direction WHEN 0 THEN 'ingress' ELSE 'egress' END AS direction, rule_index, action, reason,
  nullif(revision, 0) AS policy_revision, text, nullif(source, '') AS source, live,
  coalesce(now_packets + before_packets, 0) AS kernel_packets, coalesce(now_bytes + before_bytes, 0) AS kernel_bytes,
  coalesce(recorded.packets, 0) AS recorded_packets,
  (SELECT coalesce(sum(now_packets + before_packets), 0) FROM lost WHERE lost.rule_id = rule.rule_id) AS unattributed,
  coalesce(recorded.suppressed, 0) AS suppressed
FROM rule LEFT JOIN counter ON counter.rule_id = rule.rule_id LEFT JOIN recorded ON recorded.rule_id = rule.rule_id;

CREATE VIEW endpoints AS SELECT
  nullif(namespace, '') AS namespace, name, nullif(node, '') AS node, nullif(interface, '') AS interface,
  nullif(workload, '') AS workload, labels, addresses, enforced, ingress_policies, egress_policies FROM endpoint;

CREATE VIEW loss AS SELECT
  cause, nullif(lost.rule_id, 0) AS rule_id, nullif(rule.policy, '') AS policy,
  now_packets + before_packets AS packets, changed_ns, )sql" +
         rfc3339("changed_ns") + R"sql( AS changed_time
FROM lost LEFT JOIN rule ON rule.rule_id = lost.rule_id;
)sql";
}

std::string version_1() {
  return kTables + flows_view("flows", "") + flows_view("denied_flows", " WHERE f.action = 1") +
         policy_activity_view() + other_views();
}

// What the records have told of what the kernel still counts (store/told.h); view loss by node and time.
std::string version_2() {
  return R"sql(
CREATE TABLE open_connection(
  handle INTEGER PRIMARY KEY, src BLOB NOT NULL, dst BLOB NOT NULL, proto INTEGER NOT NULL,
  src_port INTEGER NOT NULL, dst_port INTEGER NOT NULL, icmp_type INTEGER NOT NULL, icmp_code INTEGER NOT NULL,
  icmp_id INTEGER NOT NULL, conntrack_id INTEGER NOT NULL, started_ns INTEGER NOT NULL, told_ns INTEGER NOT NULL,
  egress_rule INTEGER NOT NULL, egress_packets_out INTEGER NOT NULL, egress_bytes_out INTEGER NOT NULL,
  egress_packets_in INTEGER NOT NULL, egress_bytes_in INTEGER NOT NULL,
  ingress_rule INTEGER NOT NULL, ingress_packets_out INTEGER NOT NULL, ingress_bytes_out INTEGER NOT NULL,
  ingress_packets_in INTEGER NOT NULL, ingress_bytes_in INTEGER NOT NULL) STRICT;
CREATE TABLE denied_told(
  rule_id INTEGER NOT NULL, src BLOB NOT NULL, dst BLOB NOT NULL, proto INTEGER NOT NULL,
  port_or_icmp INTEGER NOT NULL, packets INTEGER NOT NULL, bytes INTEGER NOT NULL,
  last_packet_ns INTEGER NOT NULL, PRIMARY KEY(src, dst, port_or_icmp, proto, rule_id)) STRICT, WITHOUT ROWID;
DROP VIEW loss;
CREATE VIEW loss AS SELECT
  (SELECT nullif(value, '') FROM meta WHERE key = 'node') AS node, )sql" +
         rfc3339("changed_ns") + R"sql( AS time,
  cause, nullif(lost.rule_id, 0) AS rule_id, nullif(rule.policy, '') AS policy, rule.rule_index AS rule_index,
  now_packets + before_packets AS packets, changed_ns, )sql" +
         rfc3339("changed_ns") + R"sql( AS changed_time
FROM lost LEFT JOIN rule ON rule.rule_id = lost.rule_id;
)sql";
}

std::string end_reason_column() {
  std::string sql = " CASE f.end_reason";
  for (const EndReason reason :
       {EndReason::Finished, EndReason::Reset, EndReason::TimedOut, EndReason::Unanswered})
    sql.append(" WHEN ")
        .append(std::to_string(static_cast<int>(reason)))
        .append(" THEN '")
        .append(name(reason))
        .append("'");
  return sql + " END AS end_reason,";
}

std::string flow_views_anew() {
  const std::string more = end_reason_column() +
                           " f.dst_nat_ip AS dst_nat_ip, f.dst_nat_port AS dst_nat_port,"
                           " f.src_nat_ip AS src_nat_ip, f.src_nat_port AS src_nat_port,";
  return "DROP VIEW IF EXISTS flows; DROP VIEW IF EXISTS denied_flows;\n" + flows_view("flows", "", more) +
         flows_view("denied_flows", " WHERE f.action = 1", more);
}

// How connections ended, and what was translated on the way.
std::string version_3() {
  std::string sql;
  for (const char* column : {"end_reason INTEGER", "dst_nat_ip TEXT", "dst_nat_port INTEGER",
                             "src_nat_ip TEXT", "src_nat_port INTEGER"})
    sql += std::string("ALTER TABLE flow ADD COLUMN ") + column + ";\n";
  return sql + flow_views_anew();
}

// What was enforced and who there was (store/history.h).
std::string version_4() {
  return R"sql(
CREATE TABLE policy_text(id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, value TEXT NOT NULL) STRICT;
CREATE INDEX policy_text_hash ON policy_text(hash);
CREATE TABLE policy_set(
  id INTEGER PRIMARY KEY, since_ns INTEGER NOT NULL, revision INTEGER NOT NULL, ready INTEGER NOT NULL,
  host_addresses TEXT NOT NULL, files TEXT NOT NULL) STRICT;
CREATE TABLE object_history(
  id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, name TEXT NOT NULL, since_ns INTEGER NOT NULL, until_ns INTEGER,
  value TEXT NOT NULL) STRICT;
CREATE INDEX object_history_until ON object_history(until_ns);
CREATE TABLE rule_key(
  hash INTEGER PRIMARY KEY, rule_id INTEGER NOT NULL, revision INTEGER NOT NULL) STRICT;
)sql";
}

// Rows as they are since version 5. `span_ns` instead of a start: most records are one packet, and SQLite
// keeps 0 without a byte. seq ascends in the order of writing, which is nearly that of end_ns.
constexpr const char* kFlowTable = R"sql(
CREATE TABLE flow(
  seq INTEGER PRIMARY KEY, id ANY NOT NULL, end_ns INTEGER NOT NULL, span_ns INTEGER NOT NULL,
  reporter INTEGER NOT NULL, direction INTEGER NOT NULL, action INTEGER NOT NULL, reason INTEGER NOT NULL,
  rule INTEGER NOT NULL, src INTEGER NOT NULL, dst INTEGER NOT NULL, proto INTEGER NOT NULL,
  src_port INTEGER, dst_port INTEGER, icmp_type INTEGER, icmp_code INTEGER,
  logged_by INTEGER NOT NULL, trace INTEGER NOT NULL, staged INTEGER NOT NULL, dst_service TEXT,
  connections INTEGER, verdict_packets INTEGER NOT NULL,
  packets_out INTEGER, packets_in INTEGER, bytes_out INTEGER, bytes_in INTEGER,
  tcp_flags TEXT, ct_state TEXT,
  end_reason INTEGER, dst_nat_ip TEXT, dst_nat_port INTEGER, src_nat_ip TEXT, src_nat_port INTEGER,
  start_ns INTEGER GENERATED ALWAYS AS (end_ns - span_ns) VIRTUAL) STRICT;
)sql";

constexpr const char* kFlowIndexes = R"sql(
CREATE INDEX flow_end ON flow(end_ns);
-- All that a sum over denied flows needs: it does not touch the table.
CREATE INDEX flow_denied_rule ON flow(
  rule, end_ns, src, dst, reporter, direction, proto, dst_port, icmp_type, icmp_code, verdict_packets, bytes_out,
  span_ns, action) WHERE action = 1;
CREATE INDEX flow_denied_end ON flow(end_ns) WHERE action = 1;
)sql";

// Peers and texts know how many records refer to them: what retention leaves with 0 is taken away. Rules
// stay: their names belong to sums that outlive the records.
std::string dictionary_uses() {
  std::string sql;
  for (const char* table : {"peer", "text"})
    sql += std::string("ALTER TABLE ") + table +
           " ADD COLUMN uses INTEGER NOT NULL DEFAULT 0;\nCREATE INDEX " + table + "_unused ON " + table +
           "(id) WHERE uses = 0;\n";
  return sql;
}

// Sums by rule, by source and by destination, in minutes and hours since 1970, as versions 5 had them.
struct SumsOf5 {
  const char* name;
  bool has_peer;
};
constexpr SumsOf5 kSumsOf5[] = {{"activity_minute", false}, {"activity_hour", false}, {"source_minute", true},
                                {"source_hour", true},      {"target_minute", true},  {"target_hour", true}};
constexpr const char* kSumsColumns =
    "  records INTEGER NOT NULL, connections INTEGER NOT NULL, verdict_packets INTEGER NOT NULL,\n"
    "  packets_out INTEGER NOT NULL, packets_in INTEGER NOT NULL, bytes_out INTEGER NOT NULL,"
    " bytes_in INTEGER NOT NULL, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL,\n";

std::string rollup_tables_5() {
  std::string sql;
  for (const SumsOf5& table : kSumsOf5)
    sql += std::string("CREATE TABLE ") + table.name + "(\n  action INTEGER NOT NULL, bucket INTEGER NOT NULL, " +
           (table.has_peer ? "peer INTEGER NOT NULL, " : "") +
           "rule INTEGER NOT NULL, reporter INTEGER NOT NULL,\n" + kSumsColumns + "  PRIMARY KEY(action, bucket, " +
           (table.has_peer ? "peer, " : "") + "rule, reporter)) STRICT, WITHOUT ROWID;\n";
  return sql;
}

// Rows without their start, a covering index of denied ones, roll-ups, dictionaries that can be cleaned, an
// end for rules. The longest span says how far before its end a kept record may begin.
std::string version_5() {
  const std::string columns =
      "seq, id, end_ns, reporter, direction, action, reason, rule, src, dst, proto, src_port, dst_port, "
      "icmp_type,"
      " icmp_code, logged_by, trace, staged, dst_service, connections, verdict_packets, packets_out, "
      "packets_in,"
      " bytes_out, bytes_in, tcp_flags, ct_state, end_reason, dst_nat_ip, dst_nat_port, src_nat_ip, "
      "src_nat_port";
  return "DROP VIEW flows;\nDROP VIEW denied_flows;\nALTER TABLE flow RENAME TO flow_4;\n" +
         std::string(kFlowTable) + "INSERT INTO flow(" + columns + ", span_ns) SELECT " + columns +
         ", end_ns - start_ns FROM flow_4;\nDROP TABLE flow_4;\n" + kFlowIndexes + dictionary_uses() +
         rollup_tables_5() +
         "INSERT INTO meta(key, value) VALUES ('rolled_sequence', '0'), ('eroded_ns', '-1');\n"
         "INSERT INTO meta(key, value) SELECT 'longest_span_ns', CAST(coalesce(max(span_ns), 0) AS TEXT) "
         "FROM flow;\n"
         "ALTER TABLE rule ADD COLUMN gone_ns INTEGER;\n" +
         flow_views_anew();
}

// Buckets of five widths in one table a kind of sums (store/rollups.h). The wide ones are made again from minutes, piece by
// piece, by the writer; until then minutes answer.
std::string version_6() {
  constexpr const char* kSums =
      "records, connections, verdict_packets, packets_out, packets_in, bytes_out, bytes_in, first_ns, last_ns";
  constexpr const char* kMinutesOf5[kRollupTableCount] = {"activity_minute", "source_minute", "target_minute"};
  std::string sql =
      "CREATE TABLE sums_reach(\n  of TEXT NOT NULL, width INTEGER NOT NULL, until_ns INTEGER NOT NULL,"
      " PRIMARY KEY(of, width)) STRICT, WITHOUT ROWID;\n";
  for (std::size_t i = 0; i < kRollupTableCount; ++i) {
    const RollupTable& table = kRollupTables[i];
    const std::string peer = table.peer == RollupPeer::None ? "" : "peer, ";
    sql += std::string("-- width: of a bucket, in seconds; bucket: which one since 1970.\nCREATE TABLE ") + table.name +
           "(\n  width INTEGER NOT NULL, action INTEGER NOT NULL, reporter INTEGER NOT NULL, bucket INTEGER NOT NULL, " +
           (peer.empty() ? "" : "peer INTEGER NOT NULL, ") + "rule INTEGER NOT NULL,\n" + kSumsColumns +
           "  PRIMARY KEY(width, action, reporter, bucket, " + peer + "rule)) STRICT, WITHOUT ROWID;\nINSERT INTO " +
           table.name + "(width, action, reporter, bucket, " + peer + "rule, " + kSums +
           ") SELECT 60, action, reporter, bucket, " + peer + "rule, " + kSums + " FROM " + kMinutesOf5[i] +
           " ORDER BY action, reporter, bucket, " + peer + "rule;\n";
  }
  for (const SumsOf5& table : kSumsOf5) sql += std::string("DROP TABLE ") + table.name + ";\n";
  return sql;
}

// Rows of denied flows in the order in which the flows came (store/told.h): what one batch adds stands together.
std::string version_7() {
  return R"sql(
ALTER TABLE denied_told RENAME TO denied_told_6;
CREATE TABLE denied_told(
  handle INTEGER PRIMARY KEY, rule_id INTEGER NOT NULL, src BLOB NOT NULL, dst BLOB NOT NULL, proto INTEGER NOT NULL,
  port_or_icmp INTEGER NOT NULL, packets INTEGER NOT NULL, bytes INTEGER NOT NULL,
  last_packet_ns INTEGER NOT NULL) STRICT;
INSERT INTO denied_told(rule_id, src, dst, proto, port_or_icmp, packets, bytes, last_packet_ns)
  SELECT rule_id, src, dst, proto, port_or_icmp, packets, bytes, last_packet_ns FROM denied_told_6;
DROP TABLE denied_told_6;
)sql";
}

// Of an instant, in minutes since 1970; rounded down before it, too.
constexpr const char* kMinuteOfEnd = "(f.end_ns - ((f.end_ns % 60000000000) + 60000000000) % 60000000000) / 60000000000";

// Which peers are pods of this node stands with them, and what is told again by a destination of this node has sums of its
// own: column reporter of the sums is 2 there (store/rollups.h). By destination and by rule they are made of what is there, by
// source of the records.
std::string version_8() {
  constexpr const char* kAmounts =
      "sum(records), sum(connections), sum(verdict_packets), sum(packets_out), sum(packets_in), sum(bytes_out),"
      " sum(bytes_in), min(first_ns), max(last_ns)";
  const std::string by_source =
      "INSERT INTO sums_by_source(width, action, reporter, bucket, peer, rule, records, connections, verdict_packets,"
      " packets_out, packets_in, bytes_out, bytes_in, first_ns, last_ns) ";
  std::string sql =
      "ALTER TABLE peer ADD COLUMN local INTEGER NOT NULL DEFAULT 0;\n"
      "UPDATE peer SET local = 1 WHERE kind = 0 AND ip IN (" +
      std::string(kLocalAddresses) +
      ");\n"
      "UPDATE sums_by_target SET reporter = 2 WHERE action = 0 AND reporter = 0 AND peer IN (SELECT id FROM peer WHERE local);\n"
      "DELETE FROM sums_by_rule;\n"
      "INSERT INTO sums_by_rule(width, action, reporter, bucket, rule, records, connections, verdict_packets, packets_out,"
      " packets_in, bytes_out, bytes_in, first_ns, last_ns) SELECT width, action, reporter, bucket, rule, " +
      kAmounts +
      " FROM sums_by_target GROUP BY width, action, reporter, bucket, rule;\n"
      "DELETE FROM sums_reach WHERE of = 'sums_by_rule';\n"
      "INSERT INTO sums_reach(of, width, until_ns) SELECT 'sums_by_rule', width, until_ns FROM sums_reach"
      " WHERE of = 'sums_by_target';\n"
      "DELETE FROM sums_by_source WHERE action = 0 AND reporter = 0;\n" +
      by_source + "SELECT 60, 0, iif(d.local, 2, 0) AS view, " + kMinuteOfEnd +
      " AS minute, f.src, f.rule, count(*), sum(coalesce(f.connections, 0)), sum(f.verdict_packets),"
      " sum(coalesce(f.packets_out, 0)), sum(coalesce(f.packets_in, 0)), sum(coalesce(f.bytes_out, 0)),"
      " sum(coalesce(f.bytes_in, 0)), min(f.end_ns - f.span_ns), max(f.end_ns)"
      " FROM flow AS f CROSS JOIN peer AS d ON d.id = f.dst WHERE f.action = 0 AND f.reporter = 0 AND"
      " f.seq <= (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'rolled_sequence')"
      " GROUP BY view, minute, f.src, f.rule;\n";
  for (std::size_t level = 1; level < kRollupLevels; ++level) {
    const std::string narrow = std::to_string(kRollupWidths[level - 1] / kRollupSecondNs),
                      wide = std::to_string(kRollupWidths[level] / kRollupSecondNs);
    sql += by_source + "SELECT " + wide + ", action, reporter, bucket / (" + wide + " / " + narrow + ") AS at, peer, rule, " +
           kAmounts + " FROM sums_by_source WHERE width = " + narrow +
           " AND action = 0 AND reporter IN (0, 2) AND bucket < (SELECT coalesce(max(until_ns), 0) FROM sums_reach"
           " WHERE of = 'sums_by_source' AND width = " +
           wide + ") / (" + narrow + " * " + std::to_string(kRollupSecondNs) + ") GROUP BY action, reporter, at, peer, rule;\n";
  }
  return sql;
}

// Sums as bytes, many in a row (store/packed_sums.h).
std::string version_9() {
  std::string sql;
  for (const RollupTable& table : kRollupTables) {
    const std::string name = table.name;
    sql += "ALTER TABLE " + name + " RENAME TO " + name + "_8;\n-- width: of a bucket, in seconds; bucket: which one since 1970;"
           " part: of its peers.\nCREATE TABLE " +
           name +
           "(\n  id INTEGER PRIMARY KEY, width INTEGER NOT NULL, action INTEGER NOT NULL, reporter INTEGER NOT NULL,"
           " bucket INTEGER NOT NULL, part INTEGER NOT NULL, sums BLOB NOT NULL) STRICT;\nCREATE UNIQUE INDEX " +
           name + "_key ON " + name + "(width, action, reporter, bucket, part);\n";
  }
  return sql;
}

Result<void> pack_sums(sqlite::Database& database) {
  for (const RollupTable& table : kRollupTables) {
    TL_TRY(pack_rollups_of_version_8(database, table));
    TL_TRY(database.execute(std::string("DROP TABLE ") + table.name + "_8"));
  }
  return {};
}

// Denied flows, and how often peers and texts are referred to, as bytes, many in a row (store/denied_blocks.h,
// store/reference_uses.h). of: 0 peer, 1 text; unused: how many of the part nothing refers to.
std::string version_10() {
  return "ALTER TABLE denied_told RENAME TO denied_told_9;\n"
         "CREATE TABLE denied_told(block INTEGER PRIMARY KEY, flows BLOB NOT NULL) STRICT;\n"
         "CREATE TABLE reference_uses(\n  of INTEGER NOT NULL, part INTEGER NOT NULL, unused INTEGER NOT NULL,"
         " counts BLOB NOT NULL, PRIMARY KEY(of, part)) STRICT, WITHOUT ROWID;\n"
         "CREATE INDEX reference_uses_unused ON reference_uses(of, part) WHERE unused > 0;\n";
}

Result<void> pack_uses(sqlite::Database& database, const std::string& table, Referred of, std::int64_t except) {
  Uses uses;
  {
    TL_ASSIGN(auto rows, database.prepare("SELECT id, uses FROM " + table));
    for (;;) {
      TL_ASSIGN(const bool row, rows.step());
      if (!row) break;
      if (rows.integer(0) != except) uses.at(rows.integer(0)) += rows.integer(1);
    }
    TL_ASSIGN(auto packed, ReferenceUses::open(database));
    TL_TRY(packed.add(of, uses));
  }
  return database.execute("DROP INDEX " + table + "_unused; ALTER TABLE " + table + " DROP COLUMN uses");
}

Result<void> pack_of_version_9(sqlite::Database& database) {
  TL_TRY(pack_denied_of_version_9(database, "denied_told_9"));
  TL_TRY(database.execute("DROP TABLE denied_told_9"));
  TL_TRY(pack_uses(database, "peer", Referred::Peer, 0));
  return pack_uses(database, "text", Referred::Text, kEmptyText);
}

// Migration number n takes a file from version n to n + 1.
struct Migration {
  std::string (*sql)();
  Result<void> (*then)(sqlite::Database& database) = nullptr;
};
constexpr Migration kMigrations[] = {{version_1}, {version_2}, {version_3}, {version_4},           {version_5},
                                     {version_6}, {version_7}, {version_8}, {version_9, pack_sums},
                                     {version_10, pack_of_version_9}};
static_assert(std::size(kMigrations) == kSchemaVersion);

Result<void> refuse_newer(std::int64_t version, const std::string& path) {
  if (version <= kSchemaVersion) return {};
  return fail(ErrorCode::Corrupt, path + " has schema version " + std::to_string(version) +
                                      "; this program knows versions up to " +
                                      std::to_string(kSchemaVersion) +
                                      ": use the newer Tierlog that wrote it");
}

}  // namespace

const char* const kLocalAddresses =
    "SELECT address.value FROM object_history AS h, json_each(h.value, '$.addresses') AS address"
    " WHERE h.kind = 0 AND h.value ->> 'local' AND NOT h.value ->> 'host_network'";

Result<void> refuse_foreign(sqlite::Database& database, const std::string& path) {
  const auto application = database.integer("PRAGMA application_id");
  const auto objects = database.integer("SELECT count(*) FROM sqlite_schema");
  for (const auto* answer : {&application, &objects}) {
    if (*answer) continue;
    if (answer->error().code != ErrorCode::Corrupt) return fail(answer->error());
    return fail(ErrorCode::Corrupt, answer->error().message + "; expected a Tierlog flow index");
  }
  if (*application == kApplicationId || (*application == 0 && *objects == 0)) return {};
  return fail(ErrorCode::Corrupt, path + " is the SQLite database of another program (application id " +
                                      std::to_string(*application) + "); expected a Tierlog flow index");
}

Result<void> migrate(sqlite::Database& database, const std::string& path) {
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  TL_ASSIGN(std::int64_t version, database.integer("PRAGMA user_version"));
  TL_TRY(refuse_newer(version, path));
  if (version == kSchemaVersion) return {};
  for (; version < kSchemaVersion; ++version) {
    const Migration& migration = kMigrations[version];
    TL_TRY(database.execute(migration.sql()));
    if (migration.then != nullptr) TL_TRY(migration.then(database));
  }
  TL_TRY(database.execute("PRAGMA application_id = " + std::to_string(kApplicationId)));
  TL_TRY(database.execute("PRAGMA user_version = " + std::to_string(kSchemaVersion)));
  return transaction.commit();
}

Result<void> check_schema(sqlite::Database& database, const std::string& path) {
  TL_TRY(refuse_foreign(database, path));
  TL_ASSIGN(const std::int64_t version, database.integer("PRAGMA user_version"));
  TL_TRY(refuse_newer(version, path));
  if (version == kSchemaVersion) return {};
  if (version == 0)
    return fail(ErrorCode::Corrupt, path +
                                        " is empty: no flow index was written there, or it was copied without its -wal; "
                                        "`tierlog store export --format sqlite` makes whole copies");
  return fail(ErrorCode::Corrupt, path + " has schema version " + std::to_string(version) + "; expected " +
                                      std::to_string(kSchemaVersion) +
                                      ": the daemon migrates it when it starts");
}

}  // namespace tierlog::store
