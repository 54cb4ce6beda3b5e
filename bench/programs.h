// bench/programs.h - Programs for the benchmarks, from policy text, as the daemon makes them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "policy/compile.h"

namespace tierlog::bench {

policy::Endpoint local_pod(const std::string& ns, const std::string& name, const std::string& address,
                           policy::Labels labels = {}, const std::string& interface = {});
// Enforced are the local ones. Ends this program when the text has errors.
std::shared_ptr<const policy::Program> program_of(const std::string& text, std::vector<policy::Endpoint> pods,
                                                  policy::RuleIdRegistry& ids);
// A NetworkPolicy whose head is written; rules are appended in YAML's flow style.
std::string policy_head(const std::string& ns, const std::string& name, const std::string& selector,
                        const std::string& direction);

}  // namespace tierlog::bench
