#include "cli/format.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace tierlog::cli {
namespace {

struct Scale {
  double one;
  const char* unit;
};

// "1.9 GiB", "19 M": one decimal below ten.
std::string scaled(double value, const Scale& scale) {
  char text[32];
  const double part = value / scale.one;
  std::snprintf(text, sizeof text, part < 99.95 ? "%.1f %s" : "%.0f %s", part, scale.unit);
  return text;
}

std::string icmp_text(std::uint8_t proto, std::optional<std::uint8_t> type,
                      std::optional<std::uint8_t> code) {
  const std::string name = protocol::name(proto);
  if (!type) return name;
  const bool v6 = proto == protocol::kIcmpV6;
  if (code.value_or(0) == 0 && *type == (v6 ? 128 : 8)) return name + " echo-request";
  if (code.value_or(0) == 0 && *type == (v6 ? 129 : 0)) return name + " echo-reply";
  const std::string text = name + " type " + std::to_string(*type);
  return code ? text + " code " + std::to_string(*code) : text;
}

}  // namespace

std::string short_count(std::uint64_t value) {
  constexpr std::array<Scale, 3> kScales{{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}};
  for (const Scale& scale : kScales)
    if (static_cast<double>(value) >= scale.one) return scaled(static_cast<double>(value), scale);
  return std::to_string(value);
}

std::string bytes_text(std::uint64_t bytes) {
  constexpr double kKi = 1024;
  constexpr std::array<Scale, 4> kScales{
      {{kKi * kKi * kKi * kKi, "TiB"}, {kKi * kKi * kKi, "GiB"}, {kKi * kKi, "MiB"}, {kKi, "KiB"}}};
  for (const Scale& scale : kScales)
    if (static_cast<double>(bytes) >= scale.one) return scaled(static_cast<double>(bytes), scale);
  return std::to_string(bytes) + " B";
}

std::string ago(std::optional<WallTime> then, WallTime now) {
  if (!then) return "never";
  if (now - *then < std::chrono::seconds(1)) return "just now";
  return format_duration(now - *then) + " ago";
}

Cell time_cell(WallTime t) {
  const std::string full = format_for_people(t);
  return {full, Style::Plain, full.size() > 5 ? full.substr(5) : full};
}

std::string peer_text(const store::Peer& peer) {
  const std::string name = peer.peer_namespace.empty() ? peer.name : peer.peer_namespace + "/" + peer.name;
  switch (peer.kind) {
    case store::PeerKind::Pod:
      return peer.name.empty() ? peer.ip.to_string() : name;
    case store::PeerKind::Node:
      return "node " + or_dash(peer.name);
    case store::PeerKind::NetworkSet:
      return "set " + name + " " + peer.ip.to_string();
    case store::PeerKind::Private:
    case store::PeerKind::Public:
      break;
  }
  return "outside " + peer.ip.to_string();
}

Cell peer_cell(const store::Peer& peer) {
  Cell cell(peer_text(peer));
  if (peer.kind == store::PeerKind::Private || peer.kind == store::PeerKind::Public)
    cell.brief = peer.ip.to_string();
  if (peer.kind == store::PeerKind::NetworkSet) cell.brief = cell.text.substr(0, cell.text.rfind(' '));
  return cell;
}

std::string port_text(std::uint8_t proto, std::optional<std::uint16_t> port,
                      std::optional<std::uint8_t> icmp_type, std::optional<std::uint8_t> icmp_code) {
  if (protocol::is_icmp(proto)) return icmp_text(proto, icmp_type, icmp_code);
  const std::string name = protocol::name(proto);
  if (protocol::has_ports(proto)) return port ? std::to_string(*port) + "/" + name : name;
  return "protocol " + name;
}

Cell port_cell(const store::FlowRecord& record) {
  std::string text = port_text(record.proto, record.dst_port, record.icmp_type, record.icmp_code);
  if (!protocol::is_icmp(record.proto) || !record.icmp_type) return text;
  std::string brief = protocol::name(record.proto);
  if (text.ends_with("-request")) {
    brief += " echo";
  } else {
    brief += " " + std::to_string(*record.icmp_type) + "/" + std::to_string(record.icmp_code.value_or(0));
  }
  return {std::move(text), Style::Plain, std::move(brief)};
}

std::string rule_text(Direction direction, std::optional<int> index, std::string_view reason) {
  if (!index) return std::string(reason);
  if (*index < 0) return "end-of-tier";
  return std::string(name(direction)) + "[" + std::to_string(*index) + "]";
}

std::string rule_text(const store::FlowRecord& record) {
  return rule_text(record.direction, record.rule_index, name(record.reason));
}

std::string id_text(RuleId rule) {
  return rule == RuleId::None ? "-" : to_hex(rule);
}

Style style_of(store::Verdict verdict) {
  return verdict == store::Verdict::Allow ? Style::Allow : Style::Deny;
}

std::string or_dash(std::string_view text) {
  return text.empty() ? "-" : std::string(text);
}

}  // namespace tierlog::cli
