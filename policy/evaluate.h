// policy/evaluate.h - the reference verdict of a packet and the trace that explains it.
//
// The oracle: every back end must agree with it, `explain` prints it, the logger adds its trace to
// records and counts disagreements. Reads a Program, changes nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/net_types.h"
#include "policy/program.h"

namespace tierlog::policy {

// The first packet of a connection. Ports are 0 where the protocol has none.
struct Packet {
  IpAddr source;
  IpAddr destination;
  std::uint8_t protocol = protocol::kTcp;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  std::uint8_t icmp_type = 0;  // of icmp and icmpv6 only
  std::uint8_t icmp_code = 0;
  // Of this node, where the packet came in and goes out; empty: unknown, or none of the two.
  std::string in_interface{};
  std::string out_interface{};
};

enum class StepResult : std::uint8_t { NoMatch, Logged, Passed, Allowed, Denied };
std::string_view name(StepResult result);  // "no-match", "log", "pass", "allow", "deny": as in records

// One thing that was asked on the way. Detail::Full: a step for each rule that was looked at, up to the
// deciding one; a policy without rules in this direction gives a single NoMatch step with rule_index =
// nullopt. Detail::Summary: the rules that matched; a policy of which none did gives that single step.
// A tier that only staged policies apply to ends with a staged step, rule_index -1 and rule None, of the
// last of them: what its default action would have done.
struct TraceStep {
  std::uint32_t tier = kNone;
  std::uint32_t policy = kNone;     // kNone: the end of the tier (rule_index -1) or the fallback
  std::optional<int> rule_index;    // -1 = end of tier
  RuleId rule{};                    // None for a policy's summary step
  StepResult result{};
  bool staged = false;              // of a staged policy: what it would have done
  bool decides = false;
  std::string why;                  // Detail::Full: "source is not role == 'api'", "destination port is not 5432"
};

struct DirectionVerdict {
  Direction direction{};
  Action action{};                  // Allow or Deny
  RuleId rule{};                    // who decided
  std::vector<TraceStep> trace;
  std::vector<RuleId> logged_by;    // Log rules on the way, then the deciding rule if its decision counts as logged
  std::uint32_t asked = kNone;      // the class; kNone where no policy was asked
  std::uint32_t host = kNone;       // into hosts: the host endpoint that says it
};

struct Evaluation {
  // The source's egress, present when the source is an enforced endpoint; the destination's ingress
  // likewise, and only when egress (if any) allowed, or is audited and the destination is not.
  std::optional<DirectionVerdict> egress;
  std::optional<DirectionVerdict> ingress;
  // What a host endpoint says of a packet that the node forwards, before and after the pods at its ends.
  // Of what the node itself gets and sends, egress and ingress are its host endpoint's.
  std::optional<DirectionVerdict> host_ingress;
  std::optional<DirectionVerdict> host_egress;
  Action action = Action::Allow;

  const DirectionVerdict* deciding() const;  // the denial, else ingress, else egress, else nullptr
  // The verdict that names this rule as the one that decided; nullptr when none does.
  const DirectionVerdict* by(RuleId rule) const;
};

enum class Detail : std::uint8_t { Summary, Full };

// `also_after_deny`: evaluates ingress even when egress denied (test cases state each direction alone).
enum class Directions : std::uint8_t { AsTheKernel, Both };

Evaluation evaluate(const Program& program, const Packet& packet, Detail detail = Detail::Summary,
                    Directions directions = Directions::AsTheKernel);
// One class; nothing when nobody decides (stages without ends of tiers).
std::optional<DirectionVerdict> walk_class(const Program& program, std::uint32_t endpoint_class,
                                           const Packet& packet, Detail detail = Detail::Summary);
DirectionVerdict evaluate_direction(const Program& program, const ProgramEndpoint& endpoint,
                                    Direction direction, const Packet& packet, Detail detail = Detail::Summary);

}  // namespace tierlog::policy
