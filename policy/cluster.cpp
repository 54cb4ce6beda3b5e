#include "policy/cluster.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "policy/label_source.h"

namespace tierlog::policy {
namespace {

Labels prefixed(std::string_view prefix, const Labels& labels, const std::string& name) {
  Labels result;
  for (const auto& [key, value] : labels) result.emplace(std::string(prefix) + key, value);
  result[std::string(prefix) + label::kName] = name;
  return result;
}

Labels of_namespace(const std::string& name, const Labels& labels) {
  Labels result = prefixed(label::kNamespacePrefix, labels, name);
  result[std::string(label::kNamespacePrefix) + label::kKubernetesNamespaceName] = name;
  return result;
}

// Every pod runs under an account: where nobody names one, under its namespace's default one.
const std::string& account_of(const Endpoint& endpoint) {
  static const std::string default_account = "default";
  return endpoint.service_account.empty() ? default_account : endpoint.service_account;
}

Labels of_endpoint(const Endpoint& endpoint, const Labels& of_its_namespace, const Labels& of_its_account) {
  Labels labels = endpoint.labels;
  labels.insert(of_its_namespace.begin(), of_its_namespace.end());
  labels[label::kName] = endpoint.name;
  labels[label::kNamespace] = endpoint.endpoint_namespace;
  labels[label::kOrchestrator] = "k8s";
  labels.insert(of_its_account.begin(), of_its_account.end());
  labels[label::kServiceAccount] = account_of(endpoint);
  return labels;
}

Labels of_set(const NetworkSet& set, const Labels* of_its_namespace) {
  Labels labels = set.labels;
  labels[label::kName] = set.name;
  if (of_its_namespace == nullptr) return labels;
  labels.insert(of_its_namespace->begin(), of_its_namespace->end());
  labels[label::kNamespace] = set.set_namespace;
  return labels;
}

Labels namespace_labels(const Cluster& cluster, const std::string& name) {
  const auto found = cluster.namespaces.find(name);
  return of_namespace(name, found == cluster.namespaces.end() ? Labels{} : found->second.labels);
}

Labels account_labels(const std::string& name, const Labels& labels) {
  return prefixed(label::kServiceAccountPrefix, labels, name);
}

// Kubernetes makes generated name parts without vowels, so that they spell nothing.
bool is_generated(std::string_view part) {
  return std::all_of(part.begin(), part.end(), [](char c) {
    return ('0' <= c && c <= '9') ||
           ('a' <= c && c <= 'z' && std::string_view("aeiou").find(c) == std::string_view::npos);
  });
}

bool is_number(std::string_view part) {
  return !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
}

// The hash of a ReplicaSet (a number in an alphabet of ten) or the scheduled minute of a CronJob.
bool is_hash(std::string_view part) {
  return part.size() >= 5 && part.size() <= 10 &&
         part.find_first_not_of("0123456789bcdf") == std::string_view::npos &&
         part.find_first_of("0123456789") != std::string_view::npos;
}

}  // namespace

const Endpoint* Cluster::find(std::string_view endpoint_namespace, std::string_view name) const {
  const auto found = std::find_if(endpoints.begin(), endpoints.end(), [&](const Endpoint& endpoint) {
    return endpoint.name == name && endpoint.endpoint_namespace == endpoint_namespace;
  });
  return found == endpoints.end() ? nullptr : &*found;
}

Labels effective_labels(const Cluster& cluster, const Endpoint& endpoint) {
  const auto& accounts = cluster.service_accounts;
  const auto account = std::find_if(accounts.begin(), accounts.end(), [&](const ServiceAccountObject& a) {
    return a.name == account_of(endpoint) && a.account_namespace == endpoint.endpoint_namespace;
  });
  return of_endpoint(
      endpoint, namespace_labels(cluster, endpoint.endpoint_namespace),
      account_labels(account_of(endpoint), account == accounts.end() ? Labels{} : account->labels));
}

Labels effective_labels(const Cluster& cluster, const NetworkSet& set) {
  if (set.set_namespace.empty()) return of_set(set, nullptr);
  const Labels of_namespace_too = namespace_labels(cluster, set.set_namespace);
  return of_set(set, &of_namespace_too);
}

Labels effective_labels(const HostEndpoint& endpoint) {
  Labels labels = endpoint.labels;
  labels[label::kName] = endpoint.name;
  return labels;
}

std::string workload_of(std::string_view pod_name) {
  const auto before_last = [](std::string_view text) {
    const auto dash = text.rfind('-');
    return dash == std::string_view::npos || dash == 0 ? std::nullopt : std::optional(dash);
  };
  const auto last = before_last(pod_name);
  if (!last) return std::string(pod_name);
  const std::string_view owner = pod_name.substr(0, *last);
  const std::string_view suffix = pod_name.substr(*last + 1);
  if (suffix.size() == 5 && is_generated(suffix)) {
    const auto hash = before_last(owner);
    return std::string(hash && is_hash(owner.substr(*hash + 1)) ? owner.substr(0, *hash) : owner);
  }
  return std::string(is_number(suffix) ? owner : pod_name);
}

LabelSource::LabelSource(const Cluster& cluster, const std::vector<NamespaceObject>& more) {
  for (const auto& [name, object] : cluster.namespaces) add(object);
  for (const NamespaceObject& object : more) add(object);
  for (const ServiceAccountObject& account : cluster.service_accounts)
    accounts_.emplace(std::pair(account.account_namespace, account.name),
                      account_labels(account.name, account.labels));
}

void LabelSource::add(const NamespaceObject& object) {
  Namespace& known = namespaces_[object.name];
  for (auto& [key, value] : of_namespace(object.name, object.labels)) known.prefixed[key] = value;
  known.log_decisions = joined(known.log_decisions, object.log_decisions);
  known.audited = known.audited || object.audited;
}

Labels LabelSource::of(const Endpoint& endpoint) const {
  const std::pair account(endpoint.endpoint_namespace, account_of(endpoint));
  const auto found = namespaces_.find(endpoint.endpoint_namespace);
  const auto declared = accounts_.find(account);
  return of_endpoint(
      endpoint,
      found == namespaces_.end() ? of_namespace(endpoint.endpoint_namespace, {}) : found->second.prefixed,
      declared == accounts_.end() ? account_labels(account.second, {}) : declared->second);
}

Labels LabelSource::of(const NetworkSet& set) const {
  if (set.set_namespace.empty()) return of_set(set, nullptr);
  const auto found = namespaces_.find(set.set_namespace);
  const Labels of_its_namespace =
      found == namespaces_.end() ? of_namespace(set.set_namespace, {}) : found->second.prefixed;
  return of_set(set, &of_its_namespace);
}

LogDecisions LabelSource::log_decisions(const std::string& namespace_name) const {
  const auto found = namespaces_.find(namespace_name);
  return found == namespaces_.end() ? LogDecisions::None : found->second.log_decisions;
}

bool LabelSource::audited(const std::string& namespace_name) const {
  const auto found = namespaces_.find(namespace_name);
  return found != namespaces_.end() && found->second.audited;
}

LogDecisions joined(LogDecisions a, LogDecisions b) {
  if (a == LogDecisions::None || a == b) return b;
  return b == LogDecisions::None ? a : LogDecisions::All;
}

bool logs(LogDecisions decisions, Action action) {
  if (action == Action::Allow) return decisions == LogDecisions::Allow || decisions == LogDecisions::All;
  return action == Action::Deny && (decisions == LogDecisions::Deny || decisions == LogDecisions::All);
}

}  // namespace tierlog::policy
