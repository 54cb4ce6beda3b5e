#include "dataplane/nftables/build_rules.h"

#include <linux/netfilter/nf_tables.h>

#include <cstdio>

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
std::string log_chain_name(RuleId id) {
  return "g" + to_hex(id);
}
std::string first_packet_chain_name(RuleId id) {
  return "l" + to_hex(id);
}

Chain verdict_chain(RuleId id, Direction direction, bool allows, const std::string& comment) {
  Chain chain{.name = rule_chain_name(id)};
  const Phrase phrase = allows ? ct_word_is_zero(label_word(direction)) + just(Count{id}) +
                                     ct_word_set(label_word(direction), id)
                               : just(Count{id}) + mark_set(id) + go_to("deny");
  chain.rules.push_back({phrase.expressions, comment});
  return chain;
}

Chain log_chain(RuleId id, const std::string& comment, const TableOptions& options) {
  Chain chain{.name = log_chain_name(id)};
  chain.rules.push_back({just(Count{id}).expressions, comment});
  const auto interval = static_cast<std::uint64_t>(options.log_interval.count());
  for (const Family family : {Family::V4, Family::V6}) {
    const std::string set = family == Family::V4 ? "logged4" : "logged6";
    for (const FlowKind kind : {FlowKind::Ports, FlowKind::Icmp, FlowKind::Other})
      chain.rules.push_back({(flow_key(family, kind, id) + just(UpdateMetered{set, 0, interval}) +
                              just(LogTo{options.nflog_group, prefix(id, 'L'), 128}))
                                 .expressions,
                             {}});
  }
  return chain;
}

Chain first_packet_chain(RuleId id, const TableOptions& options) {
  Chain chain{.name = first_packet_chain_name(id)};
  chain.rules.push_back({just(LogTo{options.nflog_group, prefix(id, 'A'), 128}).expressions, {}});
  return chain;
}

Element first_packet_element(RuleId id) {
  return {host_word(number(id)), Verdict{VerdictKind::Jump, first_packet_chain_name(id)}, false};
}

Phrase flow_key(Family family, FlowKind kind, std::optional<RuleId> id) {
  const std::uint32_t words = family == Family::V4 ? 1 : 4;
  const std::uint32_t protocol_reg = 2 * words;
  const std::uint32_t port_reg = protocol_reg + 1;
  const std::uint32_t id_reg = protocol_reg + 2;

  Phrase phrase = family_is(family) + just(MetaLoad{NFT_META_L4PROTO, protocol_reg});
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
