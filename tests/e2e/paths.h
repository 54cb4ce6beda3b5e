// The ways a packet takes through a node, each with rules of its own, so that every counter stands for
// one connection.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lab/lab.h"
#include "store/query.h"

namespace tierlog::testing {

// How the target is asked: by its own address, through its Service, through a node's port.
enum class Via : std::uint8_t { Direct, ClusterIp, NodePortOfFirst };

struct Path {
  const char* name;
  const char* from;  // host
  Via via;
  const char* to;  // who gets it: ns/pod, a node's name, or outside
  std::uint8_t protocol;
  std::size_t source = 0;      // which of its addresses of the family the client takes
  std::size_t target = 0;      // which of the target's
  const char* seen = nullptr;  // whose address the target's node sees instead of the client's
};

extern const std::vector<Path> kPaths;

enum class Variant : std::uint8_t { Allow, DenyEgress, DenyIngress };

// What one side of a connection must have said.
struct Side {
  std::string node;
  Direction direction{};
  bool allows = false;
  std::optional<int> rule;  // of the policy; a reserved id otherwise
  Reason reason = Reason::Policy;
};

// One connection.
struct Shot {
  const Path* path = nullptr;
  Variant variant{};
  Family family{};
  std::uint16_t number = 0;  // its port, or the ICMP code: no other one of its protocol and family has it
  std::vector<Side> sides;
  IpAddr to;                     // where it is sent
  IpAddr from;                   // bound to, or any
  IpAddr reached;                // the backend
  std::vector<IpAddr> sources;   // who the egress side may see
  std::vector<IpAddr> observed;  // who the ingress side may see
  lab::Attempt outcome{};

  std::string title() const;
  bool allowed() const;
};

inline constexpr const char* kPathsPolicy = "default//paths";

// The shots of all paths for one family after another; rules are numbered in this order.
std::vector<Shot> plan_shots();
std::string paths_topology(const std::vector<Shot>& shots, const std::string& cni);
std::string paths_policy(const std::vector<Shot>& shots);
// Fills in addresses once the lab is up.
void aim(std::vector<Shot>& shots, const lab::Lab& lab);
void shoot(const lab::Lab& lab, std::vector<Shot*> shots);

// What one node has written.
struct Books {
  std::vector<store::FlowRecord> records;
  std::vector<store::RuleActivity> rules;
};
using AllBooks = std::map<std::string, Books>;  // by node
AllBooks read_books(const lab::Lab& lab);

// All that disagrees between shots and books: outcome, record, rule, counters.
std::vector<std::string> disagreements(const std::vector<Shot>& shots, const AllBooks& books);

}  // namespace tierlog::testing
