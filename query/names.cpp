#include "query/names.h"

#include <algorithm>
#include <set>

#include "base/diagnostics.h"
#include "base/text.h"
#include "store/patterns.h"

namespace tierlog::query {
namespace {

using Field = store::FieldFilter::Field;

bool is_plain(const std::string& text) {
  return text.find_first_of("*?[]/\\") == std::string::npos;
}

// What a filter's values are names of; empty: nothing that can be looked up.
const char* kind_of(Field field) {
  switch (field) {
    case Field::Tier:
      return "tier";
    case Field::Namespace:
    case Field::FromNamespace:
    case Field::ToNamespace:
      return "namespace";
    case Field::Pod:
    case Field::From:
    case Field::To:
      return "pod";
    case Field::Service:
      return "Service";
    case Field::Workload:
    case Field::FromWorkload:
    case Field::ToWorkload:
      return "workload";
    case Field::Node:
      return "node";
    case Field::Cluster:
      return "cluster";
    default:
      return "";
  }
}

// An address or CIDR is nobody's name.
bool is_address(const std::string& text) {
  return Cidr::parse(text).has_value();
}

Result<std::vector<std::string>> known_names(store::FlowReader& reader, const std::string& kind) {
  std::set<std::string> names;
  if (kind == "tier") {
    TL_ASSIGN(const auto tiers, reader.tiers());
    for (const store::TierRow& tier : tiers) names.insert(tier.name);
  } else if (kind == "node" || kind == "cluster") {
    TL_ASSIGN(const auto origin, reader.origin());
    names.insert(kind == "node" ? origin.node : origin.cluster);
  } else if (kind == "Service") {
    TL_ASSIGN(const auto versions, reader.object_versions(WallTime::min(), WallTime::max()));
    for (const store::ObjectVersion& version : versions)
      if (version.kind == store::ObjectKind::Service) names.insert(version.name);
  } else {
    TL_ASSIGN(const auto endpoints, reader.endpoints());
    for (const store::EndpointRow& endpoint : endpoints) {
      if (kind == "namespace") names.insert(endpoint.endpoint_namespace);
      if (kind == "workload") names.insert(endpoint.workload);
      if (kind == "pod") names.insert(endpoint.endpoint_namespace + "/" + endpoint.name);
    }
  }
  return std::vector<std::string>(names.begin(), names.end());
}

bool has_namespace(const std::string& kind) {
  return kind == "pod" || kind == "Service";
}

// "tenant-01/db" of "db", or what is spelt nearly like it.
std::string nearest_in_namespace(const std::string& typed, const std::vector<std::string>& pods) {
  std::vector<std::string> names;
  for (const std::string& pod : pods) names.push_back(pod.substr(pod.find('/') + 1));
  if (typed.find('/') != std::string::npos) return nearest(typed, pods);
  const std::string close = nearest(typed, names);
  for (std::size_t i = 0; i < names.size(); ++i)
    if (!close.empty() && names[i] == close) return pods[i];
  return {};
}

Result<void> require_name(store::FlowReader& reader, Field field, const std::string& name) {
  const std::string kind = kind_of(field);
  TL_ASSIGN(const auto known, known_names(reader, kind));
  for (const std::string& one : known)
    if (one == name) return {};
  // Gone from the node, but in its records. Services of all records are in the history; rows, which have no index by
  // Service, are asked as far as that takes no time.
  constexpr std::int64_t kFewRows = 100'000;
  store::FlowQuery any;
  any.filters.push_back({field, {name}, false});
  any.limit = 1;
  if (field == Field::Service) {
    TL_ASSIGN(const std::int64_t last, reader.last_sequence());
    any.after_sequence = std::max<std::int64_t>(0, last - kFewRows);
  }
  TL_ASSIGN(const auto recorded, reader.flows(any));
  if (!recorded.empty()) return {};
  const std::string close = has_namespace(kind) ? nearest_in_namespace(name, known) : nearest(name, known);
  for (const std::string& one : known)  // named without its namespace, but without traffic
    if (has_namespace(kind) && one.ends_with("/" + name)) return {};
  if (kind == "pod" && field != Field::From && require_name(reader, Field::Service, name))
    return fail(ErrorCode::NotFound, "no pod is called \"" + name + "\", but a Service is: ask with --service " + name);
  std::string sentence = "no " + kind + " is called \"" + name + "\", now or in any record";
  if (!close.empty()) sentence += "; did you mean " + close + "?";
  return fail(ErrorCode::NotFound, std::move(sentence));
}

}  // namespace

Result<void> require_known_names(store::FlowReader& reader, const store::FlowQuery& query) {
  for (const store::FieldFilter& filter : query.filters) {
    const std::string kind = kind_of(filter.field);
    if (kind.empty() || filter.negate) continue;
    for (const std::string& value : store::split_values(filter.values)) {
      const bool namespaced = has_namespace(kind) && value.find('/') != 0 && !is_address(value) &&
                              value.find_first_of("*?[]\\") == std::string::npos;
      if (namespaced || (!has_namespace(kind) && is_plain(value))) TL_TRY(require_name(reader, filter.field, value));
    }
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

std::string no_rules(const std::string& policy) {
  return policy.empty() ? "no rule is known: the daemon has not loaded policies yet (`tierlog status`)"
                        : "no rule of it is enforced now; `tierlog rules " + policy + " --all` shows earlier ones";
}

}  // namespace tierlog::query
