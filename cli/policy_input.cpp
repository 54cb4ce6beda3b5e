#include "cli/policy_input.h"

#include <utility>

#include "base/diagnostics.h"
#include "cli/console.h"
#include "policy/load.h"

namespace tierlog::cli {

Result<PolicyInput> load_input(const std::vector<std::string>& files, const std::string& topology) {
  if (topology.empty())
    return fail(ErrorCode::InvalidArgument,
                "--topology FILE is missing: with -f it says which pods there are");
  policy::Loaded loaded = policy::load_paths(files);
  endpoints::LoadedTopology world = endpoints::load_topology(topology);
  Diagnostics findings = loaded.findings;
  findings.add(world.findings);
  findings.sort();
  if (findings.has_errors()) return fail(ErrorCode::InvalidArgument, findings.to_string());
  for (const Diagnostic& warning : findings.all()) say(warning.to_string());
  return PolicyInput{std::move(loaded.set), std::move(world.topology.cluster)};
}

}  // namespace tierlog::cli
