#include "store/patterns.h"

#include <fnmatch.h>
#include <re2/re2.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <utility>

#include "policy/selector.h"
#include "store/record_json.h"

namespace tierlog::store {
namespace {

bool is_expression(const std::string& value) {
  return value.size() > 2 && value.front() == '/' && value.back() == '/';
}

Result<TextPredicate> parse_expression(std::string_view what, const std::string& value) {
  auto expression = std::make_shared<RE2>(value.substr(1, value.size() - 2), RE2::Quiet);
  if (!expression->ok()) return fail(bad_value(what, value, "a regular expression: " + expression->error()));
  return [expression](std::string_view text) {
    return RE2::PartialMatch(re2::StringPiece(text.data(), text.size()), *expression);
  };
}

bool shell_match(const std::string& pattern, std::string_view text) {
  return ::fnmatch(pattern.c_str(), std::string(text).c_str(), 0) == 0;
}

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  for (;;) {
    const auto end = text.find(separator);
    parts.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

template <typename T>
std::optional<T> parse_number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The end of the value at the front of `text`: the first comma that separates.
std::size_t value_end(std::string_view text) {
  if (text.size() > 1 && text.front() == '/') {
    // /RE2/ ends at a slash that is followed by a comma or by nothing; a policy's "/NAME" has none.
    for (std::size_t i = 2; i < text.size(); ++i)
      if (text[i] == '/' && (i + 1 == text.size() || text[i + 1] == ',')) return i + 1;
  }
  int depth = 0;
  char quote = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c == '(' || c == '{') {
      ++depth;
    } else if (c == ')' || c == '}') {
      --depth;
    } else if (c == ',' && depth <= 0) {
      return i;
    }
  }
  return text.size();
}

// "app=web" and "app = web" are pairs; "app == 'web'" and "app != 'web'" are expressions.
std::optional<std::pair<std::string, std::string>> key_and_value(const std::string& text) {
  const auto equals = text.find('=');
  if (equals == std::string::npos || equals == 0) return std::nullopt;
  if (text.find_first_of("'\"=!(){}&|<> \t", 0) != equals) return std::nullopt;
  if (text.find_first_of("'\"=!(){}&| \t", equals + 1) != std::string::npos) return std::nullopt;
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

}  // namespace

Error bad_value(std::string_view what, std::string_view value, std::string_view expected) {
  return {ErrorCode::InvalidArgument,
          std::string(what).append(" ").append(value).append("; expected ").append(expected), 0};
}

Result<TextPredicate> parse_text_pattern(std::string_view what, const std::string& value) {
  if (value.empty()) return fail(bad_value(what, "\"\"", "a name, a shell pattern or /RE2/"));
  if (is_expression(value)) {
    TL_ASSIGN(auto expression, parse_expression(what, value));
    return [expression](std::string_view text) { return !text.empty() && expression(text); };
  }
  return [value](std::string_view text) { return !text.empty() && shell_match(value, text); };
}

Result<TextPredicate> parse_policy_pattern(const std::string& value) {
  if (is_expression(value)) {
    TL_ASSIGN(auto expression, parse_expression("policy", value));
    return [expression](std::string_view display) { return !display.empty() && expression(display); };
  }
  const auto wanted = split(value, '/');
  if (wanted.size() > 3 || wanted.back().empty())
    return fail(bad_value(
        "policy", value.empty() ? "\"\"" : value,
        "NAME, NS/NAME, TIER/NS/NAME (cluster-wide: TIER//NAME), shell patterns of these or /RE2/"));
  return [wanted](std::string_view display) {
    const auto parts = split(display, '/');
    if (parts.size() != 3) return false;
    const std::size_t skipped = parts.size() - wanted.size();
    for (std::size_t i = 0; i < wanted.size(); ++i)
      if (!shell_match(wanted[i], parts[i + skipped])) return false;
    return true;
  };
}

Result<PeerPredicate> parse_address(std::string_view what, const std::string& value) {
  const auto cidr = Cidr::parse(value);
  if (!cidr) return fail(bad_value(what, value, "an address or CIDR"));
  return [cidr = *cidr](const PeerText& peer) {
    const auto address = IpAddr::parse(peer.ip);
    return address && cidr.contains(*address);
  };
}

Result<PeerPredicate> parse_peer(std::string_view what, const std::string& value) {
  constexpr const char* kExpected = "NS/POD, an address, a CIDR or a pattern of a name";
  if (Cidr::parse(value)) return parse_address(what, value);
  if (is_expression(value)) {
    TL_ASSIGN(auto expression, parse_expression(what, value));
    return [expression](const PeerText& peer) {
      const std::string display = std::string(peer.peer_namespace).append("/").append(peer.name);
      return !peer.name.empty() && expression(display);
    };
  }
  auto parts = split(value, '/');
  // "10.0.0.0/99" and "1.2.3.400" are mistyped addresses, not names.
  const bool like_address =
      value.find_first_not_of("0123456789./") == std::string::npos || value.find(':') != std::string::npos;
  if (parts.size() > 2 || parts.back().empty() || like_address)
    return fail(bad_value(what, value, kExpected));
  return [parts](const PeerText& peer) {
    if (parts.size() == 2 && !shell_match(parts.front(), peer.peer_namespace)) return false;
    const auto is_named = [&](std::string_view text) {
      return !text.empty() && shell_match(parts.back(), text);
    };
    return is_named(peer.name) || is_named(peer.workload);
  };
}

Result<PortRange> parse_port_range(const std::string& value) {
  const auto dash = value.find_first_of("-:");
  const auto first = parse_number<std::uint16_t>(std::string_view(value).substr(0, dash));
  const auto last = dash == std::string::npos
                        ? first
                        : parse_number<std::uint16_t>(std::string_view(value).substr(dash + 1));
  if (!first || !last) return fail(bad_value("port", value, "0 to 65535 or a range of these"));
  if (*first > *last) return fail(bad_value("port", value, "a range that begins with its lower end"));
  return PortRange{*first, *last};
}

Result<RuleFilter> parse_rule(const std::string& value) {
  constexpr const char* kExpected = "INDEX, ingress[INDEX], egress[INDEX], 0xID or end-of-tier";
  if (value == "end-of-tier") return RuleFilter{-1, std::nullopt, std::nullopt};
  const std::string_view text(value);
  if (text.starts_with("0x") || text.starts_with("0X")) {
    const auto id = parse_number<std::uint32_t>(text.substr(2), 16);
    if (!id) return fail(bad_value("rule", value, kExpected));
    return RuleFilter{std::nullopt, std::nullopt, RuleId{*id}};
  }
  RuleFilter filter;
  std::string_view index = text;
  for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
    const std::string_view prefix = name(direction);
    if (!text.starts_with(prefix) || !text.ends_with("]") || text.substr(prefix.size()).front() != '[')
      continue;
    index = text.substr(prefix.size() + 1, text.size() - prefix.size() - 2);
    filter.direction = direction;
  }
  filter.index = parse_number<int>(index);
  if (!filter.index || *filter.index < 0) return fail(bad_value("rule", value, kExpected));
  return filter;
}

Result<TextPredicate> parse_label(const std::string& value) {
  if (const auto pair = key_and_value(value)) {
    return [pair = *pair](std::string_view json) {
      const auto labels = parse_labels(json);
      if (!labels) return false;
      const auto found = labels->find(pair.first);
      return found != labels->end() && found->second == pair.second;
    };
  }
  const auto selector = policy::Selector::parse(value);
  if (!selector)
    return fail(bad_value("label", value, "KEY=VALUE or a selector (" + selector.error().message + ")"));
  return [selector = *selector](std::string_view json) {
    const auto labels = parse_labels(json);
    return labels && selector.matches(*labels);
  };
}

std::vector<std::string> split_values(const std::vector<std::string>& values) {
  std::vector<std::string> parts;
  for (const std::string& value : values) {
    std::string_view rest = value;
    for (;;) {
      const std::size_t end = value_end(rest);
      parts.emplace_back(rest.substr(0, end));
      if (end == rest.size()) break;
      rest.remove_prefix(end + 1);
    }
  }
  return parts;
}

}  // namespace tierlog::store
