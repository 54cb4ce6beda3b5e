// What stands whatever the policies say: base chains, dispatch, the shared deny chain, reserved rules.
#include "dataplane/nftables/build_skeleton.h"

#include "dataplane/connection.h"
#include "dataplane/nftables/build_audit.h"
#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr std::int32_t kBehindOthers = 10;    // filter + 10: sees what others let through
constexpr std::uint32_t kInterfaceBytes = 16;

NftRule rule(const Phrase& phrase, std::string comment = {}) {
  return {phrase.expressions, std::move(comment)};
}

Set map_of(std::string name, std::uint32_t type, std::uint32_t length, bool verdicts) {
  return {.name = std::move(name), .key_type = type, .key_length = length, .verdict_map = verdicts};
}

std::vector<Set> skeleton_sets(const TableOptions& options, const Switches& switches) {
  std::vector<Set> sets = flow_sets(options);
  for (const char* stem : {"logged", "stateless"}) {
    sets.push_back(metered_set(std::string(stem) + "4", kFlowKeyV4, options));
    sets.push_back(metered_set(std::string(stem) + "6", kFlowKeyV6, options));
  }
  for (const char* start : {"", "audit_"}) {
    if (*start != 0 && !switches.audits_some) continue;
    for (const char* stem : {"eg", "in"}) {
      sets.push_back(map_of(std::string(start) + stem + "4", kTypeIpv4, 4, true));
      sets.push_back(map_of(std::string(start) + stem + "6", kTypeIpv6, 16, true));
    }
    sets.push_back(map_of(std::string(start) + "self4", 0, 8, false));
    sets.push_back(map_of(std::string(start) + "self6", 0, 32, false));
  }
  for (const char* stem : {"pods", "guarded"}) {
    sets.push_back(map_of(std::string(stem) + "4", kTypeIpv4, 4, false));
    sets.push_back(map_of(std::string(stem) + "6", kTypeIpv6, 16, false));
  }
  sets.push_back(map_of("podif", kTypeInterface, kInterfaceBytes, false));
  Set revoked = map_of("revoked", 0, 4, false);
  for (const RuleId id : switches.revoked) revoked.elements.push_back({host_word(number(id)), {}, false});
  sets.push_back(std::move(revoked));
  Set discovery{.name = "nd", .key_length = 1};
  for (std::uint8_t type = 133; type <= 137; ++type)
    discovery.elements.push_back({{type}, std::nullopt, false});
  sets.push_back(std::move(discovery));
  return sets;
}

const char* pick(Family family, const char* v4, const char* v6) {
  return family == Family::V4 ? v4 : v6;
}

Phrase address_to(Family family, Side side, const std::string& map) {
  return family_is(family) + load_address(family, side, 0) + just(Lookup{map, 0, false, true});
}

Phrase discovery() {
  return family_is(Family::V6) + protocol_is(protocol::kIcmpV6) +
         just(PayloadLoad{NFT_PAYLOAD_NETWORK_HEADER, 7, 1, 0}) + just(Compare{0, NFT_CMP_EQ, {255}}) +
         just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0}) + just(Lookup{"nd", 0});
}

// In the way of every packet of a living connection, so only while some are in doubt or cut.
void judge_living(Chain& chain, std::uint32_t hook, const HostHooks& hosts) {
  chain.rules.push_back(rule(ct_word_has(kFlagsWord, kLabelCutEgress) + go_to(rule_chain_name(reserved::kCutEgress)),
                             "cut"));
  chain.rules.push_back(
      rule(ct_word_has(kFlagsWord, kLabelCutIngress) + go_to(rule_chain_name(reserved::kCutIngress)), "cut"));
  // A reply is never judged as if it opened the connection.
  const auto anew = [&](std::uint32_t word, const char* target) {
    chain.rules.push_back(rule(ct_state_in(kCtEstablished) + ct_original() + ct_word_in(word, "revoked") +
                                   jump(target),
                               "revoked: judged anew"));
  };
  if (hook != NF_INET_LOCAL_OUT) anew(kEgressWord, "eval_e");
  if (hook != NF_INET_LOCAL_IN) anew(kIngressWord, "eval_i");
  if (hosts.local && hook == NF_INET_LOCAL_IN) anew(kIngressWord, "host_in");
  if (hosts.local && hook == NF_INET_LOCAL_OUT) anew(kEgressWord, "host_out");
}

