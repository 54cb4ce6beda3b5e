// policy/label_source.h - effective labels of many endpoints and network sets at once.
//
//   Cluster (+ Namespace objects among the policy files) --[LabelSource]--> resolve.h
// The same labels as effective_labels() of cluster.h gives one by one, from indices built once.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "policy/cluster.h"
#include "policy/labels.h"
#include "policy/model.h"

namespace tierlog::policy {

class LabelSource {
 public:
  // `more` comes on top of the cluster's namespaces: labels are joined, those of `more` win.
  explicit LabelSource(const Cluster& cluster, const std::vector<NamespaceObject>& more = {});

  Labels of(const Endpoint& endpoint) const;  // one of the cluster's
  Labels of(const NetworkSet& set) const;
  // tierlog.io/log of a namespace, joined over all objects that declare it.
  LogDecisions log_decisions(const std::string& namespace_name) const;
  // tierlog.io/enforcement: one object that says audit is enough.
  bool audited(const std::string& namespace_name) const;

 private:
  struct Namespace {
    Labels prefixed;
    LogDecisions log_decisions = LogDecisions::None;
    bool audited = false;
  };
  void add(const NamespaceObject& object);

  std::map<std::string, Namespace> namespaces_;
  std::map<std::pair<std::string, std::string>, Labels> accounts_;  // prefixed
};

// Deny and Allow together are All.
LogDecisions joined(LogDecisions a, LogDecisions b);
// Whether a decision of `action` counts as logged under `decisions`.
bool logs(LogDecisions decisions, Action action);

}  // namespace tierlog::policy
