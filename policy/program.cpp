#include "policy/program.h"

#include <algorithm>
#include <string_view>

namespace tierlog::policy {

bool AddressSet::contains(const IpAddr& address) const {
  // Only the last member that starts at or before the address can hold it: none lies inside another.
  const auto after = std::upper_bound(members.begin(), members.end(), address,
                                      [](const IpAddr& a, const Cidr& member) { return a < member.address; });
  return after != members.begin() && std::prev(after)->contains(address);
}

bool PortSet::contains(const IpAddr& address, std::uint8_t protocol, std::uint16_t port) const {
  return std::binary_search(members.begin(), members.end(), EndpointPort{address, protocol, port});
}

const ProgramEndpoint* Program::enforced(const IpAddr& address) const {
  const auto found = enforced_by_address.find(address);
  return found == enforced_by_address.end() ? nullptr : &endpoints[found->second];
}

const Endpoint* Program::known(const IpAddr& address) const {
  const auto found = endpoint_by_address.find(address);
  return found == endpoint_by_address.end() ? nullptr : &cluster->endpoints[found->second];
}

}  // namespace tierlog::policy