constexpr std::pair<const char*, std::uint32_t> kHooks[] = {
    {"forward", NF_INET_FORWARD}, {"input", NF_INET_LOCAL_IN}, {"output", NF_INET_LOCAL_OUT}};

void judge_new(Chain& chain, const std::string& target) {
  chain.rules.push_back(
      rule(ct_state_in(kCtEstablished | kCtRelated) + just(Verdict{VerdictKind::Accept, {}})));
  chain.rules.push_back(rule(discovery() + just(Verdict{VerdictKind::Accept, {}}), "neighbour discovery"));
  chain.rules.push_back(rule(jump(target)));
}

Chain base_chain(const TableOptions& options, const Switches& switches, const HostHooks& hosts, const char* name,
                 std::uint32_t hook) {
  const bool audits = options.audits();
  Chain chain{.name = std::string(audits ? "audit_" : "") + name,
              .rules = {},
              .hook = BaseHook{hook, audits ? kBeforeOthers : kBehindOthers}};
  if (switches.judge_living && !audits)
    judge_living(chain, hook, hosts);
  judge_new(chain, std::string("new_") + name);
  return chain;
}

void tell_now(Chain& chain) {
  chain.rules.push_back(rule(ct_first_packet() + jump("flog"), "first packet, both ends agreed"));
  chain.rules.push_back(rule(ct_state_in(kCtInvalid | kCtUntracked) + jump("stateless"), "no connection"));
}

// After all directions agreed. What concerned audited endpoints alone was told before.
void tell_allowed(Chain& chain, const Switches& switches) {
  if (switches.audits_some)
    for (const bool judged : {true, false})
      for (const Family family : {Family::V4, Family::V6})
        for (const Side side : {Side::Source, Side::Destination}) {
          const char* set = judged ? pick(family, "judged4", "judged6") : pick(family, "audited4", "audited6");
          chain.rules.push_back(rule(family_is(family) + address_in(family, side, set, false) +
                                     (judged ? go_to("tell") : just(Verdict{VerdictKind::Return, {}}))));
        }
  tell_now(chain);
}

// A packet too short for its addresses, ports or ICMP type: no flow record could tell of it, so no rule may
// count it. Only packets without a connection can be that.
Chain shape(const TableOptions& options) {
  Chain chain{.name = "shape"};
  for (const Family family : {Family::V4, Family::V6})
    for (const FlowKind kind : {FlowKind::Ports, FlowKind::Icmp, FlowKind::Other})
      chain.rules.push_back(rule(flow_key(family, kind, RuleId::None) + just(Verdict{VerdictKind::Return, {}})));
  for (const Family family : {Family::V4, Family::V6})
    for (const Side side : {Side::Source, Side::Destination}) {
      const RuleId id = side == Side::Source ? reserved::kInvalidEgress : reserved::kInvalidIngress;
      chain.rules.push_back(
          rule(family_is(family) + address_in(family, side, pick(family, "pods4", "pods6"), false) +
                   just(Count{id}) + just(CountNamed{frame_counter_name(id)}) +
                   just(Verdict{options.audits() ? VerdictKind::Accept : VerdictKind::Drop, {}}),
               "cut off"));
    }
  return chain;
}

// In front of all that judges what has no connection yet.
void look_at_shape(Chain& chain) {
  chain.rules.push_back(rule(ct_state_in(kCtInvalid | kCtUntracked) + jump("shape")));
}

// A pod's address from an interface that is none of the pods'.
void refuse_impostors(Chain& chain) {
  for (const Family family : {Family::V4, Family::V6})
    chain.rules.push_back(rule(family_is(family) +
                                   address_in(family, Side::Source, pick(family, "guarded4", "guarded6"), false) +
                                   just(MetaLoad{NFT_META_IIFNAME, 0}) + just(Lookup{"podif", 0, true}) +
                                   go_to(rule_chain_name(reserved::kSpoofedIngress)),
                               "a pod's address from elsewhere"));
}

