// tests/engine/naive.h - a second evaluator, written apart from the engine: straight from the PolicySet
// and the labels, for one packet at a time, without sets, classes or ids. Slow and plain on purpose.
#pragma once

#include <string>
#include <vector>

#include "policy/cluster.h"
#include "policy/evaluate.h"
#include "policy/model.h"

namespace tierlog::policy::test {

struct NaiveVerdict {
  bool judged = false;  // the end is an endpoint
  Action action = Action::Allow;
  std::string decider;  // "NetworkPolicy default/ns/name 0", "end default", "no-policy", "profile", "self"
  std::vector<std::string> logged;  // Log rules on the way
  std::vector<std::string> staged;  // "… 0 deny": what staged policies would have done
};

NaiveVerdict naive(const PolicySet& set, const Cluster& cluster, const Packet& packet, Direction direction);

}  // namespace tierlog::policy::test
