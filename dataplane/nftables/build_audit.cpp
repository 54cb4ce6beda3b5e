#include "dataplane/nftables/build_audit.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/build_skeleton.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr std::array kFamilies{Family::V4, Family::V6};
constexpr const char* kNew[] = {"forward", "input", "output"};

NftRule rule(const Phrase& phrase, std::string comment = {}) {
  return {phrase.expressions, std::move(comment)};
}

std::string of_family(const char* stem, Family family) {
  return std::string(stem) + (family == Family::V4 ? "4" : "6");
}

Set addresses(std::string name, Family family, bool verdicts) {
  return {.name = std::move(name),
          .key_type = family == Family::V4 ? 7U : 8U,
          .key_length = family == Family::V4 ? 4U : 16U,
          .verdict_map = verdicts};
}

// The id of "r<hex>"; nullopt for any other chain.
std::optional<RuleId> verdict_id(const std::string& chain) {
  std::uint32_t value = 0;
  if (chain.size() < 2 || chain[0] != 'r') return std::nullopt;
  const auto [end, error] = std::from_chars(chain.data() + 1, chain.data() + chain.size(), value, 16);
  if (error != std::errc() || end != chain.data() + chain.size()) return std::nullopt;
  return RuleId{value};
}

bool denies(const Chain& chain) {
  if (chain.rules.empty() || chain.rules.back().expressions.empty()) return false;
  const auto* last = std::get_if<Verdict>(&chain.rules.back().expressions.back());
  return last != nullptr && last->kind == VerdictKind::Goto && last->chain == "deny";
}

// Whom a denial under this id is about. A cut is about the connection, the rest about who really sent it:
// none of them is a verdict of a policy on an audited endpoint.
std::optional<Direction> direction_of(const policy::Program& program, RuleId id) {
  for (const RuleId never :
       {reserved::kCutIngress, reserved::kCutEgress, reserved::kSpoofedIngress, reserved::kSpoofedEgress,
        reserved::kVlanEgress, reserved::kEthertypeEgress, reserved::kOtherEgress, reserved::kOtherIngress})
    if (id == never) return std::nullopt;
  if (const ReservedRule* known = find_reserved(id)) return known->direction;
  const auto found = program.by_id.find(id);
  if (found == program.by_id.end()) return std::nullopt;
  return found->second.kind == policy::RuleRef::Kind::Rule ? program.rules[found->second.index].direction
                                                           : program.ends[found->second.index].direction;
}

void ask_denials(TableObjects& objects, const policy::Program& program, const TableOptions& options) {
  TableOptions audit = options;
  audit.enforcement = TableOptions::Enforcement::Audit;
  std::vector<Chain> recorded;
  for (Chain& chain : objects.chains) {
    const auto id = verdict_id(chain.name);
    const auto direction = id && denies(chain) ? direction_of(program, *id) : std::nullopt;
    if (!direction) continue;
    Chain instead = verdict_chain(*id, *direction, false, chain.rules.front().comment, audit);
    instead.name = "q" + to_hex(*id);
    const Side side = *direction == Direction::Egress ? Side::Source : Side::Destination;
    std::vector<NftRule> rules;
    for (const Family family : kFamilies)
      rules.push_back(rule(family_is(family) + address_in(family, side, of_family("audited", family), false) +
                               go_to(instead.name),
                           "audited"));
    for (const NftRule& judged : chain.rules) rules.push_back(judged);
    chain.rules = std::move(rules);
    chain.content = 0;
    recorded.push_back(std::move(instead));
  }
  for (Chain& chain : recorded) objects.chains.push_back(std::move(chain));
}

Chain evaluation(const char* name, const char* stem, Side side) {
  Chain chain{.name = name};
  for (const Family family : kFamilies)
    chain.rules.push_back(rule(family_is(family) + load_address(family, side, 0) +
                               just(Lookup{audited_name(of_family(stem, family)), 0, false, true})));
  return chain;
}

// What concerns an enforced endpoint too is told behind its verdict.
void tell(Chain& chain) {
  for (const Family family : kFamilies)
    for (const Side side : {Side::Source, Side::Destination})
      chain.rules.push_back(rule(family_is(family) +
                                 address_in(family, side, of_family("judged", family), false) +
                                 just(Verdict{VerdictKind::Return, {}})));
  chain.rules.push_back(rule(go_to("tell")));
}

void to_itself(Chain& chain) {
  for (const Family family : kFamilies)
    chain.rules.push_back(rule(family_is(family) + load_address(family, Side::Source, 0) +
                                   load_address(family, Side::Destination, family == Family::V4 ? 1 : 4) +
                                   just(Lookup{audited_name(of_family("self", family)), 0}) +
                                   go_to("audit_itself"),
                               "a pod to itself through a Service"));
}

void from_node(Chain& chain, const TableOptions& options) {
  if (options.host_to_pod == TableOptions::HostToPod::Policy) {
    chain.rules.push_back(rule(jump("audit_eval_i")));
    return;
  }
  for (const Family family : kFamilies)
    chain.rules.push_back(
        rule(family_is(family) + address_in(family, Side::Destination, of_family("audited", family), false) +
                 jump(rule_chain_name(reserved::kHostIngress)),
             "the node to its own pods"));
}

std::vector<Chain> chains_before_others(const TableOptions& options) {
  std::vector<Chain> chains{evaluation("audit_eval_e", "eg", Side::Source),
                            evaluation("audit_eval_i", "in", Side::Destination)};
  Chain itself{.name = "audit_itself"};
  for (const RuleId id : {reserved::kSelfEgress, reserved::kSelfIngress})
    itself.rules.push_back(rule(jump(rule_chain_name(id))));
  tell(itself);
  chains.push_back(std::move(itself));
  for (const char* name : kNew) {
    const std::string hook = name;
    Chain chain{.name = "audit_new_" + hook};
    if (hook == "forward") to_itself(chain);
    if (hook != "output") chain.rules.push_back(rule(jump("audit_eval_e")));
    if (hook == "forward") chain.rules.push_back(rule(jump("audit_eval_i")));
    if (hook == "output") from_node(chain, options);
    tell(chain);
    chains.push_back(std::move(chain));
  }
  return chains;
}

}  // namespace

std::string audited_name(const std::string& set) {
  return "audit_" + set;
}

bool audits_some(const policy::Program& program, const TableOptions& options) {
  return !options.audits() && std::any_of(program.endpoints.begin(), program.endpoints.end(),
                                          [](const auto& endpoint) { return endpoint.audited; });
}

void add_audit(TableObjects& objects, const policy::Program& program, const TableOptions& options) {
  if (!audits_some(program, options)) return;
  for (const Family family : kFamilies) {
    Set audited = addresses(of_family("audited", family), family, false);
    Set judged = addresses(of_family("judged", family), family, false);
    for (const policy::ProgramEndpoint& endpoint : program.endpoints)
      for (const IpAddr& address : program.cluster->endpoints[endpoint.endpoint].addresses)
        if (address.family == family)
          (endpoint.audited ? audited : judged)
              .elements.push_back({address_bytes(address), std::nullopt, false});
    objects.sets.push_back(std::move(audited));
    objects.sets.push_back(std::move(judged));
  }
  ask_denials(objects, program, options);
  for (Chain& chain : chains_before_others(options)) objects.chains.push_back(std::move(chain));
  for (Chain& chain : base_chains_before_others()) objects.chains.push_back(std::move(chain));
}

}  // namespace tierlog::dataplane::nftables
