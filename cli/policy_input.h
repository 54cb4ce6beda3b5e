// cli/policy_input.h - policy files and a topology, as commands that ask no daemon take them.
//
//   -f PATH… --topology FILE --> [load_input] --> policy/compile.h
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "endpoints/topology.h"
#include "policy/cluster.h"
#include "policy/model.h"

namespace tierlog::cli {

struct PolicyInput {
  policy::PolicySet policies;
  policy::Cluster cluster;
  std::vector<endpoints::Service> services;
};

// Warnings are said on stderr. Errors: InvalidArgument with all findings.
Result<PolicyInput> load_input(const std::vector<std::string>& files, const std::string& topology);

}  // namespace tierlog::cli
