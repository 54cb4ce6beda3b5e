// A Program's rule chains, classes, sets and dispatch elements.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <set>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_match.h"
#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/build_skeleton.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"
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

class ProgramBuilder {
 public:
  ProgramBuilder(const Program& program, const SetVersions& versions, const TableOptions& options,
                 const Switches& switches)
      : program_(program), options_(options), switches_(switches), matches_(program, versions) {}

  void add_to(TableObjects& objects) {
    objects_ = &objects;
    for (const EndpointClass& endpoint_class : program_.classes) first_chain_.push_back(add_class(endpoint_class));
    for (const char* name : {"eg4", "eg6", "in4", "in6", "pods4", "pods6", "self4", "self6", "guarded4",
                             "guarded6", "podif"})
      dispatch_[name];
    for (const auto& endpoint : program_.endpoints) add_endpoint(endpoint);
    for (const ReservedRule& rule : reserved_rules()) {
      counters_.insert(rule.id);
      if (rule.allows) allow_ids_.insert(rule.id);
    }
    std::vector<Element> first_packets;
    for (const RuleId id : allow_ids_) {
      objects.chains.push_back(first_packet_chain(id, options_));
      first_packets.push_back(first_packet_element(id));
    }
    for (const RuleId id : counters_) objects.counters.push_back(counter_name(id));
    for (Set& set : matches_.take_sets()) objects.sets.push_back(std::move(set));
    for (Set& set : objects.sets) {
      if (set.name == "rlog") set.elements = first_packets;
      if (const auto found = dispatch_.find(set.name); found != dispatch_.end()) set.elements = found->second;
    }
  }

 private:
  void need_verdict(RuleId id, Direction direction, bool allows, const std::string& comment) {
    if (find_reserved(id) != nullptr || !verdicts_.insert(id).second) return;
    counters_.insert(id);
    objects_->chains.push_back(verdict_chain(id, direction, allows, comment, options_));
    if (allows) allow_ids_.insert(id);
  }

  // Named by what they say, so from the last tier to the first: each names the next. Returns the first.
  std::string add_class(const EndpointClass& endpoint_class) {
    std::string next = rule_chain_name(endpoint_class.fallback);
    bool any = false;
    for (auto tier = endpoint_class.tiers.rbegin(); tier != endpoint_class.tiers.rend(); ++tier) {
      if (tier->end == kNone) continue;
      next = add_tier(*tier, endpoint_class.direction, next);
      any = true;
    }
    if (any) return next;
    Chain chain;
    chain.rules.push_back({go_to(next).expressions, {}});
    return add_named_by_content('c', std::move(chain));
  }

  std::string add_named_by_content(char kind, Chain chain) {
    chain.name = kind + hex(content_of(chain));
    const std::string chain_name = chain.name;
    if (named_.insert(chain_name).second) objects_->chains.push_back(std::move(chain));
    return chain_name;
  }

  std::string add_tier(const ClassTier& tier, Direction direction, const std::string& next) {
    Chain chain;
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
    return add_named_by_content('c', std::move(chain));
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
    if (logs_.insert(rule.id).second) objects_->chains.push_back(log_chain(rule.id, comment, options_));
    if (alternatives.size() == 1) {
      chain.rules.push_back({(alternatives[0] + jump(target)).expressions, comment});
      return;
    }
    Chain any;
    for (const Phrase& match : alternatives)
      any.rules.push_back({(match + go_to(target)).expressions, comment});
    chain.rules.push_back({jump(add_named_by_content('a', std::move(any))).expressions, comment});
  }

  void dispatch(const char* v4, const char* v6, const IpAddr& address, Element element) {
    dispatch_[address.family == Family::V4 ? v4 : v6].push_back(std::move(element));
  }

  void add_endpoint(const policy::ProgramEndpoint& endpoint) {
    const policy::Endpoint& known = program_.cluster->endpoints[endpoint.endpoint];
    const std::string shown = known.display();
    for (const Direction direction : {Direction::Egress, Direction::Ingress}) {
      const bool egress = direction == Direction::Egress;
      const std::string chain_name = endpoint_chain_name(direction, shown);
      objects_->chains.push_back(
          endpoint_chain(chain_name, direction, first_chain_[endpoint.class_of(direction)], shown));
      for (const IpAddr& address : known.addresses)
        dispatch(egress ? "eg4" : "in4", egress ? "eg6" : "in6", address,
                 {address_bytes(address), Verdict{VerdictKind::Jump, chain_name}, false});
    }
    for (const IpAddr& address : known.addresses) {
      dispatch("pods4", "pods6", address, {address_bytes(address), std::nullopt, false});
      for (const IpAddr& other : known.addresses) {
        if (other.family != address.family) continue;
        Bytes pair = address_bytes(address);
        const Bytes second = address_bytes(other);
        pair.insert(pair.end(), second.begin(), second.end());
        dispatch("self4", "self6", address, {std::move(pair), std::nullopt, false});
      }
      if (!known.interface.empty())
        dispatch("guarded4", "guarded6", address, {address_bytes(address), std::nullopt, false});
    }
    for (const std::string& interface : {known.interface, known.bridge})
      if (!interface.empty() && interfaces_.insert(interface).second)
        dispatch_["podif"].push_back({interface_bytes(interface), std::nullopt, false});
  }