Chain forward_new(const HostHooks& hosts, const Switches& switches) {
  Chain chain{.name = "new_forward"};
  look_at_shape(chain);
  refuse_impostors(chain);
  if (hosts.forward) chain.rules.push_back(rule(jump("host_fi")));
  for (const Family family : {Family::V4, Family::V6}) {
    const std::uint32_t second = family == Family::V4 ? 1 : 4;
    chain.rules.push_back(rule(family_is(family) + load_address(family, Side::Source, 0) +
                                   load_address(family, Side::Destination, second) +
                                   just(Lookup{pick(family, "self4", "self6"), 0}) + go_to("itself"),
                               "a pod to itself through a Service"));
  }
  chain.rules.push_back(rule(jump("eval_e")));
  chain.rules.push_back(rule(jump("eval_i")));
  if (hosts.forward) chain.rules.push_back(rule(jump("host_fo")));
  tell_allowed(chain, switches);
  return chain;
}

Chain itself(const Switches& switches) {
  Chain chain{.name = "itself"};
  chain.rules.push_back(rule(jump(rule_chain_name(reserved::kSelfEgress))));
  chain.rules.push_back(rule(jump(rule_chain_name(reserved::kSelfIngress))));
  tell_allowed(chain, switches);
  return chain;
}

Chain input_new(const HostHooks& hosts, const Switches& switches) {
  Chain chain{.name = "new_input"};
  look_at_shape(chain);
  refuse_impostors(chain);
  chain.rules.push_back(rule(jump("eval_e")));
  if (hosts.local) chain.rules.push_back(rule(jump("host_in")));
  tell_allowed(chain, switches);
  return chain;
}

Chain output_new(const TableOptions& options, const HostHooks& hosts, const Switches& switches) {
  Chain chain{.name = "new_output"};
  look_at_shape(chain);
  if (options.host_to_pod == TableOptions::HostToPod::Policy) {
    chain.rules.push_back(rule(jump("eval_i")));
  } else {
    const std::string host = rule_chain_name(reserved::kHostIngress);
    for (const Family family : {Family::V4, Family::V6})
      chain.rules.push_back(
          rule(family_is(family) +
                   address_in(family, Side::Destination, pick(family, "pods4", "pods6"), false) + jump(host),
               "the node to its own pods"));
  }
  if (hosts.local) chain.rules.push_back(rule(jump("host_out")));
  tell_allowed(chain, switches);
  return chain;
}

Chain midstream(Direction direction, bool spares, bool audits) {
  const bool egress = direction == Direction::Egress;
  const RuleId invalid = egress ? reserved::kInvalidEgress : reserved::kInvalidIngress;
  const RuleId preexisting = egress ? reserved::kPreexistingEgress : reserved::kPreexistingIngress;
  const RuleId mid_stream = egress ? reserved::kMidStreamEgress : reserved::kMidStreamIngress;
  Chain chain{.name = midstream_chain_name(direction, spares)};
  chain.rules.push_back(rule(ct_state_in(kCtInvalid) + go_to(rule_chain_name(invalid))));
  chain.rules.push_back(rule(go_to(rule_chain_name(spares || audits ? preexisting : mid_stream))));
  return chain;
}

// Only of pods: the node's own discovery and listener reports have no connection either.
Chain stateless() {
  Chain chain{.name = "stateless"};
  for (const Family family : {Family::V4, Family::V6})
    for (const Side side : {Side::Source, Side::Destination})
      chain.rules.push_back(rule(family_is(family) + address_in(family, side, pick(family, "pods4", "pods6"), false) +
                                 go_to("stateless_log")));
  return chain;
}

// The id is the packet's mark for as long as the message is made: other engines get it as it was.
Chain first_packet_log(const TableOptions& options) {
  constexpr std::uint32_t kKept = 4;  // the label is in the registers before
  Chain chain{.name = "flog"};
  for (const std::uint32_t word : {kEgressWord, kIngressWord})
    chain.rules.push_back(rule(ct_word_is_not_zero(word) + just(MetaLoad{NFT_META_MARK, kKept}) +
                               just(MetaSet{NFT_META_MARK, word}) +
                               just(LogTo{options.nflog_group, "tl:A", 128}) +
                               just(MetaSet{NFT_META_MARK, kKept})));
  return chain;
}

