#include "exporters/prometheus/node/proc.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <set>
#include <sstream>

namespace tierlog::prometheus {
namespace {

const std::set<std::string_view> kNoCounters{"RtoAlgorithm", "RtoMin",     "RtoMax",    "MaxConn",
                                             "CurrEstab",    "Forwarding", "DefaultTTL"};

// The kernel's names of counters of lost packets.
const std::set<std::string_view> kDrops{
    "InDiscards",     "OutDiscards",        "InHdrErrors",        "InAddrErrors",      "InUnknownProtos",
    "OutNoRoutes",    "InNoRoutes",         "InTruncatedPkts",    "InCsumErrors",      "ReasmFails",
    "FragFails",      "ListenDrops",        "ListenOverflows",    "TCPBacklogDrop",    "PFMemallocDrop",
    "TCPMinTTLDrop",  "TCPDeferAcceptDrop", "TCPReqQFullDrop",    "TCPOFODrop",        "TCPZeroWindowDrop",
    "TCPRcvQDrop",    "LockDroppedIcmps",   "PruneCalled",        "RcvPruned",         "OfoPruned",
    "NoPorts",        "InErrors",           "RcvbufErrors",       "SndbufErrors",      "MemErrors",
    "Ip6InDiscards",  "Ip6OutDiscards",     "Ip6InHdrErrors",     "Ip6InAddrErrors",   "Ip6InUnknownProtos",
    "Ip6OutNoRoutes", "Ip6InNoRoutes",      "Ip6InTruncatedPkts", "Ip6InTooBigErrors", "Udp6NoPorts",
    "Udp6InErrors",   "Udp6RcvbufErrors",   "Udp6SndbufErrors",   "Udp6InCsumErrors"};

std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (!line.empty()) {
    const auto begin = line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) break;
    line.remove_prefix(begin);
    const auto end = std::min(line.find_first_of(" \t"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
  return words;
}

std::string_view next_line(std::string_view& text) {
  const auto end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

void add(Statistics& to, std::string_view name, std::string_view value) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || kNoCounters.contains(name)) return;
  const bool there = std::any_of(to.begin(), to.end(), [&](const auto& one) { return one.first == name; });
  if (!there) to.emplace_back(name, number);
}

// "Tcp: A B" over "Tcp: 1 2".
void add_pairs(std::string_view text, Protocols& protocols) {
  while (!text.empty()) {
    const auto names = words_of(next_line(text));
    const auto values = words_of(next_line(text));
    if (names.empty() || names.size() != values.size() || names[0] != values[0]) continue;
    Statistics* to = names[0] == "Tcp:" || names[0] == "TcpExt:" ? &protocols.tcp
                     : names[0] == "Ip:" || names[0] == "IpExt:" ? &protocols.ip
                     : names[0] == "Udp:"                        ? &protocols.udp
                                                                 : nullptr;
    for (std::size_t i = 1; to != nullptr && i < names.size(); ++i) add(*to, names[i], values[i]);
  }
}

std::string whole(const char* path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

}  // namespace

Protocols parse_protocols(std::string_view snmp, std::string_view netstat, std::string_view snmp6) {
  Protocols protocols;
  add_pairs(snmp, protocols);
  add_pairs(netstat, protocols);
  while (!snmp6.empty()) {
    const auto words = words_of(next_line(snmp6));
    if (words.size() != 2) continue;
    if (words[0].starts_with("Ip6")) add(protocols.ip, words[0], words[1]);
    if (words[0].starts_with("Udp6")) add(protocols.udp, words[0], words[1]);
  }
  return protocols;
}

Protocols read_protocols() {
  return parse_protocols(whole("/proc/net/snmp"), whole("/proc/net/netstat"), whole("/proc/net/snmp6"));
}

Statistics drops_of(const Protocols& protocols) {
  Statistics found;
  const std::pair<const char*, const Statistics*> parts[] = {
      {"Ip", &protocols.ip}, {"Tcp", &protocols.tcp}, {"Udp", &protocols.udp}};
  for (const auto& [prefix, statistics] : parts)
    for (const auto& [name, value] : *statistics) {
      if (!kDrops.contains(name)) continue;
      const bool named = name.starts_with(prefix) || name.starts_with("TCP");
      found.emplace_back(named ? name : prefix + name, value);
    }
  return found;
}

}  // namespace tierlog::prometheus
