#include "cli/policy_names.h"

#include <set>

#include "base/diagnostics.h"
#include "cli/format.h"
#include "store/patterns.h"

namespace tierlog::cli {
namespace {

using Field = store::FieldFilter::Field;

bool is_plain(const std::string& text) {
  return text.find_first_of("*?[]/\\") == std::string::npos;
}

Result<std::vector<std::string>> known_names(store::FlowReader& reader, Field field) {
  std::set<std::string> names;
  if (field == Field::Tier) {
    TL_ASSIGN(const auto tiers, reader.tiers());
    for (const store::TierRow& tier : tiers) names.insert(tier.name);
  } else {
    TL_ASSIGN(const auto endpoints, reader.endpoints());
    for (const store::EndpointRow& endpoint : endpoints) names.insert(endpoint.endpoint_namespace);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<void> require_name(store::FlowReader& reader, Field field, const std::string& name) {
  TL_ASSIGN(const auto known, known_names(reader, field));
  for (const std::string& one : known)
    if (one == name) return {};
  // Gone from the node, but in its records.
  store::FlowQuery any;
  any.filters.push_back({field, {name}, false});
  any.limit = 1;
  TL_ASSIGN(const auto recorded, reader.flows(any));
  if (!recorded.empty()) return {};
  const std::string close = nearest(name, known);
  std::string sentence = std::string("no ") + (field == Field::Tier ? "tier" : "namespace") +
                         " is called \"" + name + "\", now or in any record";
  if (!close.empty()) sentence += "; did you mean " + close + "?";
  return fail(ErrorCode::NotFound, std::move(sentence));
}

}  // namespace

Result<void> require_known_names(store::FlowReader& reader, const store::FlowQuery& query) {
  for (const store::FieldFilter& filter : query.filters) {
    const bool named = filter.field == Field::Tier || filter.field == Field::Namespace ||
                       filter.field == Field::FromNamespace || filter.field == Field::ToNamespace;
    if (!named || filter.negate) continue;
    for (const std::string& value : store::split_values(filter.values))
      if (is_plain(value)) TL_TRY(require_name(reader, filter.field, value));
  }
  return {};
}

std::string nearest_policy(const std::string& typed, const std::vector<std::string>& displays) {
  std::vector<std::string> forms;
  std::vector<const std::string*> owners;
  for (const std::string& display : displays) {
    const std::string name = display.substr(display.rfind('/') + 1);
    for (const std::string& form : {name, under_tier(display), display}) {
      forms.push_back(form);
      owners.push_back(&display);
    }
  }
  const std::string close = nearest(typed, forms);
  for (std::size_t i = 0; i < forms.size(); ++i)
    if (!close.empty() && forms[i] == close) return *owners[i];
  return {};
}

Result<std::vector<std::string>> require_policies(store::FlowReader& reader, const std::string& pattern) {
  TL_ASSIGN(std::vector<std::string> found, reader.match_policies(pattern));
  if (!found.empty()) return found;
  TL_ASSIGN(const std::vector<std::string> known, reader.policy_names());
  std::string sentence = "no policy matches \"" + pattern + "\"";
  if (known.empty()) {
    sentence += "; the database knows no policy yet (has the daemon loaded any? `tierlog status`)";
  } else {
    const std::string close = nearest_policy(pattern, known);
    if (!close.empty()) sentence += "; did you mean " + close + "?";
    sentence += " (`tierlog policies` lists all)";
  }
  return fail(ErrorCode::NotFound, std::move(sentence));
}

}  // namespace tierlog::cli
