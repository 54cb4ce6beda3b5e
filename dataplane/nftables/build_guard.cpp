// Table `netdev tierlog`: what a pod's interface may send, and, under a bridge, what may be delivered to it.
//
// Judgement goes by addresses, so a frame whose addresses do not say who sends and who gets it would
// escape: tagged, spoofed, broadcast, multicast, link-local. Neighbour discovery, ARP and DHCP stay.
#include <linux/if_ether.h>

#include <algorithm>
#include <cstdio>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/build_rules.h"
#include "dataplane/nftables/constants.h"
#include "dataplane/nftables/content.h"
#include "dataplane/nftables/expr.h"

namespace tierlog::dataplane::nftables {
namespace {

constexpr std::int32_t kGuardPriority = -500;
constexpr std::uint32_t kTypeInterfaceAddress = 0;
constexpr std::uint8_t kNeighbourAdvertisement = 136;
constexpr std::uint32_t kPacketBroadcast = 1;
constexpr std::uint32_t kPacketMulticast = 2;

NftRule rule(const Phrase& phrase, std::string comment = {}) {
  return {phrase.expressions, std::move(comment)};
}

Phrase accept() {
  return just(Verdict{VerdictKind::Accept, {}});
}
Phrase refuse(RuleId id) {
  return go_to(rule_chain_name(id));
}

Phrase frame(std::uint32_t base, std::uint32_t offset, Bytes value) {
  const auto length = static_cast<std::uint32_t>(value.size());
  return just(PayloadLoad{base, offset, length, 0}) + just(Compare{0, NFT_CMP_EQ, std::move(value)});
}

// With a tag the type is the tag's, whether the tag is in the frame or beside it.
Phrase ether_type(int type) {
  return frame(NFT_PAYLOAD_LL_HEADER, 12, big_endian16(static_cast<std::uint16_t>(type)));
}

Phrase masked(std::uint32_t offset, Bytes mask, Bytes value) {
  const auto length = static_cast<std::uint32_t>(mask.size());
  return just(PayloadLoad{NFT_PAYLOAD_NETWORK_HEADER, offset, length, 0}) + just(Mask{0, std::move(mask)}) +
         just(Compare{0, NFT_CMP_EQ, std::move(value)});
}

constexpr std::uint32_t kV4Destination = 16;
constexpr std::uint32_t kV6Source = 8;
constexpr std::uint32_t kV6Destination = 24;

Phrase v6_link_local(std::uint32_t offset) {
  return masked(offset, {0xff, 0xc0}, {0xfe, 0x80});
}

Phrase icmpv6_in(const char* set) {
  return protocol_is(protocol::kIcmpV6) + just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, 0}) +
         just(Lookup{set, 0});
}

Phrase udp_ports(std::uint16_t from, std::uint16_t to) {
  return protocol_is(protocol::kUdp) + load_port(Side::Source, 0) +
         just(Compare{0, NFT_CMP_EQ, big_endian16(from)}) + load_port(Side::Destination, 0) +
         just(Compare{0, NFT_CMP_EQ, big_endian16(to)});
}

Set types(std::string name, std::initializer_list<std::uint8_t> numbers) {
  Set set{.name = std::move(name), .key_length = 1};
  for (const std::uint8_t number : numbers) set.elements.push_back({{number}, std::nullopt, false});
  return set;
}

// Counts; what is IP goes the way of denied packets, what is not can have no flow record.
Chain refusal(const ReservedRule& reserved_rule, const TableOptions& options) {
  Chain chain{.name = rule_chain_name(reserved_rule.id)};
  const std::string comment(name(reserved_rule.reason));
  // What has no flow key cannot be told as a flow.
  for (const Family family : {Family::V4, Family::V6})
    for (const FlowKind kind : {FlowKind::Ports, FlowKind::Icmp, FlowKind::Other})
      if (!options.audits())
        chain.rules.push_back(rule(flow_key(family, kind, reserved_rule.id, Seen::Frames) +
                                       just(Count{reserved_rule.id}) + mark_set(reserved_rule.id) + go_to("deny"),
                                   comment));
  const VerdictKind end = options.audits() ? VerdictKind::Accept : VerdictKind::Drop;
  chain.rules.push_back(rule(just(Count{reserved_rule.id}) +
                                 just(CountNamed{frame_counter_name(reserved_rule.id)}) +
                                 just(Verdict{end, {}}),
                             options.audits() ? comment + ", counted only" : comment + ", not IP or cut off"));
  return chain;
}

