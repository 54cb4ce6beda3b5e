#include "dataplane/nftables/build_rules.h"

#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>

#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"

namespace tierlog::dataplane::nftables {
namespace {

std::string prefix(RuleId id, char kind) {
  char text[32];
  std::snprintf(text, sizeof text, "tl:%08x%c", number(id), kind);
  return text;
}

}  // namespace

std::string rule_chain_name(RuleId id) {
  return "r" + to_hex(id);
}
bool is_verdict_chain(const std::string& name) {
  return name.size() > 1 && name.size() <= 9 && name[0] == 'r' &&
         std::all_of(name.begin() + 1, name.end(), [](unsigned char c) { return std::isxdigit(c) != 0; });
}
std::string log_chain_name(RuleId id) {
  return "g" + to_hex(id);
}

namespace {

constexpr std::array kFamilies{Family::V4, Family::V6};
constexpr std::array kKinds{FlowKind::Ports, FlowKind::Icmp, FlowKind::Other};
constexpr std::uint32_t kCopied = 128;
constexpr const char* kSampledSet = "sampled";  // rules whose denials found the sets full

std::string set_of(Family family, const char* stem) {
  return std::string(stem) + (family == Family::V4 ? "4" : "6");
}

// Where flow_key leaves the rule's id.
std::uint32_t id_register(Family family) {
  return 2 * (family == Family::V4 ? 1 : 4) + 2;
}

NftRule made(const Phrase& phrase, std::string comment = {}) {
  return {phrase.expressions, std::move(comment)};
}

// Nobody's mark may change: the id stands in the key and in the prefix, and the packet goes on. What would
// not have left the source is not asked at its destination; what would have left it is told as that.
void audit_denial(Chain& chain, RuleId id, Direction direction, const TableOptions& options) {
  const auto interval = static_cast<std::uint64_t>(options.deny_interval.count());
  for (const Family family : kFamilies)
    for (const FlowKind kind : kKinds) {
      const std::string set = set_of(family, "deny");
      chain.rules.push_back(made(flow_key(family, kind, id) + just(UpdateMetered{set, 0, interval}) +
                                 just(LogTo{options.nflog_group, prefix(id, 'D'), kCopied})));
      chain.rules.push_back(made(flow_key(family, kind, id) + just(Lookup{set, 0, true}) +
                                 just(CountNamed{kOverflowCounter})));
    }
  if (direction == Direction::Egress)
    chain.rules.push_back(made(just(Verdict{VerdictKind::Accept, {}}), "audit: others decide"));
}

}  // namespace

Chain verdict_chain(RuleId id, Direction direction, bool allows, const std::string& comment,
                    const TableOptions& options) {
  Chain chain{.name = rule_chain_name(id)};
  if (allows) {
    const std::uint32_t word = label_word(direction);
    // Without a connection no label can be loaded, so the first does not hold; the second counts all the same
    // and has nothing to write to.
    chain.rules.push_back(made(ct_word_is_not_zero(word) + just(Verdict{VerdictKind::Return, {}}), "judged before"));
    chain.rules.push_back(made(just(Count{id}) + ct_word_set(word, id), comment));
  } else if (options.audits()) {
    chain.rules.push_back(made(just(Count{id}), comment));
    audit_denial(chain, id, direction, options);
  } else {
    chain.rules.push_back(made(just(Count{id}) + mark_set(id) + go_to("deny"), comment));
  }
  chain.content = content_of(chain);  // kept with the class that it is built for, and asked at each change
  return chain;
}

std::vector<Chain> log_chains(RuleId id, const std::string& comment, const policy::LogRate& rate,
                              const TableOptions& options) {
  Chain message{.name = "m" + to_hex(id)};
  message.rules.push_back(made(just(LimitRate{rate.messages, rate.seconds, rate.messages}) +
                                   just(CountNamed{message_counter_name(id)}) +
                                   just(LogTo{options.nflog_group, prefix(id, 'L'), kCopied}),
                               rate.to_string()));
  Chain chain{.name = log_chain_name(id)};
  chain.rules.push_back(made(just(Count{id}), comment));
  const auto interval = static_cast<std::uint64_t>(options.log_interval.count());
  for (const Family family : kFamilies)
    for (const FlowKind kind : kKinds)
      chain.rules.push_back(
          made(flow_key(family, kind, id) + just(UpdateMetered{set_of(family, "logged"), 0, interval}) +
               go_to(message.name)));
  return {std::move(message), std::move(chain)};
}

Chain deny_chain(Seen of, const TableOptions& options) {
  Chain chain{.name = "deny"};
  const auto interval = static_cast<std::uint64_t>(options.deny_interval.count());
  // Few: from a change of policy until the connection is cut. Its egress rule does not count again, so these
  // must be told apart from what opens a connection.
  if (of == Seen::Packets)
    chain.rules.push_back(made(ct_state_in(kCtEstablished) + mark_is_not(reserved::kCutEgress) +
                                   mark_is_not(reserved::kCutIngress) +
                                   just(LogTo{options.nflog_group, "tl:C", kCopied}) +
                                   just(Verdict{VerdictKind::Drop, {}}),
                               "of a living connection"));
  constexpr std::uint32_t kSamples = 20;  // a second and rule: a scan that one denies hides no other's flows
  for (const Family family : kFamilies)
    for (const FlowKind kind : kKinds) {
      const std::string set = set_of(family, "deny");
      chain.rules.push_back(made(flow_key(family, kind, std::nullopt, of) +
                                 just(UpdateMetered{set, 0, interval}) +
                                 just(LogTo{options.nflog_group, "tl:D", kCopied})));
      chain.rules.push_back(made(flow_key(family, kind, std::nullopt, of) + just(Lookup{set, 0, true}) +
                                     just(CountNamed{kOverflowCounter}) +
                                     just(UpdateMetered{kSampledSet, id_register(family), 1, kSamples}) +
                                     just(LogTo{options.nflog_group, "tl:O", kCopied}),
                                 "set full: counted here only"));
      // The kernel may have no memory for that one's entry either.
      chain.rules.push_back(made(flow_key(family, kind, std::nullopt, of) + just(Lookup{set, 0, true}) +
                                     just(Lookup{kSampledSet, id_register(family), true}) +
                                     just(LimitRate{kSamples, 1, kSamples}) +
                                     just(LogTo{options.nflog_group, "tl:O", kCopied}),
                                 "no memory: a sample of all rules"));
    }
  chain.rules.push_back(made(just(Verdict{VerdictKind::Drop, {}})));
  return chain;
}

Set metered_set(std::string name, std::uint32_t key_length, const TableOptions& options) {
  const auto timeout = std::chrono::milliseconds(entry_lifetime(options));
  return {.name = std::move(name),
          .key_length = key_length,
          .metered = true,
          .size = options.deny_set_size,
          .timeout_ms = static_cast<std::uint64_t>(timeout.count())};
}

std::vector<Set> flow_sets(const TableOptions& options) {
  const auto protocols = [](std::string name, std::initializer_list<std::uint8_t> numbers) {
    Set set{.name = std::move(name), .key_type = kTypeProtocol, .key_length = 1};
    for (const std::uint8_t number : numbers) set.elements.push_back({{number}, std::nullopt, false});
    return set;
  };
  return {protocols("portp", {protocol::kTcp, protocol::kUdp, protocol::kSctp, protocol::kUdpLite}),
          protocols("icmpp", {protocol::kIcmp, protocol::kIcmpV6}),
          protocols("kindp", {protocol::kTcp, protocol::kUdp, protocol::kSctp, protocol::kUdpLite,
                              protocol::kIcmp, protocol::kIcmpV6}),
          metered_set("deny4", kFlowKeyV4, options), metered_set("deny6", kFlowKeyV6, options),
          metered_set(kSampledSet, 4, options)};
}

std::chrono::seconds entry_lifetime(const TableOptions& options) {
  // An entry must outlive several readings, or counts would vanish unread.
  return std::max(std::chrono::seconds(60), 6 * std::max(options.deny_interval, options.log_interval));
}

Phrase flow_key(Family family, FlowKind kind, std::optional<RuleId> id, Seen of) {
  const std::uint32_t words = family == Family::V4 ? 1 : 4;
  const std::uint32_t protocol_reg = 2 * words;
  const std::uint32_t port_reg = protocol_reg + 1;
  const std::uint32_t id_reg = id_register(family);

  Phrase phrase = (of == Seen::Frames ? frame_family_is(family) : family_is(family)) +
                  just(MetaLoad{NFT_META_L4PROTO, protocol_reg});
  switch (kind) {
    case FlowKind::Ports:
      phrase += Lookup{"portp", protocol_reg};
      break;
    case FlowKind::Icmp:
      phrase += Lookup{"icmpp", protocol_reg};
      break;
    case FlowKind::Other:
      phrase += Lookup{"kindp", protocol_reg, true};
      break;
  }
  phrase += load_address(family, Side::Source, 0) + load_address(family, Side::Destination, words);
  switch (kind) {
    case FlowKind::Ports:
      phrase += load_port(Side::Destination, port_reg);
      break;
    case FlowKind::Icmp:
      phrase += PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, port_reg};
      break;
    case FlowKind::Other:
      phrase += LoadBytes{port_reg, Bytes(4, 0)};
      break;
  }
  if (id)
    phrase += LoadBytes{id_reg, host_word(number(*id))};
  else
    phrase += MetaLoad{NFT_META_MARK, id_reg};
  return phrase;
}

}  // namespace tierlog::dataplane::nftables
