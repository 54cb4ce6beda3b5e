// What was enforced earlier, read back.
#include <nlohmann/json.hpp>

#include "store/query.h"
#include "store/reader.h"
#include "store/record_json.h"

namespace tierlog::store {
namespace {

using Json = nlohmann::json;

Result<PolicySetRow> read_set(const sqlite::Statement& row) {
  PolicySetRow set;
  set.id = row.integer(0);
  set.since = from_ns(row.integer(1));
  set.revision = row.count(2);
  set.ready = row.integer(3) != 0;
  TL_ASSIGN(const auto addresses, parse_strings(row.view(4)));
  for (const std::string& text : addresses)
    if (const auto address = IpAddr::parse(text)) set.host_addresses.push_back(*address);
  return set;
}

}  // namespace

Result<std::vector<PolicySetRow>> FlowReader::policy_sets() {
  TL_ASSIGN(auto select, impl_->database.prepare("SELECT id, since_ns, revision, ready, host_addresses"
                                                 " FROM policy_set ORDER BY since_ns, id"));
  std::vector<PolicySetRow> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    TL_ASSIGN(PolicySetRow set, read_set(select));
    found.push_back(std::move(set));
  }
}

Result<std::vector<policy::SourceText>> FlowReader::policy_texts(std::int64_t set) {
  TL_ASSIGN(auto select, impl_->database.prepare("SELECT files FROM policy_set WHERE id = ?1"));
  TL_ASSIGN(const bool known, select.bind(set).step());
  if (!known) return fail(ErrorCode::NotFound, "the policy set is not kept any more");
  const Json files = Json::parse(select.view(0), nullptr, false);
  if (!files.is_array()) return fail(ErrorCode::Corrupt, "policy_set: files is no list");
  TL_ASSIGN(auto text, impl_->database.prepare("SELECT value FROM policy_text WHERE id = ?1"));
  std::vector<policy::SourceText> texts;
  for (const Json& file : files) {
    if (!file.is_array() || file.size() != 2 || !file[0].is_string() || !file[1].is_number_integer())
      return fail(ErrorCode::Corrupt, "policy_set: files holds " + file.dump());
    TL_ASSIGN(const bool kept, text.bind(file[1].get<std::int64_t>()).step());
    if (!kept) return fail(ErrorCode::Corrupt, "policy_text: the text of " + file[0].dump() + " is missing");
    texts.push_back({file[0].get<std::string>(), text.text(0)});
  }
  return texts;
}

Result<std::vector<ObjectVersion>> FlowReader::object_versions(WallTime from, WallTime until) {
  TL_ASSIGN(auto select,
            impl_->database.prepare("SELECT kind, name, since_ns, until_ns, value FROM object_history"
                                    " WHERE since_ns <= ?2 AND (until_ns IS NULL OR until_ns > ?1)"
                                    " ORDER BY since_ns, id"));
  select.bind(to_ns(from), to_ns(until));
  std::vector<ObjectVersion> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    ObjectVersion version;
    version.kind = static_cast<ObjectKind>(select.integer(0));
    version.name = select.text(1);
    version.since = from_ns(select.integer(2));
    if (!select.is_null(3)) version.until = from_ns(select.integer(3));
    version.value = select.text(4);
    found.push_back(std::move(version));
  }
}

Result<std::unordered_map<std::uint64_t, policy::RuleIdentity>> FlowReader::rule_keys() {
  TL_ASSIGN(auto select, impl_->database.prepare("SELECT hash, rule_id, revision FROM rule_key"));
  std::unordered_map<std::uint64_t, policy::RuleIdentity> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    found[select.count(0)] = {RuleId{static_cast<std::uint32_t>(select.integer(1))},
                              static_cast<std::uint32_t>(select.integer(2))};
  }
}

}  // namespace tierlog::store
