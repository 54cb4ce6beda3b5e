// tests/query/node.h - a node as its flow index sees it: policies and pods by time, records as the logger
// would write them. No kernel: the evaluator is what judged.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "policy/compile.h"
#include "policy/evaluate.h"
#include "policy/load.h"
#include "store/flow_store.h"
#include "store/query.h"
#include "tests/store/sample.h"

namespace tierlog::query::testing_node {

policy::Endpoint pod(const std::string& ns, const std::string& name, const std::string& address,
                     policy::Labels labels);

class Node {
 public:
  Node();

  // From `second` on these texts and pods are in force. Fails the test when the text has errors.
  void in_force(int second, const std::string& policies, const policy::Cluster& cluster);
  // A connection at `second`, judged by what is in force; records of both sides, as they come.
  void connect(int second, const std::string& from, const std::string& to, std::uint16_t port,
               std::uint8_t proto = protocol::kTcp);

  store::FlowReader reader() const;
  std::string path() const { return folder_.file("flows.db"); }
  const policy::Program& program() const { return *program_; }

 private:
  store::Peer peer_of(const IpAddr& address) const;
  void record(int second, const policy::Packet& packet, const policy::DirectionVerdict& verdict);

  store::sample::Folder folder_;
  store::FlowStore store_;
  policy::MemoryRuleIds ids_;
  std::shared_ptr<const policy::Program> program_;
  std::vector<policy::NetworkSet> sets_;
  std::uint64_t revision_ = 0;
  int records_ = 0;
};

policy::PolicySet load(const std::string& text);

}  // namespace tierlog::query::testing_node
