#include "policy/fields.h"

#include <algorithm>
#include <cctype>
#include <charconv>

namespace tierlog::policy {
namespace {

using yaml::Fields;
using yaml::Node;

bool is_label_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.' || c == '/' || c == '-';
}

// What selectors can name; anything else could never be selected.
bool check_label_key(const std::string& key, const SourceRef& place, Diagnostics& findings) {
  if (!key.empty() && key.size() <= 512 && std::all_of(key.begin(), key.end(), is_label_char)) return true;
  findings.error(place,
                 "\"" + key + "\" is no label; expected letters, digits, \"_\", \".\", \"/\" and \"-\"");
  return false;
}

std::string in_quotes(const std::string& value) {
  return value.find('\'') == std::string::npos ? "'" + value + "'" : "\"" + value + "\"";
}

void check_global(const Selector& selector, const Node& node, Global global, Diagnostics& findings) {
  if (!selector.uses_global()) return;
  if (global == Global::Refused)
    findings.error(node.place,
                   "global() is out of place here; expected it only in a rule's namespaceSelector");
  else if (!selector.is_global())
    findings.error(node.place, "global() together with other expressions; expected it alone");
}

std::optional<std::uint16_t> port_number(std::string_view text) {
  std::uint16_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool is_port_name(const std::string& text) {
  const auto legal = [](char c) { return is_label_char(c) && c != '/'; };
  const auto letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
  return text.size() <= 128 && std::all_of(text.begin(), text.end(), legal) &&
         std::any_of(text.begin(), text.end(), letter);
}

// One item of matchExpressions, as selector and text.
std::optional<ReadSelector> read_expression(const Node& node, Diagnostics& findings) {
  Fields fields(node, "a matchExpressions item", findings);
  const auto key = fields.require_string("key");
  const bool key_is_good = key && check_label_key(*key, fields.place_of("key"), findings);
  fields.require("operator");
  const auto choice = fields.choice("operator", {"In", "NotIn", "Exists", "DoesNotExist"});
  const std::vector<std::string> values = fields.strings("values");
  if (!choice || !key_is_good) return std::nullopt;
  const bool is_set = *choice < 2;
  if (is_set == values.empty()) {
    findings.error(fields.place_of("values"), is_set
                                                  ? "values is empty; expected at least one with In or NotIn"
                                                  : "values beside Exists or DoesNotExist; expected none");
    return std::nullopt;
  }
  std::string list;
  for (const std::string& value : values) list += (list.empty() ? "" : ", ") + in_quotes(value);
  switch (*choice) {
    case 0:
      return ReadSelector{Selector::in(*key, values), *key + " in {" + list + "}"};
    case 1:
      return ReadSelector{Selector::not_in(*key, values), *key + " not in {" + list + "}"};
    case 2:
      return ReadSelector{Selector::has(*key), "has(" + *key + ")"};
    default:
      return ReadSelector{Selector::negate(Selector::has(*key)), "!has(" + *key + ")"};
  }
}

}  // namespace

std::optional<ReadSelector> read_selector(Fields& fields, std::string_view key, Global global) {
  const auto text = fields.string(key);
  if (!text) return std::nullopt;
  const Node& node = *fields.node().find(key);
  if (text->size() > limit::kSelector) {
    fields.findings().error(node.place, std::string(key) + " has " + std::to_string(text->size()) +
                                            " characters; expected at most " +
                                            std::to_string(limit::kSelector));
    return std::nullopt;
  }
  auto selector = Selector::parse(*text);
  if (!selector) {
    fields.findings().error(node.place_at(selector.error().offset),
                            std::string(key) + ": " + selector.error().message);
    return std::nullopt;
  }
  check_global(*selector, node, global, fields.findings());
  if (text->find_first_not_of(" \t") == std::string::npos) return std::nullopt;
  return ReadSelector{std::move(*selector), *text};
}

std::optional<ReadSelector> read_label_selector(const Node& node, const std::string& what,
                                                Diagnostics& findings) {
  Fields fields(node, what, findings);
  std::vector<Selector> parts;
  std::string text;
  const auto add = [&](Selector selector, const std::string& part) {
    parts.push_back(std::move(selector));
    text += (text.empty() ? "" : " && ") + part;
  };
  for (auto& [key, value] : read_labels(fields, "matchLabels"))
    add(Selector::equals(key, value), key + " == " + in_quotes(value));
  for (const Node* item : fields.list("matchExpressions"))
    if (auto expression = read_expression(*item, findings))
      add(std::move(expression->selector), expression->text);
  if (!fields.is_map()) return std::nullopt;
  return ReadSelector{Selector::all_of(parts), text};
}

std::optional<Cidr> read_cidr(const Node& node, Diagnostics& findings, bool prefix_only) {
  if (node.kind == yaml::Kind::Scalar) {
    const auto cidr = Cidr::parse(node.text);
    if (cidr && !(prefix_only && node.text.find('/') == std::string::npos)) return cidr;
  }
  const std::string found = node.kind == yaml::Kind::Scalar ? "\"" + node.text + "\"" : node.kind_name();
  findings.error(node.place, found + " is no CIDR; expected a prefix like 10.0.0.0/8 or fd00::/64" +
                                 (prefix_only ? "" : ", or an address"));
  return std::nullopt;
}

std::vector<Cidr> read_nets(Fields& fields, std::string_view key, std::size_t at_most) {
  std::vector<Cidr> nets;
  const auto items = fields.list(key);
  if (items.size() > at_most)
    fields.findings().error(items[at_most]->place, std::string(key) + " has " + std::to_string(items.size()) +
                                                       " items; expected at most " + std::to_string(at_most));
  for (const Node* item : items)
    if (const auto cidr = read_cidr(*item, fields.findings())) nets.push_back(*cidr);
  return nets;
}

std::optional<IpAddr> read_address(const Node& node, Diagnostics& findings) {
  if (node.kind == yaml::Kind::Scalar)
    if (const auto address = IpAddr::parse(node.text)) return address;
  const std::string found = node.kind == yaml::Kind::Scalar ? "\"" + node.text + "\"" : node.kind_name();
  findings.error(node.place, found + " is no address; expected one like 10.244.1.7 or fd00:244:1::7");
  return std::nullopt;
}

std::optional<PortSpec> read_port(const Node& node, Diagnostics& findings, std::string_view what) {
  const std::string expected = "; expected " + std::string(what);
  if (node.is_odd_number()) {
    findings.error(node.place, node.text +
                                   " is not the same number to every reader of YAML; expected decimal digits"
                                   " without a leading 0, or quotes around a port's name");
    return std::nullopt;
  }
  if (node.kind != yaml::Kind::Scalar) {
    findings.error(node.place, node.kind_name() + " is no port" + expected);
    return std::nullopt;
  }
  if (const auto number = port_number(node.text)) return PortSpec{{*number, *number}, {}};
  const auto colon = node.text.find(':');
  if (colon != std::string::npos) {
    const auto first = port_number(std::string_view(node.text).substr(0, colon));
    const auto last = port_number(std::string_view(node.text).substr(colon + 1));
    if (first && last && *first <= *last) return PortSpec{{*first, *last}, {}};
    if (first && last) {
      findings.error(node.place, "port range \"" + node.text + "\" ends before it starts; expected " +
                                     std::to_string(*last) + ":" + std::to_string(*first));
      return std::nullopt;
    }
  } else if (is_port_name(node.text)) {
    return PortSpec{{}, node.text};
  }
  findings.error(node.place, "\"" + node.text + "\" is no port" + expected);
  return std::nullopt;
}

std::vector<PortSpec> read_ports(Fields& fields, std::string_view key) {
  std::vector<PortSpec> ports;
  const auto items = fields.list(key);
  if (items.size() > limit::kPorts)
    fields.findings().error(items[limit::kPorts]->place,
                            std::string(key) + " has " + std::to_string(items.size()) +
                                " items; expected at most " + std::to_string(limit::kPorts));
  for (const Node* item : items)
    if (auto port = read_port(*item, fields.findings())) ports.push_back(std::move(*port));
  return ports;
}

std::optional<std::uint8_t> read_protocol(Fields& fields, std::string_view key) {
  const Node* node = fields.get(key);
  if (node == nullptr) return std::nullopt;
  if (node->kind == yaml::Kind::Scalar)
    if (const auto number = protocol::parse(node->text)) return number;
  static const std::vector<std::string> names = {"TCP", "UDP", "SCTP", "UDPLite", "ICMP", "ICMPv6"};
  const std::string found = node->kind == yaml::Kind::Scalar ? "\"" + node->text + "\"" : node->kind_name();
  const std::string near = node->as_int() ? "" : nearest(node->text, names);
  fields.findings().error(node->place,
                          "unknown protocol " + found +
                              "; expected TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or a number from 1 to 255" +
                              (near.empty() ? "" : " (did you mean " + near + "?)"));
  return std::nullopt;
}

std::optional<std::uint8_t> read_port_protocol(Fields& fields, std::string_view key) {
  if (!fields.has(key)) {
    fields.accept({key});
    return protocol::kTcp;
  }
  const auto choice = fields.choice(key, {"TCP", "UDP", "SCTP"});
  if (!choice) return std::nullopt;
  constexpr std::uint8_t numbers[] = {protocol::kTcp, protocol::kUdp, protocol::kSctp};
  return numbers[*choice];
}

Labels read_labels(Fields& fields, std::string_view key) {
  Labels labels;
  const Node* node = fields.map(key);
  if (node == nullptr) return labels;
  for (const auto& [name, value] : node->entries) {
    const bool good = check_label_key(name.text, name.place, fields.findings());
    if (value.is_null()) {
      if (good) labels[name.text] = "";
    } else if (auto text = yaml::read_string(value, "label " + name.text, fields.findings()); text && good) {
      labels[name.text] = std::move(*text);
    }
  }
  return labels;
}

bool check_name(const std::string& text, bool dots, const SourceRef& place, Diagnostics& findings) {
  const auto legal = [dots](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || (dots && c == '.');
  };
  const auto edge = [](char c) { return c != '-' && c != '.'; };
  const std::size_t longest = dots ? 253 : 63;
  if (!text.empty() && text.size() <= longest && std::all_of(text.begin(), text.end(), legal) &&
      edge(text.front()) && edge(text.back()))
    return true;
  findings.error(place, "\"" + text + "\" is no name; expected at most " + std::to_string(longest) +
                            " lower-case letters, digits" + (dots ? ", \"-\" and \".\"" : " and \"-\"") +
                            ", a letter or digit at both ends");
  return false;
}

}  // namespace tierlog::policy
