// policy/fields.h - the values that policy APIs have in common: selectors, prefixes, ports, protocols,
// labels.
//
//   base/fields.h --> [these readers] --> load_calico.cpp, load_kubernetes.cpp, load_admin.cpp, topologies
//
// As everywhere: what is wrong becomes a finding at its place and reads as absent.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fields.h"
#include "base/net_types.h"
#include "policy/labels.h"
#include "policy/model.h"
#include "policy/selector.h"

namespace tierlog::policy {

// What the upstream validation allows at most.
namespace limit {
inline constexpr std::size_t kRules = 1024;     // per direction
inline constexpr std::size_t kNets = 256;       // per list of a rule
inline constexpr std::size_t kPorts = 50;       // per list of a rule
inline constexpr std::size_t kSelector = 1024;  // characters
}  // namespace limit

// A selector and the text that people know it by.
struct ReadSelector {
  Selector selector;
  std::string text;
};

// Whether global() may stand in a selector: in a rule's namespaceSelector, alone.
enum class Global : std::uint8_t { Refused, Alone };

// A selector expression; empty text reads as absent.
std::optional<ReadSelector> read_selector(yaml::Fields& fields, std::string_view key,
                                          Global global = Global::Refused);
// A Kubernetes labelSelector {matchLabels, matchExpressions}; an empty one selects all and has no text.
std::optional<ReadSelector> read_label_selector(const yaml::Node& node, const std::string& what,
                                                Diagnostics& findings);

// "10.0.0.0/8"; a bare address too, unless `prefix_only`.
std::optional<Cidr> read_cidr(const yaml::Node& node, Diagnostics& findings, bool prefix_only = false);
std::vector<Cidr> read_nets(yaml::Fields& fields, std::string_view key, std::size_t at_most);
std::optional<IpAddr> read_address(const yaml::Node& node, Diagnostics& findings);

// 80, "8000:8080", "http".
inline constexpr std::string_view kPortOrRange = "a number from 0 to 65535, a range like 8000:8080 or a port's name";
std::optional<PortSpec> read_port(const yaml::Node& node, Diagnostics& findings,
                                  std::string_view expected = kPortOrRange);
std::vector<PortSpec> read_ports(yaml::Fields& fields, std::string_view key);
std::optional<std::uint8_t> read_protocol(yaml::Fields& fields, std::string_view key);
// Kubernetes: TCP, UDP or SCTP, TCP when absent.
std::optional<std::uint8_t> read_port_protocol(yaml::Fields& fields, std::string_view key);

Labels read_labels(yaml::Fields& fields, std::string_view key);

// RFC 1123: lower-case letters, digits, "-", with `dots` also "."; a finding when `text` is no such name.
bool check_name(const std::string& text, bool dots, const SourceRef& place, Diagnostics& findings);

}  // namespace tierlog::policy
