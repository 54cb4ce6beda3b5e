#include "dataplane/nftables/build_host.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <utility>

#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {
namespace {

using policy::Action;
using policy::ClassTier;
using policy::EndpointClass;
using policy::Failsafe;
using policy::HostEndpoint;
using policy::kNone;
using policy::Program;
using policy::ProgramHost;
using policy::ProgramPolicy;
using policy::ProgramRule;
using policy::Stage;

constexpr std::int32_t kRaw = -300;     // before connection tracking
constexpr std::int32_t kMangle = -150;  // behind it, before the rewriting of destinations
constexpr std::uint32_t kEarlyWord = 2;  // of the label: who let it in before its address was rewritten

NftRule rule(const Phrase& phrase, std::string comment = {}) {
  return {phrase.expressions, std::move(comment)};
}

Phrase back() {
  return just(Verdict{VerdictKind::Return, {}});
}

Phrase on_interface(Direction direction, const std::string& name) {
  return just(MetaLoad{direction == Direction::Ingress ? NFT_META_IIFNAME : NFT_META_OIFNAME, 0}) +
         just(Compare{0, NFT_CMP_EQ, interface_bytes(name)});
}

Phrase on_pod_interface(Direction direction) {
  return just(MetaLoad{direction == Direction::Ingress ? NFT_META_IIFNAME : NFT_META_OIFNAME, 0}) +
         just(Lookup{"podif", 0});
}

Phrase address_is_in(Side side, const Cidr& net) {
  const Family family = net.address.family;
  Bytes mask(net.address.size(), 0);
  for (std::uint32_t bit = 0; bit < net.prefix; ++bit) mask[bit / 8] |= static_cast<std::uint8_t>(0x80u >> bit % 8);
  return family_is(family) + load_address(family, side, 0) + just(Mask{0, std::move(mask)}) +
         just(Compare{0, NFT_CMP_EQ, address_bytes(net.address)});
}

std::string with_host(const char* start, const std::string& host) {
  return start + hex(content_of(host));
}

class HostBuilder {
 public:
  HostBuilder(const Program& program, const std::vector<std::string>& first_chain, MatchBuilder& matches,
              const TableOptions& options, RuleChains& rules, TableObjects& objects)
      : program_(program),
        first_chain_(first_chain),
        matches_(matches),
        options_(options),
        rules_(rules),
        objects_(objects) {}

  void add() {
    const HostHooks hooks = host_hooks(program_, options_);
    Set discovery{.name = "hostnd", .key_length = 1};
    for (const int type : {130, 131, 132, 133, 134, 135, 136, 137, 143})
      discovery.elements.push_back({{static_cast<std::uint8_t>(type)}, std::nullopt, false});
    objects_.sets.push_back(std::move(discovery));
    add_local();
    if (hooks.forward) add_forward();
    if (hooks.pre_dnat) add_pre_dnat();
    if (hooks.untracked) add_untracked();
    for (const std::string& counter : passed_counters_) objects_.counters.push_back(counter);
  }

 private:
  using ToChain = std::function<std::string(const ProgramHost&)>;  // empty: none for this host

  const HostEndpoint& endpoint_of(const ProgramHost& host) const {
    return program_.cluster->host_endpoints[host.endpoint];
  }

