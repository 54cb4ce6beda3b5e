#include "store/catalog_rows.h"

#include <string>

#include "store/record_json.h"

namespace tierlog::store {
namespace {

Result<void> write_tiers(sqlite::Database& database, const std::vector<TierRow>& tiers) {
  TL_TRY(database.execute("DELETE FROM tier"));
  TL_ASSIGN(auto insert, database.prepare("INSERT INTO tier(position, name, tier_order, default_action)"
                                          " VALUES (?1, ?2, ?3, ?4)"));
  for (const TierRow& tier : tiers)
    TL_TRY(insert.bind(tier.position, tier.name, tier.order, tier.default_action).run());
  return {};
}

Result<void> write_policies(sqlite::Database& database, const std::vector<PolicyRow>& policies) {
  TL_TRY(database.execute("DELETE FROM policy"));
  TL_ASSIGN(auto insert,
            database.prepare("INSERT INTO policy(position, display, tier, kind, short_kind, namespace, name,"
                             " policy_order, revision, endpoints_selected, staged, selector, source)"
                             " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"));
  for (const PolicyRow& policy : policies)
    TL_TRY(insert
               .bind(policy.position, policy.display, policy.tier, policy.kind, policy.short_kind,
                     policy.policy_namespace, policy.name, policy.order, policy.revision,
                     policy.endpoints_selected, policy.staged, policy.selector, policy.source)
               .run());
  return {};
}

Result<void> write_endpoints(sqlite::Database& database, const std::vector<EndpointRow>& endpoints) {
  TL_TRY(database.execute("DELETE FROM endpoint"));
  TL_ASSIGN(
      auto insert,
      database.prepare("INSERT INTO endpoint(namespace, name, node, interface, workload, labels, addresses,"
                       " enforced, ingress_policies, egress_policies)"
                       " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"));
  for (const EndpointRow& endpoint : endpoints)
    TL_TRY(insert
               .bind(endpoint.endpoint_namespace, endpoint.name, endpoint.node, endpoint.interface,
                     endpoint.workload, labels_text(endpoint.labels), strings_text(endpoint.addresses),
                     endpoint.enforced, strings_text(endpoint.ingress_policies),
                     strings_text(endpoint.egress_policies))
               .run());
  return {};
}

}  // namespace

Result<void> write_meta(sqlite::Database& database, std::string_view key, std::string_view value) {
  TL_ASSIGN(auto put, database.prepare("INSERT INTO meta(key, value) VALUES (?1, ?2)"
                                       " ON CONFLICT(key) DO UPDATE SET value = excluded.value"));
  return put.bind(key, value).run();
}

Result<void> write_rules(sqlite::Database& database, std::span<const RuleRow> rules) {
  TL_ASSIGN(auto put, database.prepare(
                          "INSERT OR REPLACE INTO rule(rule_id, policy, policy_kind, tier, policy_namespace,"
                          " policy_name, direction, rule_index, action, reason, revision, text, source,"
                          " also_policies, live)"
                          " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, 1)"));
  TL_ASSIGN(auto put_also,
            database.prepare("INSERT OR IGNORE INTO rule_also(rule_id, policy) VALUES (?1, ?2)"));
  for (const RuleRow& rule : rules) {
    TL_TRY(put.bind(number(rule.id), rule.policy, rule.policy_kind, rule.tier, rule.policy_namespace,
                    rule.policy_name, static_cast<int>(rule.direction), rule.rule_index, rule.action,
                    rule.reason, rule.revision, rule.text, rule.source, strings_text(rule.also_policies))
               .run());
    for (const std::string& policy : rule.also_policies) TL_TRY(put_also.bind(number(rule.id), policy).run());
  }
  // Who keeps the names looks here whether they are still the same.
  return database.execute(
      "INSERT INTO meta(key, value) VALUES ('catalog_version', '1')"
      " ON CONFLICT(key) DO UPDATE SET value = CAST(value + 1 AS TEXT)");
}

Result<void> write_catalog(sqlite::Database& database, const Catalog& catalog) {
  TL_TRY(write_meta(database, "catalog_revision", std::to_string(catalog.revision)));
  TL_TRY(write_meta(database, "catalog_since_ns", std::to_string(to_ns(catalog.since))));
  TL_TRY(write_tiers(database, catalog.tiers));
  TL_TRY(write_policies(database, catalog.policies));
  TL_TRY(write_endpoints(database, catalog.endpoints));
  TL_TRY(database.execute("UPDATE rule SET live = 0 WHERE live"));
  TL_TRY(write_rules(database, catalog.rules));
  TL_ASSIGN(auto gone, database.prepare("UPDATE rule SET gone_ns = ?1 WHERE NOT live AND gone_ns IS NULL"));
  return gone.bind(to_ns(catalog.since)).run();
}

Result<void> write_counts(sqlite::Database& database, std::span<const RuleCount> counts,
                          std::span<const LossCount> losses, WallTime at) {
  TL_ASSIGN(auto put_count,
            database.prepare(
                "INSERT INTO counter(rule_id, now_packets, now_bytes, grown_ns)"
                " VALUES (?1, ?2, ?3, CASE WHEN ?2 > 0 THEN ?4 END) ON CONFLICT(rule_id) DO UPDATE SET"
                " before_packets = before_packets + iif(excluded.now_packets < now_packets, now_packets, 0),"
                " before_bytes = before_bytes + iif(excluded.now_packets < now_packets, now_bytes, 0),"
                " grown_ns = iif(excluded.now_packets > 0, ?4, grown_ns),"
                " now_packets = excluded.now_packets, now_bytes = excluded.now_bytes"
                " WHERE excluded.now_packets <> now_packets OR excluded.now_bytes <> now_bytes"));
  TL_ASSIGN(auto put_loss,
            database.prepare(
                "INSERT INTO lost(cause, rule_id, now_packets, changed_ns)"
                " VALUES (?1, ?2, ?3, CASE WHEN ?3 > 0 THEN ?4 END) ON CONFLICT(cause, rule_id) DO UPDATE SET"
                " before_packets = before_packets + iif(excluded.now_packets < now_packets, now_packets, 0),"
                " changed_ns = ?4, now_packets = excluded.now_packets"
                " WHERE excluded.now_packets <> now_packets"));
  for (const RuleCount& count : counts)
    TL_TRY(put_count.bind(number(count.id), count.packets, count.bytes, to_ns(at)).run());
  for (const LossCount& loss : losses)
    TL_TRY(put_loss.bind(loss.cause, number(loss.rule), loss.packets, to_ns(at)).run());
  return {};
}

Result<std::vector<RuleCount>> read_counts(sqlite::Database& database) {
  TL_ASSIGN(auto select, database.prepare("SELECT rule_id, now_packets + before_packets,"
                                          " now_bytes + before_bytes FROM counter ORDER BY rule_id"));
  std::vector<RuleCount> counts;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return counts;
    counts.push_back(
        {RuleId{static_cast<std::uint32_t>(select.integer(0))}, select.count(1), select.count(2)});
  }
}

}  // namespace tierlog::store