  Chain endpoint_chain(const std::string& chain_name, Direction direction, const std::string& class_chain,
                       const std::string& shown) {
    const bool egress = direction == Direction::Egress;
    const RuleId no_verdict = egress ? reserved::kNoVerdictEgress : reserved::kNoVerdictIngress;
    Chain chain{.name = chain_name};
    chain.rules.push_back(
        {(not_opening_tcp() + go_to(midstream_chain_name(direction, switches_.spared.count(shown) != 0)))
             .expressions,
         "mid-stream"});
    chain.rules.push_back({jump(class_chain).expressions, shown});
    if (!options_.audits())
      chain.rules.push_back(
          {(ct_word_is_zero(label_word(direction)) + go_to(rule_chain_name(no_verdict))).expressions,
           "no-verdict"});
    return chain;
  }

  // New or impossible, and not the packet that opens a connection.
  static Phrase not_opening_tcp() {
    constexpr std::uint8_t kFinSynRstAck = 0x17;
    return protocol_is(protocol::kTcp) + ct_state_in(kCtNew | kCtInvalid) +
           just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1, 0}) + just(Mask{0, {kFinSynRstAck}}) +
           just(Compare{0, NFT_CMP_NEQ, {2}});
  }

  const Program& program_;
  const TableOptions& options_;
  const Switches& switches_;
  MatchBuilder matches_;
  TableObjects* objects_ = nullptr;
  std::vector<std::string> first_chain_;  // of each class
  std::map<std::string, std::vector<Element>> dispatch_;
  std::set<std::string> named_, interfaces_;
  std::set<RuleId> counters_, verdicts_, logs_, allow_ids_;
};

std::optional<RuleId> id_behind(const char* start, const std::string& name) {
  std::uint32_t value = 0;
  if (name.size() != 10 || name.rfind(start, 0) != 0) return std::nullopt;
  const auto [end, error] = std::from_chars(name.data() + 2, name.data() + 10, value, 16);
  if (error != std::errc() || end != name.data() + 10) return std::nullopt;
  return RuleId{value};
}

std::string with_id(const char* start, RuleId id) {
  char text[32];
  std::snprintf(text, sizeof text, "%s%08x", start, number(id));
  return text;
}

}  // namespace

TableObjects build_program(const Program& program, const SetVersions& versions, const TableOptions& options,
                           const Switches& switches) {
  TableObjects objects = build_skeleton(options, switches);
  ProgramBuilder(program, versions, options, switches).add_to(objects);
  return objects;
}

// Stable for the life of an endpoint and free of user text.
std::string endpoint_chain_name(Direction direction, const std::string& endpoint) {
  return (direction == Direction::Egress ? "epe_" : "epi_") + hex(content_of(endpoint));
}

std::string counter_name(RuleId id) {
  return with_id("c_", id);
}
std::optional<RuleId> counter_id(const std::string& name) {
  return id_behind("c_", name);
}
std::string frame_counter_name(RuleId id) {
  return with_id("f_", id);
}
std::optional<RuleId> frame_counter_id(const std::string& name) {
  return id_behind("f_", name);
}

std::optional<VersionedName> versioned_name(const std::string& name) {
  constexpr std::size_t kBase = 3 + 16;  // "s4_" and the meaning
  if (name.size() < kBase + 2 || std::string_view("swn").find(name[0]) == std::string_view::npos ||
      name[kBase] != '_')
    return std::nullopt;
  VersionedName read{name.substr(0, kBase), 0};
  const auto [end, error] = std::from_chars(name.data() + kBase + 1, name.data() + name.size(), read.version);
  if (error != std::errc() || end != name.data() + name.size()) return std::nullopt;
  return read;
}

}  // namespace tierlog::dataplane::nftables
