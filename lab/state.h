// lab/state.h - lab.json: what a later command needs to find, enter, change and end a lab.
//
//   /run/tierlog-lab/NAME/lab.json <--> [LabState]
// Pids are those of the machine's pid namespace. A state whose first process is dead is a crash's
// leftover: only its folder remains, and the next `up` or `down` removes it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "lab/cni_chain.h"
#include "lab/first_process.h"

namespace tierlog::lab {

struct PodState {
  std::string name;  // "ns/pod"
  std::string node;
  CniPod cni;        // of a hostNetwork pod: only its node's addresses
  ProcessId server;  // its listeners; none without ports
  policy::Labels labels;
  std::vector<policy::NamedPort> ports;

  bool host_network() const { return cni.container_id.empty(); }
};

// A node of the lab. The first one is in the lab's own namespaces; every other has a process that keeps
// its network and mount namespaces.
struct NodeState {
  std::string name;
  std::string folder;    // its tierlogd's files; the lab's own for the first node
  std::string database;  // its flow index
  ProcessId keeper;      // whose namespaces are the node's
  ProcessId daemon;
  Chain chain;
  std::vector<IpAddr> addresses;  // of the node object, then of the uplink
  std::vector<Cidr> pod_cidrs;
  std::vector<IpAddr> fixed;    // pods' addresses that the topology or add_pod gave, in order
  std::vector<IpAddr> foreign;  // other addresses of the topology, not to be used as gateways

  std::string file(const char* leaf) const { return folder + "/" + leaf; }
  Place place() const { return {keeper, {}}; }
};

struct LabState {
  std::string name;
  std::string folder;
  std::string topology;
  std::string dataplane;
  LabOptions::Life life{};
  FirstProcess first;
  std::vector<Family> families;  // empty: both
  bool masquerade = false;
  std::vector<IpAddr> outside;
  std::vector<NodeState> nodes;  // at least one
  std::vector<PodState> pods;
  std::vector<endpoints::Service> services;  // every clusterIP and nodePort assigned

  std::string file(const char* leaf) const { return folder + "/" + leaf; }
  bool has(Family family) const;
  // nullptr when there is none of that name; an empty one is the first.
  const NodeState* node(const std::string& wanted) const;
  NodeState* node(const std::string& wanted);
};

inline constexpr const char* kLabsFolder = "/run/tierlog-lab";
inline constexpr const char* kStateFile = "lab.json";

// Replaces the file as a whole.
Result<void> write_state(const LabState& state);
// Errors: NotFound (no such file), Corrupt.
Result<LabState> read_state(const std::string& folder);
// Names of folders under kLabsFolder with a state in them.
std::vector<std::string> state_names();

// A folder of our own for a new lab: made, or found empty, or taken over from a dead lab. It stays locked
// as long as the Fd lives. Errors: Refused (a living lab, or foreign files, or somebody else at it).
Result<Fd> claim_folder(const std::string& folder);
void remove_folder(const std::string& folder);
// Removes the folder of a lab that has died, unless somebody is making a new one in it.
void remove_leftovers(const std::string& folder);

}  // namespace tierlog::lab