Chain from_v4() {
  Chain chain{.name = "from4"};
  for (const std::uint32_t kind : {kPacketBroadcast, kPacketMulticast})
    chain.rules.push_back(rule(just(MetaLoad{NFT_META_PKTTYPE, 0}) +
                               just(Compare{0, NFT_CMP_EQ, {static_cast<std::uint8_t>(kind)}}) +
                               refuse(reserved::kOtherEgress)));
  chain.rules.push_back(
      rule(masked(kV4Destination, {0xf0}, {0xe0}) + refuse(reserved::kOtherEgress), "multicast"));
  chain.rules.push_back(rule(frame(NFT_PAYLOAD_NETWORK_HEADER, kV4Destination, Bytes(4, 0xff)) +
                                 refuse(reserved::kOtherEgress),
                             "broadcast"));
  return chain;
}

Chain from_v6() {
  Chain chain{.name = "from6"};
  chain.rules.push_back(rule(icmpv6_in("router") + refuse(reserved::kSpoofedEgress), "only routers say that"));
  chain.rules.push_back(rule(protocol_is(protocol::kIcmpV6) +
                                 frame(NFT_PAYLOAD_TRANSPORT_HEADER, 0, {kNeighbourAdvertisement}) +
                                 go_to("advertises"),
                             "neighbour advertisement"));
  chain.rules.push_back(rule(icmpv6_in("asks") + accept(), "neighbour discovery, listener reports"));
  chain.rules.push_back(rule(masked(kV6Destination, {0xff}, {0xff}) + refuse(reserved::kOtherEgress), "multicast"));
  chain.rules.push_back(rule(v6_link_local(kV6Destination) + refuse(reserved::kOtherEgress), "link-local"));
  for (const std::uint32_t kind : {kPacketBroadcast, kPacketMulticast})
    chain.rules.push_back(rule(just(MetaLoad{NFT_META_PKTTYPE, 0}) +
                               just(Compare{0, NFT_CMP_EQ, {static_cast<std::uint8_t>(kind)}}) +
                               refuse(reserved::kOtherEgress)));
  return chain;
}

Chain advertises() {
  constexpr std::uint32_t kTarget = 8;
  Chain chain{.name = "advertises"};
  chain.rules.push_back(rule(just(MetaLoad{NFT_META_IIFNAME, 0}) +
                             just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, kTarget, 16, 4}) +
                             just(Lookup{"own6", 0}) + accept()));
  chain.rules.push_back(rule(just(PayloadLoad{NFT_PAYLOAD_TRANSPORT_HEADER, kTarget, 2, 0}) +
                                 just(Mask{0, {0xff, 0xc0}}) + just(Compare{0, NFT_CMP_EQ, {0xfe, 0x80}}) +
                                 accept(),
                             "link-local"));
  chain.rules.push_back(rule(refuse(reserved::kSpoofedEgress)));
  return chain;
}

// Frames whose source is none of the pod's addresses.
Chain foreign() {
  Chain chain{.name = "foreign"};
  const auto v4 = [] { return ether_type(ETH_P_IP); };
  const auto v6 = [] { return ether_type(ETH_P_IPV6); };
  chain.rules.push_back(rule(v4() + frame(NFT_PAYLOAD_NETWORK_HEADER, 12, Bytes(4, 0)) +
                                 frame(NFT_PAYLOAD_NETWORK_HEADER, kV4Destination, Bytes(4, 0xff)) +
                                 udp_ports(68, 67) + accept(),
                             "DHCP"));
  chain.rules.push_back(rule(v4() + refuse(reserved::kSpoofedEgress)));
  for (const bool unspecified : {true, false}) {
    const Phrase source = v6() + (unspecified ? frame(NFT_PAYLOAD_NETWORK_HEADER, kV6Source, Bytes(16, 0))
                                              : v6_link_local(kV6Source));
    chain.rules.push_back(rule(source + icmpv6_in("asks") + accept()));
  }
  chain.rules.push_back(rule(v6() + v6_link_local(kV6Source) + protocol_is(protocol::kIcmpV6) +
                             frame(NFT_PAYLOAD_TRANSPORT_HEADER, 0, {kNeighbourAdvertisement}) +
                             go_to("advertises")));
  chain.rules.push_back(rule(v6() + v6_link_local(kV6Source) + udp_ports(546, 547) + accept(), "DHCPv6"));
  chain.rules.push_back(rule(v6() + v6_link_local(kV6Source) + refuse(reserved::kOtherEgress), "link-local"));
  chain.rules.push_back(rule(v6() + refuse(reserved::kSpoofedEgress)));
  chain.rules.push_back(rule(ether_type(ETH_P_ARP) + refuse(reserved::kSpoofedEgress)));
  for (const int tag : {ETH_P_8021Q, ETH_P_8021AD})
    chain.rules.push_back(rule(ether_type(tag) + refuse(reserved::kVlanEgress)));
  chain.rules.push_back(rule(refuse(reserved::kEthertypeEgress)));
  return chain;
}

