#include "base/ids.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace tierlog {
namespace {

constexpr auto kIn = Direction::Ingress;
constexpr auto kOut = Direction::Egress;

// Given by the eBPF programs alone (dataplane/ebpf/tierlog.bpf.c), where conntrack joins no fragments and a
// rewritten source shows. A later fragment of something unknown, which no rule without ports allows:
constexpr RuleId kFragmentIngress{31};
constexpr RuleId kFragmentEgress{32};
// The node's address on what the node only forwards, when nobody knows whose it was.
constexpr RuleId kSourceRewrittenIngress{33};

// To a Service whose backends policies do not treat alike.
constexpr RuleId kServiceBackendsDifferEgress{35};

constexpr std::array kReserved{
    ReservedRule{reserved::kNoPolicyIngress, Reason::NoPolicy, kIn, true},
    ReservedRule{reserved::kNoPolicyEgress, Reason::NoPolicy, kOut, true},
    ReservedRule{reserved::kProfileIngress, Reason::Profile, kIn, true},
    ReservedRule{reserved::kProfileEgress, Reason::Profile, kOut, true},
    ReservedRule{reserved::kHostIngress, Reason::Host, kIn, true},
    ReservedRule{reserved::kMidStreamIngress, Reason::MidStream, kIn, false},
    ReservedRule{reserved::kMidStreamEgress, Reason::MidStream, kOut, false},
    ReservedRule{reserved::kNoVerdictIngress, Reason::NoVerdict, kIn, false},
    ReservedRule{reserved::kNoVerdictEgress, Reason::NoVerdict, kOut, false},
    ReservedRule{reserved::kNotReadyIngress, Reason::NotReady, kIn, false},
    ReservedRule{reserved::kNotReadyEgress, Reason::NotReady, kOut, false},
    ReservedRule{reserved::kSelfIngress, Reason::Self, kIn, true},
    ReservedRule{reserved::kSelfEgress, Reason::Self, kOut, true},
    ReservedRule{reserved::kPreexistingIngress, Reason::Preexisting, kIn, true},
    ReservedRule{reserved::kPreexistingEgress, Reason::Preexisting, kOut, true},
    ReservedRule{reserved::kCutIngress, Reason::Cut, kIn, false},
    ReservedRule{reserved::kCutEgress, Reason::Cut, kOut, false},
    ReservedRule{reserved::kInvalidIngress, Reason::Invalid, kIn, false},
    ReservedRule{reserved::kInvalidEgress, Reason::Invalid, kOut, false},
    ReservedRule{reserved::kSpoofedEgress, Reason::Spoofed, kOut, false},
    ReservedRule{reserved::kSpoofedIngress, Reason::Spoofed, kIn, false},
    ReservedRule{reserved::kVlanEgress, Reason::Vlan, kOut, false},
    ReservedRule{reserved::kEthertypeEgress, Reason::Ethertype, kOut, false},
    ReservedRule{reserved::kOtherEgress, Reason::Other, kOut, false},
    ReservedRule{reserved::kOtherIngress, Reason::Other, kIn, false},
    ReservedRule{reserved::kFailsafeIngress, Reason::Failsafe, kIn, true},
    ReservedRule{reserved::kFailsafeEgress, Reason::Failsafe, kOut, true},
    ReservedRule{reserved::kHostDefaultIngress, Reason::Host, kIn, false},
    ReservedRule{reserved::kHostDefaultEgress, Reason::Host, kOut, false},
    ReservedRule{kFragmentIngress, Reason::Fragment, kIn, false},
    ReservedRule{kFragmentEgress, Reason::Fragment, kOut, false},
    ReservedRule{kSourceRewrittenIngress, Reason::SourceRewritten, kIn, false},
    ReservedRule{kServiceBackendsDifferEgress, Reason::ServiceBackendsDiffer, kOut, false},
};

constexpr std::array<std::string_view, static_cast<std::size_t>(Reason::Other) + 1> kReasonNames{
    "policy", "end-of-tier", "no-policy", "profile", "host", "self", "failsafe", "mid-stream", "cut",
    "invalid", "spoofed", "vlan", "ethertype", "fragment", "no-verdict", "not-ready", "preexisting",
    "audit", "service-backends-differ", "source-rewritten", "dropped-later", "other"};

}  // namespace

std::string to_hex(RuleId id) {
  char text[16];
  std::snprintf(text, sizeof text, "%x", number(id));
  return text;
}

std::string_view name(Reason reason) { return kReasonNames[static_cast<std::size_t>(reason)]; }

std::span<const ReservedRule> reserved_rules() { return kReserved; }

const ReservedRule* find_reserved(RuleId id) {
  const auto found = std::find_if(kReserved.begin(), kReserved.end(),
                                  [id](const ReservedRule& rule) { return rule.id == id; });
  return found == kReserved.end() ? nullptr : &*found;
}

}  // namespace tierlog
