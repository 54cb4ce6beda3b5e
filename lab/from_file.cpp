// A lab from a topology file.
#include "lab/lab.h"

namespace tierlog::lab {

Result<Lab> Lab::up(const std::string& topology_path, const LabOptions& options,
                    const std::function<void(const std::string&)>& progress) {
  const auto loaded = endpoints::load_topology(topology_path);
  if (loaded.findings.has_errors()) {
    std::string findings = loaded.findings.to_string();
    while (findings.ends_with('\n')) findings.pop_back();
    return fail(ErrorCode::InvalidArgument, findings);
  }
  return up(loaded.topology, topology_path, options, progress);
}

}  // namespace tierlog::lab