// What a bridge delivers to an address that nobody judged.
Chain stray() {
  Chain chain{.name = "stray"};
  chain.rules.push_back(rule(ether_type(ETH_P_ARP) + accept()));
  chain.rules.push_back(rule(ether_type(ETH_P_IPV6) + icmpv6_in("hears") + accept(), "neighbour discovery"));
  chain.rules.push_back(rule(ether_type(ETH_P_IP) + udp_ports(67, 68) + accept(), "DHCP"));
  chain.rules.push_back(rule(ether_type(ETH_P_IPV6) + udp_ports(547, 546) + accept(), "DHCPv6"));
  for (const int type : {ETH_P_IP, ETH_P_IPV6, ETH_P_8021Q, ETH_P_8021AD})
    chain.rules.push_back(rule(ether_type(type) + refuse(reserved::kOtherIngress)));
  return chain;
}

std::optional<Bytes> parse_mac(const std::string& text) {
  unsigned part[6];
  int used = 0;
  if (std::sscanf(text.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x%n", &part[0], &part[1], &part[2], &part[3], &part[4],
                  &part[5], &used) != 6 ||
      static_cast<std::size_t>(used) != text.size())
    return std::nullopt;
  Bytes mac;
  for (const unsigned byte : part) mac.push_back(static_cast<std::uint8_t>(byte));
  return mac;
}

Chain device_chain(const char* start, const std::string& interface, std::uint32_t hook) {
  return {.name = start + hex(content_of(interface)),
          .rules = {},
          .hook = BaseHook{hook, kGuardPriority, interface}};
}

// What nearly every packet is, in one rule: from the pod's MAC and address, to one host that is not on the
// link. All others go on to the rules that know why not.
Phrase ordinary(const IpAddr& address, const std::optional<Bytes>& mac) {
  const bool v4 = address.family == Family::V4;
  // Destination (its group bit), source and type in one look.
  Bytes mask(14, 0), head(14, 0);
  mask[0] = 1;
  if (mac) {
    std::fill_n(mask.begin() + 6, 6, 0xff);
    std::copy(mac->begin(), mac->end(), head.begin() + 6);
  }
  const Bytes type = big_endian16(v4 ? ETH_P_IP : ETH_P_IPV6);
  std::fill_n(mask.begin() + 12, 2, 0xff);
  std::copy(type.begin(), type.end(), head.begin() + 12);
  const auto begins_otherwise = [](std::uint32_t offset, std::uint8_t bits) {
    return just(PayloadLoad{NFT_PAYLOAD_NETWORK_HEADER, offset, 1, 0}) + just(Mask{0, {bits}}) +
           just(Compare{0, NFT_CMP_NEQ, {bits}});
  };
  Phrase phrase = just(PayloadLoad{NFT_PAYLOAD_LL_HEADER, 0, 14, 0}) + just(Mask{0, std::move(mask)}) +
                  just(Compare{0, NFT_CMP_EQ, std::move(head)}) +
                  frame(NFT_PAYLOAD_NETWORK_HEADER, v4 ? 12 : kV6Source, address_bytes(address));
  if (v4)
    phrase += begins_otherwise(kV4Destination, 0xe0);  // multicast, 240.0.0.0/4, broadcast
  else
    phrase += protocol_is_not(protocol::kIcmpV6) + begins_otherwise(kV6Destination, 0xfe);
  return phrase + accept();
}

