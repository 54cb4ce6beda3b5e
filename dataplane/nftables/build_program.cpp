// A Program's rule chains, classes, sets and dispatch elements.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <set>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_match.h"
#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Action;
using policy::ClassTier;
using policy::EndOfTier;
using policy::EndpointClass;
using policy::kNone;
using policy::Program;
using policy::ProgramPolicy;
using policy::ProgramRule;

// Stable for the life of an endpoint and free of user text: FNV-1a of "ns/pod".
std::string endpoint_chain_name(const char* start, const std::string& endpoint) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (const char c : endpoint) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3ULL;
  char text[32];
  std::snprintf(text, sizeof text, "%s_%016llx", start, static_cast<unsigned long long>(hash));
  return text;
}

class ProgramBuilder {
 public:
  ProgramBuilder(const Program& program, std::uint64_t generation, const TableOptions& options)
      : program_(program),
        options_(options),
        suffix_("_" + std::to_string(generation)),
        matches_(program, generation) {}

  ProgramObjects build() {
    for (std::uint32_t index = 0; index < program_.classes.size(); ++index) add_class(index);
    for (const auto& endpoint : program_.endpoints) add_endpoint(endpoint);
    for (const ReservedRule& rule : reserved_rules())
      if (rule.allows) allow_ids_.insert(rule.id);
    for (const RuleId id : allow_ids_) {
      objects_.rule_chains.push_back(first_packet_chain(id, options_));
      objects_.first_packet_log.push_back(first_packet_element(id));
    }
    objects_.counters.assign(counters_.begin(), counters_.end());
    objects_.sets = matches_.take_sets();
    return std::move(objects_);
  }

 private:
  std::string tier_chain(std::uint32_t index, std::size_t tier) const {
    return "c" + std::to_string(index) + "t" + std::to_string(tier) + suffix_;
  }

  void need_verdict(RuleId id, Direction direction, bool allows, const std::string& comment) {
    if (find_reserved(id) != nullptr || !verdicts_.insert(id).second) return;
    counters_.insert(id);
    objects_.rule_chains.push_back(verdict_chain(id, direction, allows, comment));
    if (allows) allow_ids_.insert(id);
  }

  void add_class(std::uint32_t index) {
    const EndpointClass& endpoint_class = program_.classes[index];
    std::vector<const ClassTier*> enforced;
    for (const ClassTier& tier : endpoint_class.tiers)
      if (tier.end != kNone) enforced.push_back(&tier);
    for (std::size_t i = 0; i < enforced.size(); ++i) {
      const bool last = i + 1 == enforced.size();
      const std::string next = last ? rule_chain_name(endpoint_class.fallback) : tier_chain(index, i + 1);
      add_tier(tier_chain(index, i), *enforced[i], endpoint_class.direction, next);
    }
    if (enforced.empty())
      objects_.class_chains.push_back(
          {tier_chain(index, 0), {{go_to(rule_chain_name(endpoint_class.fallback)).expressions, {}}}, {}});
  }

  void add_tier(const std::string& chain_name, const ClassTier& tier, Direction direction,
                const std::string& next) {
    Chain chain{.name = chain_name};
    for (const std::uint32_t policy_index : tier.policies) {
      const ProgramPolicy& policy = program_.policies[policy_index];
      if (policy.staged) continue;
      for (const std::uint32_t rule_index : policy.rules(direction))
        add_rule(chain, policy, program_.rules[rule_index], next);
    }
    const EndOfTier& end = program_.ends[tier.end];
    const std::string comment = program_.tiers[end.tier].name + " end-of-tier " + to_hex(end.id);
    if (end.action == Action::Pass) {
      counters_.insert(end.id);
      chain.rules.push_back({(just(Count{end.id}) + go_to(next)).expressions, comment});
    } else {
      need_verdict(end.id, direction, false, comment);
      chain.rules.push_back({go_to(rule_chain_name(end.id)).expressions, comment});
    }
    objects_.class_chains.push_back(std::move(chain));
  }

  void add_rule(Chain& chain, const ProgramPolicy& policy, const ProgramRule& rule, const std::string& next) {
    const std::string comment = policy.display + "[" + std::to_string(rule.index) + "] " + to_hex(rule.id);
    const std::vector<Phrase> alternatives = matches_.phrases(rule);
    counters_.insert(rule.id);
    if (alternatives.empty()) return;
    if (rule.action == Action::Log) {
      add_log(chain, rule, alternatives, comment);
      return;
    }
    Phrase then;
    if (rule.action == Action::Pass) {
      then = just(Count{rule.id}) + go_to(next);
    } else {
      need_verdict(rule.id, rule.direction, rule.action == Action::Allow, comment);
      then = go_to(rule_chain_name(rule.id));
    }
    for (const Phrase& match : alternatives) chain.rules.push_back({(match + then).expressions, comment});
  }

