// logger/explainer.h - what a verdict says: rule, policy, tier, pods, trace; made once for all packets alike.
//
//   VerdictEvent --[Explainer]--> Explained: what all records of such packets share
//                     | RuleNames: id -> rule, policy, tier, revision
//                     | AddressBook: address -> pod at that time
//                     ` policy/evaluate.h: trace, who logged, the other end's verdict
//
// The kernel says which rule decided; the evaluator says why, and is compared with the kernel at each
// event. Answers are kept by (rule, both addresses, protocol, port or ICMP type) until rules or names
// change: a rule id stands for one revision, and two addresses for one pair of classes. Pure. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dataplane/events.h"
#include "logger/address_book.h"
#include "logger/rule_names.h"
#include "policy/evaluate.h"
#include "policy/program.h"
#include "store/record.h"

namespace tierlog::logger {

// What many records have in common.
using Description = std::shared_ptr<const store::FlowRecord>;

struct Explained {
  Description record;        // null: the rule is unknown (an allowed packet), or nobody here judged it
  Description egress_allow;  // local pair denied at ingress: the source's view
  bool agrees = true;        // evaluator and kernel name the same rule
  bool known = true;         // the rule's names are known
};

// An event that the evaluator decides otherwise.
struct Disagreement {
  dataplane::VerdictEvent event;
  std::shared_ptr<const policy::Program> program;
  std::string kernel, evaluator;  // rules for people, as Program::dump names them
};

class Explainer {
 public:
  void learn(std::span<const store::RuleRow> rules) { rules_.learn(rules); }
  const store::RuleRow* rule(RuleId id) const { return rules_.find(id); }
  // Names of interfaces by their index, for the packets' ways; without it, as far as addresses tell.
  void set_interfaces(std::function<std::string(std::uint32_t)> name_of) { interface_name_ = std::move(name_of); }
  // Verdicts are what would have been: records say so in their reason.
  void set_audit(bool audits);
  void set_program(std::shared_ptr<const policy::Program> program,
                   const std::vector<policy::NetworkSet>& policy_sets, WallTime since);
  const policy::Program* program() const { return programs_.empty() ? nullptr : programs_.front().program.get(); }
  // Counts the changes of rules and names.
  std::uint64_t world() const { return world_; }

  // The reference holds until the next call.
  const Explained& explain(const dataplane::VerdictEvent& event);

  // The kernel decided this event otherwise than the evaluator: kept with what is needed to see it again.
  void note_disagreement(const dataplane::VerdictEvent& event);
  // Since the last call, not more than a few.
  std::vector<Disagreement> take_disagreements() { return std::exchange(disagreements_, {}); }
  // To be called now and then: what was not asked for since the call before the last one that counted is
  // let go, or a port scan would stay in memory. A call counts `kKeptFor` after the one before.
  void let_go_unasked(WallTime now);
  static constexpr std::chrono::seconds kKeptFor{60};
  std::size_t kept() const { return kept_.size() + unasked_.size(); }

 private:
  struct Key {
    RuleId rule{};
    IpAddr source, destination;
    std::uint16_t source_port = 0;  // 0 where no rule looks at it
    std::uint32_t ports_or_icmp = 0;  // ports that all rules judge alike have one number
    std::uint8_t protocol = 0, tcp_flags = 0, kind = 0;
    std::uint32_t in_interface = 0, out_interface = 0;
    bool operator==(const Key&) const = default;
  };
  // Not noexcept: libstdc++'s tables then keep each hash beside its key, and whoever walks along a chain of them need not
  // hash keys that come from all over memory.
  struct KeyHash {
    std::size_t operator()(const Key& key) const;
  };

  Key key_of(const dataplane::VerdictEvent& event) const;
  Explained make(const dataplane::VerdictEvent& event);
  Explained allowed(const dataplane::VerdictEvent& event);
  Explained denied(const dataplane::VerdictEvent& event);
  Explained stateless(const dataplane::VerdictEvent& event);
  store::FlowRecord base_record(const dataplane::VerdictEvent& event, const store::RuleRow& rule) const;
  void add_verdict(store::FlowRecord& record, const policy::Program& program,
                   const policy::Evaluation& evaluation, const policy::DirectionVerdict& verdict) const;
  policy::Packet packet_of(const dataplane::VerdictEvent& event) const;
  const policy::Program* evaluate(const dataplane::VerdictEvent& event, policy::Evaluation& into) const;
  bool is_before_all(const dataplane::VerdictEvent& event) const;
  bool audits(const IpAddr& endpoint) const;  // its verdicts are recorded and not carried out

  struct InForce {
    std::shared_ptr<const policy::Program> program;
    WallTime since{};
    std::vector<std::uint32_t> port_bounds;
  };
  std::deque<InForce> programs_;  // newest first
  WallTime since_{};
  std::function<std::string(std::uint32_t)> interface_name_;
  bool audits_ = false;
  bool source_ports_matter_ = false;
  std::vector<std::uint32_t> port_bounds_;  // of all, ascending: where what rules say of ports may change
  std::uint64_t world_ = 0;
  RuleNames rules_;
  AddressBook addresses_;
  using Kept = std::unordered_map<Key, Explained, KeyHash>;
  Kept kept_, unasked_;  // since the last call that counted, and before
  WallTime counted_{};
  Explained passing_;  // of an event from before the latest change
  std::vector<Disagreement> disagreements_;
};

}  // namespace tierlog::logger
