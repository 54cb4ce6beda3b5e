// daemon/mismatch_cases.h - what the evaluator decides otherwise than the kernel, kept so that anybody can see
// it again: a case for `tierlog test`, with the topology and the policies of that moment.
//
//   logger/explainer.h Disagreement --[MismatchCases]--> STATE/mismatches/N.yaml
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "logger/explainer.h"
#include "policy/load.h"

namespace tierlog::daemon {

class MismatchCases {
 public:
  // Below `state_folder`; those of earlier runs count.
  explicit MismatchCases(const std::string& state_folder);

  // The path of the new case; empty: such a one is there already, or there are as many as are kept.
  Result<std::string> keep(const logger::Disagreement& found, std::span<const policy::SourceText> policies);
  const std::vector<std::string>& paths() const { return paths_; }

  static constexpr std::size_t kMost = 16;

 private:
  std::string folder_;
  std::vector<std::string> paths_;
  std::set<std::string> known_;  // pairs of rules of this run
};

// The text of such a case. Pure.
std::string mismatch_case(const logger::Disagreement& found, std::span<const policy::SourceText> policies,
                          const std::string& id);

}  // namespace tierlog::daemon
