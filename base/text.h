// base/text.h - numbers and names in sentences, the same in every answer that people read.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace tierlog {

std::string with_commas(std::uint64_t value);                         // "1,204,332"
std::string counted(std::uint64_t count, std::string_view singular);  // "1 flow", "1,204 flows", "2 policies"
// "tier/ns/name" -> "ns/name", "tier//name" -> "/name": as printed under a tier.
std::string under_tier(std::string_view display);

}  // namespace tierlog
