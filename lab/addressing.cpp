#include "lab/addressing.h"

#include <algorithm>
#include <iterator>

namespace tierlog::lab {
namespace {

// Nobody's network is wider, and a bridge's subnet may not be.
std::uint8_t widest(Family family) {
  return family == Family::V4 ? 8 : 32;
}
std::uint8_t usual(Family family) {
  return family == Family::V4 ? 24 : 64;
}

Cidr prefix_of(const IpAddr& address, std::uint8_t bits) {
  Cidr cidr{address, bits};
  for (std::size_t i = 0; i < address.size(); ++i) {
    const int kept = std::clamp(static_cast<int>(bits) - static_cast<int>(i) * 8, 0, 8);
    cidr.address.bytes[i] = static_cast<std::uint8_t>(cidr.address.bytes[i] & (0xff00 >> kept));
  }
  return cidr;
}

// Past the last address it starts again at zero; callers stay inside a prefix.
IpAddr step(IpAddr address, int by) {
  for (std::size_t i = address.size(); i-- > 0;) {
    const int sum = address.bytes[i] + by;
    address.bytes[i] = static_cast<std::uint8_t>(sum & 0xff);
    if (sum >= 0 && sum <= 0xff) break;
  }
  return address;
}

IpAddr next(const IpAddr& address) {
  return step(address, 1);
}
IpAddr previous(const IpAddr& address) {
  return step(address, -1);
}

// The highest address a host may have.
IpAddr last_host(const Cidr& cidr) {
  return cidr.address.family == Family::V4 ? previous(cidr.last()) : cidr.last();
}

bool one_of(const IpAddr& address, const Cidr& cidr) {
  return address.family == cidr.address.family && cidr.contains(address);
}

}  // namespace

bool AddressPlan::has_unusable(const Cidr& cidr) const {
  if (cidr.address.family == Family::V6) return false;
  return taken(cidr.address) || taken(cidr.last());
}

IpAddr AddressPlan::gateway_in(const Cidr& cidr) const {
  IpAddr candidate = next(cidr.address);
  while (taken(candidate) && candidate != cidr.last()) candidate = next(candidate);
  return candidate;
}

Subnet AddressPlan::around(const IpAddr& address) const {
  std::uint8_t bits = usual(address.family);
  Cidr cidr = prefix_of(address, bits);
  while (bits > widest(address.family) && has_unusable(cidr)) cidr = prefix_of(address, --bits);
  return {cidr, gateway_in(cidr)};
}

// A bridge has one subnet a family (its plugin takes no second IPv4 one), so it must hold all.
Result<void> AddressPlan::plan_bridge(Family family, const std::vector<IpAddr>& fixed) {
  std::vector<IpAddr> all;
  std::ranges::copy_if(fixed, std::back_inserter(all),
                       [&](const IpAddr& one) { return one.family == family; });
  std::uint8_t start = usual(family);
  for (const auto& cidr : dynamic_) {
    if (cidr.address.family != family) continue;
    all.push_back(cidr.address);
    start = std::min(start, cidr.prefix);
  }
  if (all.empty()) return {};
  std::uint8_t bits = start;
  Cidr cidr = prefix_of(all.front(), bits);
  const auto fits = [&] {
    return std::ranges::all_of(all, [&](const IpAddr& one) { return cidr.contains(one); });
  };
  while (bits > widest(family) && (!fits() || has_unusable(cidr))) cidr = prefix_of(all.front(), --bits);
  if (!fits()) {
    return fail(ErrorCode::InvalidArgument, "the pods' addresses " + all.front().to_string() + " … " +
                                                all.back().to_string() +
                                                " have no common subnet for a bridge; expected one within /" +
                                                std::to_string(widest(family)) + ", or lab.cni: ptp");
  }
  subnets_.push_back({cidr, gateway_in(cidr)});
  return {};
}

Result<AddressPlan> AddressPlan::make(Cni cni, const std::vector<IpAddr>& fixed,
                                      const std::vector<IpAddr>& foreign, const std::vector<Cidr>& dynamic) {
  AddressPlan plan;
  plan.cni_ = cni;
  plan.dynamic_ = dynamic;
  plan.used_.insert(fixed.begin(), fixed.end());
  plan.used_.insert(foreign.begin(), foreign.end());
  if (cni == Cni::Bridge) {
    TL_TRY(plan.plan_bridge(Family::V4, fixed));
    TL_TRY(plan.plan_bridge(Family::V6, fixed));
    return plan;
  }
  for (const auto& address : fixed) {
    const auto holds = [&](const Subnet& one) { return one_of(address, one.cidr); };
    if (std::ranges::none_of(plan.subnets_, holds)) plan.subnets_.push_back(plan.around(address));
  }
  for (const auto& cidr : dynamic) plan.subnets_.push_back({cidr, plan.gateway_in(cidr)});
  return plan;
}

Result<Subnet> AddressPlan::subnet_of(const IpAddr& address) {
  const auto is_gateway = [&](const Subnet& one) { return one.gateway == address; };
  if (std::ranges::any_of(subnets_, is_gateway)) {
    return fail(ErrorCode::InvalidArgument,
                address.to_string() + " is a gateway of this lab; expected an address nobody has");
  }
  used_.insert(address);
  const auto usable = [&](const Subnet& one) {
    return one_of(address, one.cidr) && !(address == one.cidr.address) && !(address == one.cidr.last());
  };
  if (const auto found = std::ranges::find_if(subnets_, usable); found != subnets_.end()) return *found;
  const auto same_family = [&](const Subnet& one) { return one.cidr.address.family == address.family; };
  if (cni_ == Cni::Bridge && std::ranges::any_of(subnets_, same_family)) {
    return fail(ErrorCode::InvalidArgument,
                address.to_string() + " is not in the bridge's subnet " +
                    std::ranges::find_if(subnets_, same_family)->cidr.to_string());
  }
  subnets_.push_back(around(address));
  return subnets_.back();
}

std::vector<AddressPlan::Range> AddressPlan::ranges(Family family) const {
  std::vector<Range> found;
  for (const auto& cidr : dynamic_) {
    if (cidr.address.family != family) continue;
    const auto holds = [&](const Subnet& one) {
      return one.cidr.address.family == family && one.cidr.contains(cidr);
    };
    const auto subnet = std::ranges::find_if(subnets_, holds);
    if (subnet == subnets_.end()) continue;
    std::set<IpAddr> blocked;
    for (const auto& address : used_) {
      if (one_of(address, cidr)) blocked.insert(address);
    }
    for (const auto& one : subnets_) {
      if (one_of(one.gateway, cidr)) blocked.insert(one.gateway);
    }
    IpAddr start = next(cidr.address);
    const IpAddr end = last_host(cidr);
    for (const auto& address : blocked) {
      if (start < address) found.push_back({*subnet, start, previous(address)});
      if (!(address < start)) start = next(address);
    }
    if (!(end < start)) found.push_back({*subnet, start, end});
  }
  return found;
}

}  // namespace tierlog::lab
