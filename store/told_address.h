// store/told_address.h - an address as the bytes of a column: 4 or 16, network byte order.
#pragma once

#include <algorithm>
#include <cstring>
#include <string_view>

#include "base/net_types.h"

namespace tierlog::store {

// Borrowed from `address`.
inline std::string_view address_bytes(const IpAddr& address) {
  return {reinterpret_cast<const char*>(address.bytes.data()), address.size()};
}

inline IpAddr address_of_bytes(std::string_view bytes) {
  constexpr std::size_t kV4Bytes = 4;
  IpAddr address;
  address.family = bytes.size() == kV4Bytes ? Family::V4 : Family::V6;
  std::memcpy(address.bytes.data(), bytes.data(), std::min(bytes.size(), address.bytes.size()));
  return address;
}

}  // namespace tierlog::store
