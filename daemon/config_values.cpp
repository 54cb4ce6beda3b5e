#include "daemon/config_values.h"

#include <charconv>
#include <utility>

namespace tierlog::daemon {

using yaml::Node;

void expected(const Node& value, Diagnostics& findings, const std::string& what) {
  findings.error(value.place, "this is " + value.kind_name() + "; expected " + what);
}

std::optional<std::uint16_t> read_number(const Node& value, std::int64_t low, Diagnostics& findings) {
  const auto parsed = value.as_int();
  if (parsed && *parsed >= low && *parsed <= 65535) return static_cast<std::uint16_t>(*parsed);
  const std::string wanted = "a number from " + std::to_string(low) + " to 65535";
  if (parsed)
    findings.error(value.place, "\"" + value.text + "\" is out of range; expected " + wanted);
  else
    expected(value, findings, wanted);
  return std::nullopt;
}

void unknown_key(const Node& key, const std::vector<std::string>& known, Diagnostics& findings) {
  const std::string near = nearest(key.text, known);
  std::string message = "unknown key \"" + key.text + "\"";
  if (near.empty()) {
    message += "; expected one of ";
    for (std::size_t i = 0; i < known.size(); ++i) message += (i == 0 ? "" : ", ") + known[i];
  } else {
    message += "; did you mean " + near + "?";
  }
  findings.error(key.place, message);
}

// "8GiB", "500 MiB", a number of bytes.
std::optional<std::uint64_t> parse_bytes(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) return std::nullopt;
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  constexpr std::pair<std::string_view, int> kUnits[] = {{"", 0},     {"B", 0},    {"KiB", 10}, {"MiB", 20},
                                                         {"GiB", 30}, {"TiB", 40}, {"Ki", 10},  {"Mi", 20},
                                                         {"Gi", 30},  {"Ti", 40}};
  for (const auto& [name, bits] : kUnits)
    if (unit == name && number <= (UINT64_MAX >> 1 >> bits)) return number << bits;
  return std::nullopt;
}

}  // namespace tierlog::daemon
