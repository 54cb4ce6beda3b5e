// daemon/config_values.h - single values of tierlogd.yaml: read, or a finding that says what was expected.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/diagnostics.h"
#include "base/yaml.h"

namespace tierlog::daemon {

// "this is a list; expected WHAT"
void expected(const yaml::Node& value, Diagnostics& findings, const std::string& what);
void unknown_key(const yaml::Node& key, const std::vector<std::string>& known, Diagnostics& findings);
// From `low` to 65535.
std::optional<std::uint16_t> read_number(const yaml::Node& value, std::int64_t low, Diagnostics& findings);
// "8GiB", "500 MiB", a number of bytes.
std::optional<std::uint64_t> parse_bytes(std::string_view text);

}  // namespace tierlog::daemon
