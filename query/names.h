// query/names.h - POLICY as users type it -> the policies it stands for, or a helpful refusal.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "store/query.h"

namespace tierlog::query {

// Displays that `pattern` stands for, at least one. Errors: NotFound with the nearest known name,
// InvalidArgument for a pattern that is none.
Result<std::vector<std::string>> require_policies(store::FlowReader& reader, const std::string& pattern);

// That what an empty listing was filtered by exists: tiers, namespaces, pods, Services … that are written as plain names
// and that neither the catalog nor any record knows are NotFound, with the nearest known name. So is a pod that is a
// Service: the sentence says how to ask for it.
Result<void> require_known_names(store::FlowReader& reader, const store::FlowQuery& query);

// The display that `typed` probably means: near to its name, ns/name or full form; empty when none is.
std::string nearest_policy(const std::string& typed, const std::vector<std::string>& displays);

// Why no rule of POLICY, or of anybody when it is empty, is listed.
std::string no_rules(const std::string& policy);

}  // namespace tierlog::query
