// lab/addressing.h - which subnet and gateway a pod's address gets: topologies name bare addresses, the
// CNI plugins want "address/prefix" and a gateway.
//
//   topology addresses --> [AddressPlan] --> `ipam` of the CNI configuration (cni_chain.h)
// A pure function of the addresses. ptp routes everything through the gateway, so prefixes only have to
// avoid that some address in use becomes a network or broadcast address, or a gateway.
#pragma once

#include <set>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"
#include "endpoints/topology.h"

namespace tierlog::lab {

using Cni = endpoints::LabOptions::Cni;

struct Subnet {
  Cidr cidr;
  IpAddr gateway;  // on the node's side; nobody else's address
  bool operator==(const Subnet&) const = default;
};

class AddressPlan {
 public:
  // `fixed`: the addresses of this lab's pods. `foreign`: others that must not become gateways. `dynamic`:
  // where pods without an address get theirs. Errors: InvalidArgument (bridge: addresses too far apart
  // for one subnet).
  static Result<AddressPlan> make(Cni cni, const std::vector<IpAddr>& fixed,
                                  const std::vector<IpAddr>& foreign, const std::vector<Cidr>& dynamic);

  // The subnet of a pod's fixed address; makes one for an address that came later. Errors:
  // InvalidArgument when the address is a gateway, or outside a bridge's subnet.
  Result<Subnet> subnet_of(const IpAddr& address);
  // The free stretches of the dynamic prefixes, one per family and gap between fixed addresses.
  struct Range {
    Subnet subnet;
    IpAddr first, last;
  };
  std::vector<Range> ranges(Family family) const;

 private:
  bool taken(const IpAddr& address) const { return used_.contains(address); }
  Subnet around(const IpAddr& address) const;
  Result<void> plan_bridge(Family family, const std::vector<IpAddr>& fixed);
  IpAddr gateway_in(const Cidr& cidr) const;
  bool has_unusable(const Cidr& cidr) const;

  Cni cni_ = Cni::Ptp;
  std::set<IpAddr> used_;
  std::vector<Cidr> dynamic_;
  std::vector<Subnet> subnets_;
};

}  // namespace tierlog::lab
