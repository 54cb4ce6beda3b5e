// What is made once and never replaced: base chains, dispatch, the shared deny chain, reserved rules.
#include <algorithm>
#include <cstdio>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr std::int32_t kPriority = 10;  // filter + 10: behind what others drop
constexpr std::uint32_t kTypeIpv4 = 7;
constexpr std::uint32_t kTypeIpv6 = 8;
constexpr std::uint32_t kTypeProtocol = 12;

NftRule rule(const Phrase& phrase, std::string comment = {}) {
  return {phrase.expressions, std::move(comment)};
}

Set protocols(std::string name, std::initializer_list<std::uint8_t> numbers) {
  Set set{.name = std::move(name), .key_type = kTypeProtocol, .key_length = 1};
  for (const std::uint8_t number : numbers) set.elements.push_back({{number}, std::nullopt, false});
  return set;
}

Set metered(std::string name, std::uint32_t key_length, const TableOptions& options) {
  const auto timeout = std::chrono::milliseconds(entry_lifetime(options));
  return {.name = std::move(name),
          .key_length = key_length,
          .metered = true,
          .size = options.deny_set_size,
          .timeout_ms = static_cast<std::uint64_t>(timeout.count())};
}

Set dispatch_map(std::string name, Family family, bool verdicts) {
  const bool v4 = family == Family::V4;
  return {.name = std::move(name),
          .key_type = v4 ? kTypeIpv4 : kTypeIpv6,
          .key_length = v4 ? 4u : 16u,
          .verdict_map = verdicts};
}

std::vector<Set> skeleton_sets(const TableOptions& options) {
  std::vector<Set> sets{
      protocols("portp", {protocol::kTcp, protocol::kUdp, protocol::kSctp, protocol::kUdpLite}),
      protocols("icmpp", {protocol::kIcmp, protocol::kIcmpV6}),
      protocols("kindp", {protocol::kTcp, protocol::kUdp, protocol::kSctp, protocol::kUdpLite,
                          protocol::kIcmp, protocol::kIcmpV6}),
      metered("deny4", 20, options),
      metered("deny6", 44, options),
      metered("logged4", 20, options),
      metered("logged6", 44, options),
      dispatch_map("eg4", Family::V4, true),
      dispatch_map("eg6", Family::V6, true),
      dispatch_map("in4", Family::V4, true),
      dispatch_map("in6", Family::V6, true),
      dispatch_map("pods4", Family::V4, false),
      dispatch_map("pods6", Family::V6, false)};
  sets.push_back({.name = "rlog", .key_length = 4, .verdict_map = true});
  Set discovery{.name = "nd", .key_length = 1};
  for (std::uint8_t type = 133; type <= 137; ++type)
    discovery.elements.push_back({{type}, std::nullopt, false});
  sets.push_back(std::move(discovery));
  return sets;
}

Chain deny_chain(const TableOptions& options) {
  Chain chain{.name = "deny"};
  const auto interval = static_cast<std::uint64_t>(options.deny_interval.count());
  for (const Family family : {Family::V4, Family::V6}) {
    const std::string set = family == Family::V4 ? "deny4" : "deny6";
    for (const FlowKind kind : {FlowKind::Ports, FlowKind::Icmp, FlowKind::Other}) {
      chain.rules.push_back(rule(flow_key(family, kind, std::nullopt) +
                                 just(UpdateMetered{set, 0, interval}) +
                                 just(LogTo{options.nflog_group, "tl:D", 128})));
      chain.rules.push_back(rule(flow_key(family, kind, std::nullopt) + just(Lookup{set, 0, true}) +
                                     just(CountNamed{kOverflowCounter}) + just(LimitRate{20, 1, 20}) +
                                     just(LogTo{options.nflog_group, "tl:O", 128}),
                                 "set full: counted here only"));
    }
  }
  chain.rules.push_back(rule(just(Verdict{VerdictKind::Drop, {}})));
  return chain;
}

