// base/ids.h - RuleId, and the reserved ones.
//
// A RuleId names, for ever, one thing that can give a verdict: a rule, the end of a tier, a default or a
// reserved reason. The kernel carries it (packet mark, connection label, log prefix), the flow index
// stores it. 0 is none. 1..255 are the reserved ids below, the same on every node; policy rules start
// at kFirstPolicyRuleId and are handed out by the registry in state.db (store/state_db.h).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace tierlog {

enum class RuleId : std::uint32_t { None = 0 };
inline constexpr std::uint32_t kFirstPolicyRuleId = 0x100;

constexpr std::uint32_t number(RuleId id) { return static_cast<std::uint32_t>(id); }
std::string to_hex(RuleId id);  // "2a": lower case, no prefix, as printed for people

enum class Direction : std::uint8_t { Ingress, Egress };
constexpr std::string_view name(Direction d) { return d == Direction::Ingress ? "ingress" : "egress"; }

// Why a verdict was given; the record's `reason`.
enum class Reason : std::uint8_t {
  Policy, EndOfTier, NoPolicy, Profile, Host, Self, Failsafe, MidStream, Cut, Invalid, Spoofed, Vlan,
  Ethertype, Fragment, NoVerdict, NotReady, Preexisting, Audit, ServiceBackendsDiffer, SourceRewritten,
  DroppedLater, Other,
};
std::string_view name(Reason reason);  // "end-of-tier", … as in the record

// One reserved id: what the kernel back ends use where no policy rule decides.
struct ReservedRule {
  RuleId id;
  Reason reason;
  Direction direction;
  bool allows;
};

namespace reserved {
// No policy selects the endpoint in this direction.
inline constexpr RuleId kNoPolicyIngress{1};
inline constexpr RuleId kNoPolicyEgress{2};
// Every applying tier passed; the profile (Kubernetes: allow) decided.
inline constexpr RuleId kProfileIngress{3};
inline constexpr RuleId kProfileEgress{4};
// The node itself to its own pods.
inline constexpr RuleId kHostIngress{5};
// TCP that is not the start of a connection and belongs to none.
inline constexpr RuleId kMidStreamIngress{7};
inline constexpr RuleId kMidStreamEgress{8};
// A class gave no verdict: a defect of ours, dropped and counted.
inline constexpr RuleId kNoVerdictIngress{9};
inline constexpr RuleId kNoVerdictEgress{10};
// The daemon has no good policy set yet.
inline constexpr RuleId kNotReadyIngress{11};
inline constexpr RuleId kNotReadyEgress{12};
// Traffic of a pod to itself through a Service (hairpin).
inline constexpr RuleId kSelfIngress{13};
inline constexpr RuleId kSelfEgress{14};
// Connections older than our first start, whose beginning nobody judged.
inline constexpr RuleId kPreexistingIngress{15};
inline constexpr RuleId kPreexistingEgress{16};
// Packets of a connection that a policy change ended.
inline constexpr RuleId kCutIngress{17};
inline constexpr RuleId kCutEgress{18};
// TCP that conntrack finds impossible (outside the window, late resets) and that opens nothing.
inline constexpr RuleId kInvalidIngress{19};
inline constexpr RuleId kInvalidEgress{20};
// A pod that sends from an address that is not its own; a pod's address from somewhere else.
inline constexpr RuleId kSpoofedEgress{21};
inline constexpr RuleId kSpoofedIngress{22};
// Tagged frames out of a pod, and towards one.
inline constexpr RuleId kVlanEgress{23};
// Neither IPv4, IPv6 nor ARP.
inline constexpr RuleId kEthertypeEgress{24};
// Frames to no single receiver: broadcast, multicast, link-local.
inline constexpr RuleId kOtherEgress{25};
// Frames that a bridge delivers to a pod for an address it does not have.
inline constexpr RuleId kOtherIngress{26};
// Ports of the node that no policy of a host endpoint closes.
inline constexpr RuleId kFailsafeIngress{27};
inline constexpr RuleId kFailsafeEgress{28};
// A host endpoint without a profile: what no policy decides.
inline constexpr RuleId kHostDefaultIngress{29};
inline constexpr RuleId kHostDefaultEgress{30};
}  // namespace reserved

// All reserved ids in use, ascending.
std::span<const ReservedRule> reserved_rules();
// nullptr when `id` is not reserved.
const ReservedRule* find_reserved(RuleId id);

}  // namespace tierlog