// What no connection remembers is told once per flow and interval; its entry counts every packet.
Chain stateless_log(const TableOptions& options) {
  Chain chain{.name = "stateless_log"};
  const auto interval = static_cast<std::uint64_t>(options.log_interval.count());
  for (const Family family : {Family::V4, Family::V6})
    for (const FlowKind kind : {FlowKind::Ports, FlowKind::Icmp, FlowKind::Other})
      chain.rules.push_back(
          rule(flow_key(family, kind, RuleId::None) +
               just(UpdateMetered{pick(family, "stateless4", "stateless6"), 0, interval}) +
               just(LogTo{options.nflog_group, "tl:S", 128})));
  return chain;
}

}  // namespace

std::string midstream_chain_name(Direction direction, bool spares) {
  return std::string(spares ? "spared" : "midstream") + (direction == Direction::Egress ? "_e" : "_i");
}

TableObjects build_skeleton(const TableOptions& options, const Switches& switches, const HostHooks& hosts) {
  TableObjects skeleton;
  skeleton.counters = {kOverflowCounter};
  for (const RuleId id : {reserved::kInvalidEgress, reserved::kInvalidIngress})
    skeleton.counters.push_back(frame_counter_name(id));
  skeleton.sets = skeleton_sets(options, switches);
  std::vector<Chain>& chains = skeleton.chains;
  chains.push_back(deny_chain(Seen::Packets, options));
  for (const ReservedRule& reserved_rule : reserved_rules())
    chains.push_back(verdict_chain(reserved_rule.id, reserved_rule.direction, reserved_rule.allows,
                                   std::string(name(reserved_rule.reason)), options));
  chains.push_back(
      {"eval_e",
       {rule(address_to(Family::V4, Side::Source, "eg4")), rule(address_to(Family::V6, Side::Source, "eg6"))},
       std::nullopt});
  chains.push_back({"eval_i",
                    {rule(address_to(Family::V4, Side::Destination, "in4")),
                     rule(address_to(Family::V6, Side::Destination, "in6"))},
                    std::nullopt});
  chains.push_back(first_packet_log(options));
  chains.push_back(shape(options));
  chains.push_back(stateless());
  chains.push_back(stateless_log(options));
  for (const Direction direction : {Direction::Egress, Direction::Ingress})
    for (const bool spares : {false, true}) chains.push_back(midstream(direction, spares, options.audits()));
  chains.push_back(itself(switches));
  chains.push_back(forward_new(hosts, switches));
  chains.push_back(input_new(hosts, switches));
  chains.push_back(output_new(options, hosts, switches));
  if (switches.audits_some) {
    Chain tell{.name = "tell"};
    tell_now(tell);
    chains.push_back(std::move(tell));
  }
  for (const auto& [hook_name, hook] : kHooks) chains.push_back(base_chain(options, switches, hosts, hook_name, hook));
  return skeleton;
}

std::vector<Chain> base_chains_before_others() {
  std::vector<Chain> chains;
  for (const auto& [hook_name, hook] : kHooks) {
    Chain chain{.name = std::string("audit_") + hook_name, .rules = {}, .hook = BaseHook{hook, kBeforeOthers}};
    judge_new(chain, std::string("audit_new_") + hook_name);
    chains.push_back(std::move(chain));
  }
  return chains;
}

TableObjects build_hold(const policy::Program& program) {
  TableObjects hold;
  hold.counters = {kHeldCounter};
  Set pods4 = map_of("pods4", kTypeIpv4, 4, false);
  Set pods6 = map_of("pods6", kTypeIpv6, 16, false);
  for (const policy::ProgramEndpoint& endpoint : program.endpoints)
    for (const IpAddr& address : program.cluster->endpoints[endpoint.endpoint].addresses)
      (address.family == Family::V4 ? pods4 : pods6).elements.push_back({address_bytes(address), {}, false});
  hold.sets = {std::move(pods4), std::move(pods6)};
  for (const auto& [chain_name, hook] : kHooks) {
    Chain chain{.name = chain_name, .rules = {}, .hook = BaseHook{hook, kBehindOthers + 1}};
    for (const Family family : {Family::V4, Family::V6})
      for (const Side side : {Side::Source, Side::Destination})
        chain.rules.push_back(rule(ct_state_in(kCtNew) + family_is(family) +
                                   address_in(family, side, pick(family, "pods4", "pods6"), false) +
                                   just(CountNamed{kHeldCounter}) + just(Verdict{VerdictKind::Drop, {}})));
    hold.chains.push_back(std::move(chain));
  }
  return hold;
}

}  // namespace tierlog::dataplane::nftables