Phrase address_to(Family family, Side side, const std::string& map) {
  return family_is(family) + load_address(family, side, 0) + just(Lookup{map, 0, false, true});
}

Chain neighbour_and_known(std::string name, std::uint32_t hook, const std::string& next) {
  Chain chain{.name = std::move(name), .rules = {}, .hook = BaseHook{hook, kPriority}};
  chain.rules.push_back(
      rule(ct_state_in(kCtEstablished | kCtRelated) + just(Verdict{VerdictKind::Accept, {}})));
  chain.rules.push_back(rule(family_is(Family::V6) + protocol_is(protocol::kIcmpV6) +
                                 just(PayloadLoad{NFT_PAYLOAD_NETWORK_HEADER, 7, 1, 0}) +
                                 just(Compare{0, NFT_CMP_EQ, {255}}) +
                                 just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0}) +
                                 just(Lookup{"nd", 0}) + just(Verdict{VerdictKind::Accept, {}}),
                             "neighbour discovery"));
  chain.rules.push_back(rule(jump(next)));
  return chain;
}

Chain to_pods(const TableOptions& options) {
  Chain chain{.name = "new_output"};
  if (options.host_to_pod == TableOptions::HostToPod::Policy) {
    chain.rules.push_back(rule(jump("eval_i")));
  } else {
    const std::string host = rule_chain_name(reserved::kHostIngress);
    for (const Family family : {Family::V4, Family::V6})
      chain.rules.push_back(
          rule(family_is(family) +
                   address_in(family, Side::Destination, family == Family::V4 ? "pods4" : "pods6", false) +
                   jump(host),
               "the node to its own pods"));
  }
  chain.rules.push_back(rule(ct_first_packet() + jump("flog")));
  return chain;
}

}  // namespace

std::chrono::seconds entry_lifetime(const TableOptions& options) {
  // An entry must outlive several readings, or counts would vanish unread.
  return std::max(std::chrono::seconds(60), 6 * std::max(options.deny_interval, options.log_interval));
}

Skeleton build_skeleton(const TableOptions& options) {
  Skeleton skeleton;
  skeleton.plain_counters = {kOverflowCounter};
  skeleton.sets = skeleton_sets(options);
  skeleton.chains.push_back(deny_chain(options));
  for (const ReservedRule& reserved_rule : reserved_rules()) {
    skeleton.counters.push_back(reserved_rule.id);
    skeleton.chains.push_back(verdict_chain(reserved_rule.id, reserved_rule.direction, reserved_rule.allows,
                                            std::string(name(reserved_rule.reason))));
  }
  skeleton.chains.push_back(
      {"eval_e",
       {rule(address_to(Family::V4, Side::Source, "eg4")), rule(address_to(Family::V6, Side::Source, "eg6"))},
       std::nullopt});
  skeleton.chains.push_back({"eval_i",
                             {rule(address_to(Family::V4, Side::Destination, "in4")),
                              rule(address_to(Family::V6, Side::Destination, "in6"))},
                             std::nullopt});
  skeleton.chains.push_back(
      {"flog",
       {rule(ct_word_to_verdict(kEgressWord, "rlog")), rule(ct_word_to_verdict(kIngressWord, "rlog"))},
       std::nullopt});
  const NftRule log_first = rule(ct_first_packet() + jump("flog"), "first packet, both ends agreed");
  skeleton.chains.push_back(
      {"new_forward", {rule(jump("eval_e")), rule(jump("eval_i")), log_first}, std::nullopt});
  skeleton.chains.push_back({"new_input", {rule(jump("eval_e")), log_first}, std::nullopt});
  skeleton.chains.push_back(to_pods(options));
  skeleton.chains.push_back(neighbour_and_known("forward", NF_INET_FORWARD, "new_forward"));
  skeleton.chains.push_back(neighbour_and_known("input", NF_INET_LOCAL_IN, "new_input"));
  skeleton.chains.push_back(neighbour_and_known("output", NF_INET_LOCAL_OUT, "new_output"));
  return skeleton;
}

}  // namespace tierlog::dataplane::nftables
