// policy/lint.h - warnings about policies that load but probably do not do what was meant.
//
// Log-only policies, tiers without an object, rules that an earlier rule of the policy shadows, nets of
// both families with nothing left, `notNets` that matches everything; with a cluster also policies that
// select nothing and names of ports that nobody declares. Findings come with the rule's place.
#pragma once

#include "base/diagnostics.h"
#include "policy/cluster.h"
#include "policy/model.h"

namespace tierlog::policy {

Diagnostics lint(const PolicySet& policies, const Cluster* cluster = nullptr);

}  // namespace tierlog::policy
