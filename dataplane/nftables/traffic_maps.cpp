#include "dataplane/nftables/traffic_maps.h"

#include <linux/netfilter/nf_tables.h>

#include <utility>

#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"

namespace tierlog::dataplane::nftables {

Element to_chain(Bytes key, const std::string& chain) {
  return {std::move(key), Verdict{VerdictKind::Goto, chain}, false};
}

Phrase load_port_key(std::uint8_t number) {
  if (protocol::is_icmp(number)) return just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, 0});
  return load_port(Side::Destination, 0);
}

Side peer_side(const ClassList& list) {
  return list.direction == Direction::Ingress ? Side::Source : Side::Destination;
}

ProtocolWays by_protocol(const std::map<std::uint8_t, std::string>& chains, const std::string& others) {
  Set map{.key_type = kTypeProtocol, .key_length = 1, .verdict_map = true};
  std::string meaning;
  for (const auto& [number, chain] : chains) {
    if (chain == others) continue;
    map.elements.push_back(to_chain({number}, chain));
    meaning += std::to_string(number) + " " + chain + " ";
  }
  ProtocolWays result;
  if (!map.elements.empty()) {
    map.name = "p_" + hex(content_of(meaning));
    result.ways.push_back(just(MetaLoad{NFT_META_L4PROTO, 0}) + just(Lookup{map.name, 0, false, true}));
    result.map = std::move(map);
  }
  result.ways.push_back(go_to(others));
  return result;
}

}  // namespace tierlog::dataplane::nftables
