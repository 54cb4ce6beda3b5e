// Many real attempts at once, and what the flow index must say of each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lab/lab.h"
#include "policy/evaluate.h"
#include "store/query.h"

namespace tierlog::testing {

struct Try {
  std::string from_host;  // "ns/pod", "node" or "outside"
  IpAddr from, to;
  std::uint8_t protocol = protocol::kTcp;
  std::uint16_t port = 0;
  lab::Attempt outcome{};

  std::string title() const;
  policy::Packet packet() const;
};

// Makes all attempts, those of one host side by side, and fills their outcomes. One address asks one
// port of another only once, so that each has records of its own.
void attempt_all(const lab::Lab& lab, std::vector<Try>& tries);

// Everything that was counted and reported until now is in the index.
void flush(const lab::Lab& lab);

// What must have decided, in the words of the record.
struct Decision {
  Direction direction{};
  bool allows = false;
  std::string policy;  // display; empty: none (reserved reason)
  std::optional<int> rule_index;
  Reason reason{};
};

// The decisions that the evaluator promises records for: of a denial the denying direction and an allowing
// egress before it, of an allow both directions that are enforced.
std::vector<Decision> expected_decisions(const policy::Program& program, const policy::Packet& packet);

// The index of one run, read once.
class Index {
 public:
  static Index read(const std::string& database);

  // Empty when exactly the records of `t` that a decision asks for are there, with the same tier, policy
  // and rule by name, and a rule id that the registry knows by those names; else what is wrong.
  std::string disagreement(const Try& t, const Decision& decision) const;
  std::vector<store::FlowRecord>& records() { return records_; }
  const std::vector<store::FlowRecord>& records() const { return records_; }

 private:
  std::vector<store::FlowRecord> records_;
  std::vector<store::RuleActivity> rules_;
};

}  // namespace tierlog::testing