  // One rule an interface, named ones first; loopback and the pods' interfaces are nobody's.
  Chain dispatch(const char* name, Direction direction, const ToChain& chain_of) {
    Chain chain{.name = name};
    chain.rules.push_back(rule(on_interface(direction, "lo") + back()));
    chain.rules.push_back(rule(family_is(Family::V6) + protocol_is(protocol::kIcmpV6) +
                                   just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0}) +
                                   just(Lookup{"hostnd", 0}) + back(),
                               "neighbour discovery, listener reports"));
    for (const ProgramHost& host : program_.hosts) {
      const HostEndpoint& endpoint = endpoint_of(host);
      std::string target = chain_of(host);
      const Phrase then = target.empty() ? back() : go_to(std::move(target));
      if (endpoint.interface == "*") {
        chain.rules.push_back(rule(on_pod_interface(direction) + back()));
        chain.rules.push_back(rule(then, endpoint.display()));
      } else if (!endpoint.interface.empty()) {
        chain.rules.push_back(rule(on_interface(direction, endpoint.interface) + then, endpoint.display()));
      } else {
        const Side own = direction == Direction::Ingress ? Side::Destination : Side::Source;
        for (const IpAddr& address : endpoint.addresses)
          chain.rules.push_back(rule(address_is_in(own, Cidr::host(address)) + then, endpoint.display()));
      }
    }
    return chain;
  }

  // ---- classes of the stages that are not Local: linear, for they are few

  struct StageRules {
    std::function<Phrase(const ProgramRule&)> allow;
    bool replay = false;  // what was judged and counted before: neither counts nor logs
  };

  std::string named_by_content(Chain chain) {
    chain.name = "k" + hex(content_of(chain));
    const std::string name = chain.name;
    if (named_.insert(name).second) objects_.chains.push_back(std::move(chain));
    return name;
  }

  // From the last tier to the first: each names the next. `after`: where no tier decides; empty: back.
  std::string add_class(std::uint32_t index, const StageRules& stage, const std::string& after) {
    const EndpointClass& endpoint_class = program_.classes[index];
    std::string next = after;
    for (auto tier = endpoint_class.tiers.rbegin(); tier != endpoint_class.tiers.rend(); ++tier) {
      if (endpoint_class.has_ends() && tier->end == kNone) continue;
      next = add_tier(*tier, endpoint_class, stage, next);
    }
    if (!next.empty()) return next;
    Chain nothing;
    nothing.rules.push_back(rule(back()));
    return named_by_content(std::move(nothing));
  }

  std::string add_tier(const ClassTier& tier, const EndpointClass& endpoint_class, const StageRules& stage,
                       const std::string& next) {
    const Phrase on = next.empty() ? back() : go_to(next);
    Chain chain;
    for (const std::uint32_t policy_index : tier.policies) {
      const ProgramPolicy& policy = program_.policies[policy_index];
      if (policy.staged) continue;
      for (const std::uint32_t rule_index : policy.rules(endpoint_class.direction))
        add_rule(chain, policy, program_.rules[rule_index], stage, on);
    }
    if (tier.end == kNone) {
      chain.rules.push_back(rule(on));
      return named_by_content(std::move(chain));
    }
    const policy::EndOfTier& end = program_.ends[tier.end];
    const std::string comment = program_.tiers[end.tier].name + " end-of-tier " + to_hex(end.id);
    if (end.action == Action::Pass) {
      rules_.count(end.id);
      chain.rules.push_back(rule(just(Count{end.id}) + on, comment));
    } else {
      rules_.verdict(end.id, endpoint_class.direction, false, comment);
      chain.rules.push_back(rule(go_to(rule_chain_name(end.id)), comment));
    }
    return named_by_content(std::move(chain));
  }

  void add_rule(Chain& chain, const ProgramPolicy& policy, const ProgramRule& one, const StageRules& stage,
                const Phrase& on) {
    const std::string comment = policy.display + "[" + std::to_string(one.index) + "] " + to_hex(one.id);
    const std::vector<Phrase> alternatives = matches_.phrases(one);
    rules_.count(one.id);
    if (alternatives.empty() || (stage.replay && one.action == Action::Log)) return;
    Phrase then;
    switch (one.action) {
      case Action::Allow:
        then = stage.allow(one);
        break;
      case Action::Deny:
        rules_.verdict(one.id, one.direction, false, comment);
        then = stage.replay ? back() : go_to(rule_chain_name(one.id));
        break;
      case Action::Pass:
        then = stage.replay ? on : just(Count{one.id}) + on;
        break;
      case Action::Log:
        rules_.log(one, comment);
        add_log(chain, one, alternatives, comment);
        return;
    }
    for (const Phrase& match : alternatives) chain.rules.push_back(rule(match + then, comment));
  }

  // A packet that meets two alternatives is counted once: the first of them leaves the chain.
  void add_log(Chain& chain, const ProgramRule& one, const std::vector<Phrase>& alternatives,
               const std::string& comment) {
    Chain any;
    for (const Phrase& match : alternatives) any.rules.push_back(rule(match + go_to(log_chain_name(one.id)), comment));
    chain.rules.push_back(rule(jump(named_by_content(std::move(any))), comment));
  }

  Phrase count_passed(const ProgramRule& one) {
    std::string counter = passed_counter_name(one.id);
    passed_counters_.insert(counter);
    return just(CountNamed{std::move(counter)});
  }

  // ---- the stages

  void add_failsafes(Chain& chain, const std::vector<Failsafe>& failsafes, Side port_of, Side other_end,
                     const Phrase& then) {
    for (const Failsafe& failsafe : failsafes) {
      Phrase phrase = failsafe.net ? address_is_in(other_end, *failsafe.net) : Phrase{};
      phrase += protocol_is(failsafe.protocol) + port_in(port_of, {failsafe.port, failsafe.port});
      chain.rules.push_back(rule(phrase + then, "failsafe"));
    }
  }

  // What a policy let by without a connection was judged there; anything else without one is judged here.
  std::string behind_untracked(const ProgramHost& host, Direction direction, std::string chain_name, Chain rest) {
    const std::uint32_t untracked = host.class_of(direction, Stage::Untracked);
    if (untracked == kNone || options_.audits()) {
      rest.name = chain_name;
      objects_.chains.push_back(std::move(rest));
      return chain_name;
    }
    rest.name = chain_name + "r";
    const StageRules replay{[](const ProgramRule&) { return back(); }, true};
    Chain first{.name = chain_name};
    first.rules.push_back(rule(ct_state_in(kCtUntracked) + go_to(add_class(untracked, replay, rest.name)), "untracked"));
    first.rules.push_back(rule(go_to(rest.name)));
    objects_.chains.push_back(std::move(rest));
    objects_.chains.push_back(std::move(first));
    return chain_name;
  }

  std::string local_chain(const ProgramHost& host, Direction direction) {
    const bool ingress = direction == Direction::Ingress;
    const RuleId failsafe = ingress ? reserved::kFailsafeIngress : reserved::kFailsafeEgress;
    Chain chain;
    if (ingress && host.pre_dnat != kNone && !options_.audits()) {
      chain.rules.push_back(rule(ct_word_to_verdict(kEarlyWord, "predn"), "allowed before its address was rewritten"));
      chain.rules.push_back(rule(ct_word_has(kEarlyWord, 0xffffffff) + back()));
    }
    add_failsafes(chain, ingress ? program_.failsafes.inbound : program_.failsafes.outbound, Side::Destination,
                  ingress ? Side::Source : Side::Destination, go_to(rule_chain_name(failsafe)));
    chain.rules.push_back(rule(jump(first_chain_[ingress ? host.ingress_class : host.egress_class]),
                               endpoint_of(host).display()));
    chain.rules.push_back(rule(ct_state_in(kCtInvalid | kCtUntracked) + go_to("stateless_log"), "no connection"));
    return behind_untracked(host, direction, host_chain_name(direction, endpoint_of(host).display()),
                            std::move(chain));
  }

  void add_local() {
    objects_.chains.push_back(dispatch("host_in", Direction::Ingress, [&](const ProgramHost& host) {
      return local_chain(host, Direction::Ingress);
    }));
    objects_.chains.push_back(dispatch("host_out", Direction::Egress, [&](const ProgramHost& host) {
      return local_chain(host, Direction::Egress);
    }));
  }

  void add_forward() {
    for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
      const bool ingress = direction == Direction::Ingress;
      const StageRules stage{[&](const ProgramRule& one) { return count_passed(one) + back(); }};
      objects_.chains.push_back(
          dispatch(ingress ? "host_fi" : "host_fo", direction, [&](const ProgramHost& host) -> std::string {
            const std::uint32_t index = host.class_of(direction, Stage::Forward);
            if (index == kNone) return "";
            Chain chain;
            if (ingress && host.pre_dnat != kNone && !options_.audits())
              chain.rules.push_back(rule(ct_word_has(kEarlyWord, 0xffffffff) + back(), "allowed before"));
            chain.rules.push_back(rule(go_to(add_class(index, stage, "")), endpoint_of(host).display()));
            const std::string name = with_host(ingress ? "fi_" : "fo_", endpoint_of(host).display());
            return behind_untracked(host, direction, name, std::move(chain));
          }));
    }
  }

  void add_pre_dnat() {
    Set allowed{.name = "predn", .key_length = 4, .verdict_map = true};
    std::set<RuleId> known;
    const StageRules stage{[&](const ProgramRule& one) {
      // Its verdict chain counts and labels when the packet turns out to be the node's own.
      rules_.verdict(one.id, Direction::Ingress, true, program_.policies[one.policy].display);
      if (known.insert(one.id).second)
        allowed.elements.push_back({host_word(number(one.id)),
                                    Verdict{VerdictKind::Jump, rule_chain_name(one.id)}, false});
      return count_passed(one) + ct_word_set(kEarlyWord, one.id) + back();
    }};
    Chain base{.name = "dnat_pre", .rules = {}, .hook = BaseHook{NF_INET_PRE_ROUTING, kMangle}};
    base.rules.push_back(rule(ct_state_in(kCtEstablished | kCtRelated | kCtUntracked) +
                              just(Verdict{VerdictKind::Accept, {}})));
    base.rules.push_back(rule(jump("host_pre")));
    objects_.chains.push_back(dispatch("host_pre", Direction::Ingress, [&](const ProgramHost& host) -> std::string {
      if (host.pre_dnat == kNone) return "";
      Chain chain{.name = with_host("pi_", endpoint_of(host).display())};
      add_failsafes(chain, program_.failsafes.inbound, Side::Destination, Side::Source, back());
      chain.rules.push_back(rule(go_to(add_class(host.pre_dnat, stage, "")), endpoint_of(host).display()));
      objects_.chains.push_back(chain);
      return chain.name;
    }));
    objects_.chains.push_back(std::move(base));
    objects_.sets.push_back(std::move(allowed));
  }

  // Each packet counts, and each flow is told once an interval by an entry of its own.
  std::string untracked_chain(const ProgramRule& one) {
    Chain chain{.name = "u" + to_hex(one.id)};
    if (!named_.insert(chain.name).second) return chain.name;
    const auto interval = static_cast<std::uint64_t>(options_.log_interval.count());
    char prefix[32];
    std::snprintf(prefix, sizeof prefix, "tl:%08xS", number(one.id));
    chain.rules.push_back(rule(just(Count{one.id}) + just(NoTrack{}), program_.policies[one.policy].display));
    for (const Family family : {Family::V4, Family::V6})
      for (const FlowKind kind : {FlowKind::Ports, FlowKind::Icmp, FlowKind::Other})
        chain.rules.push_back(
            rule(flow_key(family, kind, one.id) +
                 just(UpdateMetered{family == Family::V4 ? "stateless4" : "stateless6", 0, interval}) +
                 just(LogTo{options_.nflog_group, prefix, 128})));
    objects_.chains.push_back(chain);
    return chain.name;
  }

  void add_untracked() {
    const StageRules stage{[&](const ProgramRule& one) { return go_to(untracked_chain(one)); }};
    for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
      const bool ingress = direction == Direction::Ingress;
      const char* start = ingress ? "host_raw_in" : "host_raw_out";
      objects_.chains.push_back(dispatch(start, direction, [&](const ProgramHost& host) -> std::string {
        const std::uint32_t index = host.class_of(direction, Stage::Untracked);
        if (index == kNone) return "";
        const auto& own = ingress ? program_.failsafes.inbound : program_.failsafes.outbound;
        const auto& answered = ingress ? program_.failsafes.outbound : program_.failsafes.inbound;
        const Side other = ingress ? Side::Source : Side::Destination;
        Chain chain{.name = with_host(ingress ? "ui_" : "uo_", endpoint_of(host).display())};
        add_failsafes(chain, own, Side::Destination, other, back());
        add_failsafes(chain, answered, Side::Source, other, back());
        chain.rules.push_back(rule(go_to(add_class(index, stage, "")), endpoint_of(host).display()));
        objects_.chains.push_back(chain);
        return chain.name;
      }));
      Chain base{.name = ingress ? "raw_pre" : "raw_out",
                 .rules = {},
                 .hook = BaseHook{ingress ? std::uint32_t{NF_INET_PRE_ROUTING} : std::uint32_t{NF_INET_LOCAL_OUT}, kRaw}};
      base.rules.push_back(rule(jump(start)));
      objects_.chains.push_back(std::move(base));
    }
  }

  const Program& program_;
  const std::vector<std::string>& first_chain_;
  MatchBuilder& matches_;
  const TableOptions& options_;
  RuleChains& rules_;
  TableObjects& objects_;
  std::set<std::string> named_, passed_counters_;
};

}  // namespace

HostHooks host_hooks(const Program& program, const TableOptions& options) {
  HostHooks hooks;
  for (const ProgramHost& host : program.hosts) {
    hooks.local = true;
    hooks.forward = hooks.forward || host.forward_ingress != kNone || host.forward_egress != kNone;
    // Audit changes no packet, and these stages do.
    if (options.audits()) continue;
    hooks.pre_dnat = hooks.pre_dnat || host.pre_dnat != kNone;
    hooks.untracked = hooks.untracked || host.untracked_ingress != kNone || host.untracked_egress != kNone;
  }
  return hooks;
}

void add_hosts(const Program& program, const std::vector<std::string>& first_chain, MatchBuilder& matches,
               const TableOptions& options, RuleChains& rules, TableObjects& objects) {
  if (!program.hosts.empty()) HostBuilder(program, first_chain, matches, options, rules, objects).add();
}

std::string host_chain_name(Direction direction, const std::string& host) {
  return with_host(direction == Direction::Ingress ? "hi_" : "ho_", host);
}

std::string passed_counter_name(RuleId id) {
  char text[32];
  std::snprintf(text, sizeof text, "h_%08x", number(id));
  return text;
}

}  // namespace tierlog::dataplane::nftables