  // A packet that meets two alternatives of one Log rule must be counted once: they share a chain which
  // the first of them leaves.
  void add_log(Chain& chain, const ProgramRule& rule, const std::vector<Phrase>& alternatives,
               const std::string& comment) {
    const std::string target = log_chain_name(rule.id);
    if (logs_.insert(rule.id).second) {
      objects_.rule_chains.push_back(log_chain(rule.id, comment, options_));
      if (alternatives.size() > 1) {
        Chain any{.name = "a" + to_hex(rule.id) + suffix_};
        for (const Phrase& match : alternatives)
          any.rules.push_back({(match + go_to(target)).expressions, comment});
        objects_.class_chains.push_back(std::move(any));
      }
    }
    if (alternatives.size() == 1)
      chain.rules.push_back({(alternatives[0] + jump(target)).expressions, comment});
    else
      chain.rules.push_back({jump("a" + to_hex(rule.id) + suffix_).expressions, comment});
  }

  void add_endpoint(const policy::ProgramEndpoint& endpoint) {
    const policy::Endpoint& known = program_.cluster->endpoints[endpoint.endpoint];
    const std::string shown = known.display();
    for (const Direction direction : {Direction::Egress, Direction::Ingress}) {
      const bool egress = direction == Direction::Egress;
      const std::string chain_name = endpoint_chain_name(egress ? "epe" : "epi", shown);
      objects_.endpoint_chains.push_back(
          {endpoint_chain(chain_name, direction, tier_chain(endpoint.class_of(direction), 0), shown), shown});
      for (const IpAddr& address : known.addresses) {
        const bool v4 = address.family == Family::V4;
        const std::string map = egress ? (v4 ? "eg4" : "eg6") : (v4 ? "in4" : "in6");
        objects_.dispatch[map].push_back(
            {address_bytes(address), Verdict{VerdictKind::Jump, chain_name}, false});
        if (egress)
          objects_.dispatch[v4 ? "pods4" : "pods6"].push_back({address_bytes(address), std::nullopt, false});
      }
    }
  }

  Chain endpoint_chain(const std::string& chain_name, Direction direction, const std::string& class_chain,
                       const std::string& shown) {
    const bool egress = direction == Direction::Egress;
    const RuleId mid_stream = egress ? reserved::kMidStreamEgress : reserved::kMidStreamIngress;
    const RuleId no_verdict = egress ? reserved::kNoVerdictEgress : reserved::kNoVerdictIngress;
    constexpr std::uint8_t kFinSynRstAck = 0x17;
    Chain chain{.name = chain_name};
    chain.rules.push_back(
        {(protocol_is(protocol::kTcp) + ct_state_in(kCtNew | kCtInvalid) +
          just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, 0}) + just(Mask{0, {kFinSynRstAck}}) +
          just(Compare{0, NFT_CMP_NEQ, {2}}) + go_to(rule_chain_name(mid_stream)))
             .expressions,
         "mid-stream"});
    chain.rules.push_back({jump(class_chain).expressions, shown});
    chain.rules.push_back(
        {(ct_word_is_zero(label_word(direction)) + go_to(rule_chain_name(no_verdict))).expressions,
         "no-verdict"});
    return chain;
  }

  const Program& program_;
  const TableOptions& options_;
  std::string suffix_;
  MatchBuilder matches_;
  ProgramObjects objects_;
  std::set<RuleId> counters_, verdicts_, logs_, allow_ids_;
};

}  // namespace

ProgramObjects build_program(const Program& program, std::uint64_t generation, const TableOptions& options) {
  return ProgramBuilder(program, generation, options).build();
}

std::string counter_name(RuleId id) {
  char text[32];
  std::snprintf(text, sizeof text, "c_%08x", number(id));
  return text;
}

std::optional<RuleId> counter_id(const std::string& name) {
  std::uint32_t value = 0;
  if (name.size() != 10 || name.rfind("c_", 0) != 0) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + 2, name.data() + 10, value, 16);
  if (error != std::errc() || end != name.data() + 10) return std::nullopt;
  return RuleId{value};
}

bool is_generation_object(const std::string& name, std::uint64_t* generation) {
  const auto underscore = name.rfind('_');
  if (underscore == std::string::npos || name.rfind("ep", 0) == 0 || name.rfind("c_", 0) == 0) return false;
  const auto [end, error] =
      std::from_chars(name.data() + underscore + 1, name.data() + name.size(), *generation);
  return error == std::errc() && end == name.data() + name.size() && underscore + 1 < name.size();
}

}  // namespace tierlog::dataplane::nftables
