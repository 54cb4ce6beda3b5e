// daemon/world.h - the compile half: policy files, topology and registered pods -> Program -> kernel.
//
//   files --load--> PolicySet --+
//   topology + CNI registrations --> Cluster --+--compile--> Program --> dataplane/backend.h
//
// Any error keeps the last good whole set in force and is kept to be told (`status`). That set is in
// state.db too (inputs.h), for a start with bad files.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "daemon/config.h"
#include "daemon/host_view.h"
#include "daemon/inputs.h"
#include "dataplane/backend.h"
#include "endpoints/topology.h"
#include "policy/compile.h"
#include "policy/load.h"
#include "store/history.h"
#include "store/state_db.h"

namespace tierlog::daemon {

class World {
 public:
  // Called after a Program came into force, with the network sets of its policy files.
  using Applied = std::function<void(const std::shared_ptr<const policy::Program>&,
                                     const std::vector<policy::NetworkSet>&)>;
  // The bridge that each interface is a port of; routed ones are not in it.
  using BridgesOf =
      std::function<std::map<std::string, std::string>(const std::set<std::string>& interfaces)>;
  World(const Config& config, store::StateDb& state, dataplane::Backend& backend, const HostView& host,
        Applied applied, BridgesOf bridges_of = {});

  // Reads files and registrations and applies. When the files are not in force after that, it is an error
  // and the last good set is; when there never was one, endpoints' traffic is denied under the reserved id
  // not-ready. Without a program() nothing could be put into the kernel.
  Result<void> start();
  // Reads the files again; false: they say what is in force, and nothing was done. Errors: InvalidArgument
  // with all findings; Refused by the kernel. The old set stays in force.
  Result<bool> reload();
  // The pod's rules are in the kernel when this returns. Returns the registrations of other pods, gone
  // without a DEL, that it took the place of. On an error nothing is changed; errors as admit() has them,
  // and Refused by the kernel.
  Result<std::vector<store::RegisteredEndpoint>> add_endpoint(const store::RegisteredEndpoint& endpoint);
  Result<void> remove_endpoint(const std::string& container_id, const std::string& ifname);
  // Errors: NotFound when it is not enforced with these addresses at this interface.
  Result<void> check_endpoint(const store::RegisteredEndpoint& endpoint) const;

  // Before start(): interfaces that were enforced and whose pods nobody knows any more. Nothing may come out of
  // them until their pods are registered anew. Returns those that are there.
  std::vector<std::string> close_unknown(const std::set<std::string>& interfaces);
  // The files could not be put into force for a reason that may pass: no room on a disk, the kernel's refusal.
  bool worth_another_try() const { return refused_; }

  std::shared_ptr<const policy::Program> program() const { return program_; }
  // Some good set is in force.
  bool ready() const { return ready_; }
  // Why the files as they are, or the pods as they are, are not in force; empty: they are.
  const std::string& last_error() const { return files_error_.empty() ? apply_error_ : files_error_; }
  enum class Source : std::uint8_t { Files, LastGood, Nothing };
  Source source() const {
    return !ready_ ? Source::Nothing : files_error_.empty() ? Source::Files : Source::LastGood;
  }
  // Since when the texts in force are.
  WallTime in_force_since() const { return since_; }
  const Diagnostics& warnings() const { return inputs_.warnings; }
  // What the Program in force was made from, for those who look back (store/history.h).
  store::Moment moment(WallTime since) const;
  const std::vector<store::KnownRule>& rule_keys() const { return rule_keys_; }
  // All that were told since the start: for a flow index that begins anew.
  const std::vector<store::KnownRule>& told_rule_keys() const { return told_rule_keys_; }
  const std::vector<policy::SourceText>& policy_texts() const { return inputs_.texts.policies; }
  // As the topology tells them, with their own addresses.
  const std::vector<endpoints::Service>& services() const { return inputs_.topology.services; }

 private:
  Result<void> use(Inputs inputs);
  bool in_force(const InputTexts& texts) const;
  Result<void> exchange(const std::vector<store::RegisteredEndpoint>& old,
                        const std::vector<store::RegisteredEndpoint>& fresh);
  Result<void> use_last_good();
  Result<void> apply();
  std::shared_ptr<const policy::Cluster> assemble() const;

  const Config& config_;
  store::StateDb& state_;
  dataplane::Backend& backend_;
  const HostView& host_;
  Applied applied_;
  BridgesOf bridges_of_;
  // Of pods that are gone, as long as they are there: nothing may come out of them.
  std::vector<std::string> closed_interfaces_;
  Inputs inputs_;
  std::vector<store::RegisteredEndpoint> registered_;
  policy::CompileMemory memory_;
  std::shared_ptr<const policy::Program> program_;
  std::vector<store::KnownRule> rule_keys_;  // asked for since the last Program came into force
  std::vector<store::KnownRule> told_rule_keys_;
  bool ready_ = false;
  std::uint64_t revision_ = 0;
  WallTime since_{};
  bool refused_ = false;
  std::string files_error_, apply_error_;
};

// Topology and registrations as one snapshot: a registered pod is local and has the addresses and the
// interface its CNI plugin gave it; labels of both, the registration's win.
policy::Cluster assemble_cluster(const endpoints::Topology& topology,
                                 const std::vector<store::RegisteredEndpoint>& registered,
                                 const policy::PolicySet& policies, const std::string& node,
                                 const std::vector<IpAddr>& node_addresses);

}  // namespace tierlog::daemon