Chain outgoing(const policy::Endpoint& pod) {
  Chain chain = device_chain("out_", pod.interface, NF_NETDEV_INGRESS);
  const auto mac = parse_mac(pod.mac);
  for (const IpAddr& address : pod.addresses)
    chain.rules.push_back(rule(ordinary(address, mac), pod.display() + ", to one host"));
  if (mac)
    chain.rules.push_back(rule(just(PayloadLoad{NFT_PAYLOAD_LL_HEADER, 6, 6, 0}) +
                                   just(Compare{0, NFT_CMP_NEQ, *mac}) + refuse(reserved::kSpoofedEgress),
                               pod.display()));
  constexpr std::uint32_t kArpSender = 14;
  for (const IpAddr& address : pod.addresses) {
    const bool v4 = address.family == Family::V4;
    chain.rules.push_back(rule(ether_type(v4 ? ETH_P_IP : ETH_P_IPV6) +
                                   frame(NFT_PAYLOAD_NETWORK_HEADER, v4 ? 12 : kV6Source, address_bytes(address)) +
                                   go_to(v4 ? "from4" : "from6"),
                               pod.display()));
  }
  for (const IpAddr& address : pod.addresses)
    if (address.family == Family::V4)
      chain.rules.push_back(rule(ether_type(ETH_P_ARP) +
                                 frame(NFT_PAYLOAD_NETWORK_HEADER, kArpSender, address_bytes(address)) + accept()));
  chain.rules.push_back(rule(ether_type(ETH_P_ARP) +
                                 frame(NFT_PAYLOAD_NETWORK_HEADER, kArpSender, Bytes(4, 0)) + accept(),
                             "address probe"));
  chain.rules.push_back(rule(go_to("foreign")));
  return chain;
}

// A routed pod gets nothing but what its routes name; under a bridge whoever knows its MAC may send.
Chain incoming(const policy::Endpoint& pod) {
  Chain chain = device_chain("in_", pod.interface, NF_NETDEV_EGRESS);
  for (const IpAddr& address : pod.addresses) {
    const bool v4 = address.family == Family::V4;
    chain.rules.push_back(
        rule(ether_type(v4 ? ETH_P_IP : ETH_P_IPV6) +
                 frame(NFT_PAYLOAD_NETWORK_HEADER, v4 ? kV4Destination : kV6Destination, address_bytes(address)) +
                 accept(),
             pod.display()));
  }
  chain.rules.push_back(rule(go_to("stray")));
  return chain;
}

}  // namespace

std::string guard_chain_name(const std::string& interface) {
  return "out_" + hex(content_of(interface));
}

TableObjects build_guard(const policy::Program& program, const TableOptions& options) {
  TableObjects guard;
  guard.counters = {kOverflowCounter};
  guard.sets = flow_sets(options);
  guard.sets.push_back(types("asks", {131, 132, 133, 135, 143}));
  guard.sets.push_back(types("router", {134, 137}));
  guard.sets.push_back(types("hears", {130, 131, 132, 133, 134, 135, 136, 137, 143}));
  Set own{.name = "own6", .key_type = kTypeInterfaceAddress, .key_length = 32};
  guard.chains.push_back(deny_chain(Seen::Frames, options));
  for (const RuleId id : {reserved::kSpoofedEgress, reserved::kVlanEgress, reserved::kEthertypeEgress,
                          reserved::kOtherEgress, reserved::kOtherIngress}) {
    guard.counters.push_back(counter_name(id));
    guard.counters.push_back(frame_counter_name(id));
    guard.chains.push_back(refusal(*find_reserved(id), options));
  }
  for (Chain& chain : std::vector<Chain>{from_v4(), from_v6(), advertises(), foreign(), stray()})
    guard.chains.push_back(std::move(chain));
  for (const policy::ProgramEndpoint& endpoint : program.endpoints) {
    const policy::Endpoint& pod = program.cluster->endpoints[endpoint.endpoint];
    if (pod.interface.empty()) continue;
    guard.chains.push_back(outgoing(pod));
    if (!pod.bridge.empty()) guard.chains.push_back(incoming(pod));
    for (const IpAddr& address : pod.addresses) {
      if (address.family != Family::V6) continue;
      Bytes key = interface_bytes(pod.interface);
      const Bytes target = address_bytes(address);
      key.insert(key.end(), target.begin(), target.end());
      own.elements.push_back({std::move(key), std::nullopt, false});
    }
  }
  guard.sets.push_back(std::move(own));
  for (const std::string& interface : program.closed_interfaces) {
    Chain closed = device_chain("out_", interface, NF_NETDEV_INGRESS);
    closed.rules.push_back(rule(refuse(reserved::kSpoofedEgress), "its pod is gone"));
    guard.chains.push_back(std::move(closed));
  }
  return guard;
}

}  // namespace tierlog::dataplane::nftables
