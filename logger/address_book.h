// logger/address_book.h - whose address it was, and when.
//
//   policy/cluster.h --update--> [AddressBook] --peer(address, time)--> store/record.h Peer
//
// An address that is given to another pod a second later must not give it the old pod's traffic: each
// address has a history of holders, asked with the time of the verdict (design D12).
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "base/time.h"
#include "policy/cluster.h"
#include "store/record.h"

namespace tierlog::logger {

class AddressBook {
 public:
  // From `since` on, this is who has which address. `more_sets`: network sets of the policy files.
  void update(const policy::Cluster& cluster, const std::vector<policy::NetworkSet>& more_sets,
              WallTime since);
  // The holder at that time; a network set that covers the address; else private or public.
  store::Peer peer(const IpAddr& address, WallTime at) const;

 private:
  using Holder = std::shared_ptr<const store::Peer>;
  struct Span {
    WallTime from;
    std::optional<WallTime> until;
    Holder holder;
  };
  struct NamedNet {
    Cidr net;
    Holder holder;
  };
  void close_and_forget(const std::unordered_map<IpAddr, Holder>& now, WallTime since);

  std::unordered_map<IpAddr, std::vector<Span>> history_;
  std::vector<NamedNet> nets_;  // longest prefix first
};

}  // namespace tierlog::logger
