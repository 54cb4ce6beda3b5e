// lab/lab_impl.h - what a Lab is made of; shared by making one (up.cpp) and using one (lab.cpp).
#pragma once

#include <optional>
#include <string>

#include "lab/lab.h"
#include "lab/network.h"
#include "lab/state.h"

namespace tierlog::lab {

struct Lab::Impl {
  LabState state;
  bool owner = false;            // this object made the lab, and has not ended it
  std::optional<Report> tether;  // of a lab that is being built, or ends with its maker

  // Reads the state again: another command may have changed the lab since. Errors: NotFound when the lab
  // has ended.
  Result<void> refresh();
  // Everything that `up` makes, in order; on an error some of it is there.
  Result<void> build(const endpoints::Topology& topology, const LabOptions& options,
                     const std::function<void(const std::string&)>& progress);
  Result<void> add_pod(const policy::Endpoint& pod);
  Result<void> remove_pod(const std::string& name);
  // Starts a node's tierlogd with the configuration file that `up` wrote.
  Result<void> run_daemon(NodeState& node) const;
  // What follows from pods that came or went: names, Services, the state file.
  Result<void> settle() const;

 private:
  Result<void> start_nodes();
  Result<void> start_daemons(const LabOptions& options);
  Result<void> lead_to(const NodeState& node, const std::vector<IpAddr>& addresses, bool there) const;
};

std::vector<LabHost> hosts_of(const LabState& state);
// Errors: NotFound, naming the hosts there are.
Result<Place> place_of(const LabState& state, const std::string& host);

}  // namespace tierlog::lab
