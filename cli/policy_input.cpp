#include "cli/policy_input.h"

#include <utility>

#include "base/diagnostics.h"
#include "cli/console.h"
#include "policy/load.h"

namespace tierlog::cli {

Result<PolicyInput> load_input(const std::vector<std::string>& files, const std::string& topology) {
  policy::Loaded loaded = policy::load_paths(files);
  Diagnostics findings = loaded.findings;
  const bool has_pods = loaded.set.objects && !loaded.set.objects->pods.empty();
  if (topology.empty() && !has_pods && !findings.has_errors())
    return fail(ErrorCode::InvalidArgument,
                "--topology FILE is missing: with -f it says which pods there are (or put Pod objects among the files)");
  policy::Cluster cluster;
  std::vector<endpoints::Service> services;
  if (!topology.empty()) {
    endpoints::LoadedTopology world = endpoints::load_topology(topology);
    findings.add(world.findings);
    cluster = std::move(world.topology.cluster);
    services = std::move(world.topology.services);
  }
  findings.sort();
  if (findings.has_errors()) return fail(ErrorCode::InvalidArgument, findings.to_string());
  for (const Diagnostic& warning : findings.all()) say(warning.to_string());
  policy::add_objects(cluster, loaded.set);
  return PolicyInput{std::move(loaded.set), std::move(cluster), std::move(services)};
}

}  // namespace tierlog::cli
