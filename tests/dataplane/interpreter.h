// Walks built tables with a packet as the kernel would: what is counted on the way, and where it ends.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/ids.h"
#include "dataplane/nftables/build.h"
#include "policy/evaluate.h"

namespace tierlog::dataplane::nftables {

struct Walk {
  std::vector<RuleId> counted;  // rule by rule, in order
  bool denied = false;          // reached the shared deny chain
  bool allowed = false;         // some rule wrote its id into the label and the packet came back
  std::string lost;             // what the walk could not follow; empty: nothing
};

class Interpreter {
 public:
  explicit Interpreter(const TableObjects& objects);
  // The first packet of a connection, from this chain on.
  Walk walk(const std::string& chain, const policy::Packet& packet) const;
  // Chains one below the other from this one on, along the longest way.
  std::size_t depth(const std::string& chain) const;

 private:
  std::map<std::string, const Chain*> chains_;
  std::map<std::string, std::map<Bytes, const Element*>> sets_;  // intervals with their ends
  std::map<std::string, bool> interval_;
  mutable std::map<std::string, std::size_t> depths_;
  friend class Machine;
};

}  // namespace tierlog::dataplane::nftables
