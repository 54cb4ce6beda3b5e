// dataplane/ebpf/address_table.h - which groups every address is in, as an object of the arena.
//
//   sets, port sets, endpoints --[plan_addresses]--> AddressPlan --[AddressTable]--> arena (layout.h, struct tl_addresses)
//
// Addresses that are in the same groups share an identity, whose number never gets another meaning: what is
// remembered by numbers (the tuple cache) needs no clearing. Where one address alone is in other groups than before, that
// one is written in the table that packets read (docs/decisions/0043-one-address-in-place.md).
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "dataplane/ebpf/arena.h"
#include "dataplane/ebpf/blob.h"
#include "dataplane/ebpf/cells.h"
#include "dataplane/ebpf/limits.h"
#include "policy/program.h"

namespace tierlog::dataplane::ebpf {

struct Identity {
  std::uint16_t flags = 0;             // TL_OF_NODE, TL_IS_LOCAL
  std::vector<std::uint32_t> groups;   // numbers, ascending

  auto operator<=>(const Identity&) const = default;
};

class IdentityNumbers {
 public:
  std::uint32_t of(const Identity& identity) {
    const auto next = static_cast<std::uint32_t>(numbers_.size() + 1);
    return numbers_.try_emplace(identity, next).first->second;
  }

 private:
  std::map<Identity, std::uint32_t> numbers_;
};

// Who every address is: the most specific net that holds it counts, and has all that surrounds it.
struct AddressPlan {
  std::vector<std::pair<Cidr, std::uint32_t>> nets;  // with an identity's number; what surrounds a net stands before it
  std::uint32_t nobody = 0;                          // the number of an address in no net
  std::map<std::uint32_t, Identity> identities;      // by number: all of them

  // The number of the most specific net around `address` that is not the address alone.
  std::uint32_t around(const IpAddr& address) const;
};

// For all groups in use. Errors: InvalidArgument with the limit and the number that is beyond it.
Result<AddressPlan> plan_addresses(const policy::Program& program, const GroupNumbers& groups, IdentityNumbers& identities,
                                   const Limits& limits = {});

// A table in the arena, and what is known of it to change single addresses in it.
class AddressTable {
 public:
  // The whole table, with room for what may be written later. Errors: InvalidArgument, larger than a segment.
  static Result<AddressTable> encode(const AddressPlan& plan);
  const Blob& blob() const { return blob_; }
  // It lies at `reference` now; forgets the bytes.
  void placed(std::uint32_t reference);
  std::uint32_t reference() const { return reference_; }
  bool says(const AddressPlan& plan) const { return nets_ == plan.nets; }

  // One word that packets read.
  struct Store {
    std::uint32_t offset = 0, value = 0;  // in the segment
  };
  // What makes the table say what `plan` says, where that is one store for each address family: then no packet sees a
  // part of the change, since it has addresses of one family and the change is one address's. Writes to `segment`, the
  // table's, only what no packet can reach before the stores. Nothing: it takes more than that, or there is no room.
  std::optional<std::vector<Store>> amend(const AddressPlan& plan, std::span<std::uint8_t> segment);
  // The stores were made. (Those that were not may be offered again.)
  void amended(AddressPlan plan) { nets_ = std::move(plan.nets); }

 private:
  friend class AddressEncoder;
  std::optional<Store> in_trie(const IpAddr& address, std::uint32_t identity, std::uint8_t* segment);
  std::optional<Store> in_exact6(const IpAddr& address, std::uint32_t identity, std::uint8_t* segment);
  std::optional<std::uint32_t> identity_at(const AddressPlan& plan, std::uint32_t number, std::uint8_t* segment);
  std::optional<std::uint32_t> take(std::uint32_t bytes);

  Blob blob_;
  std::uint32_t reference_ = 0;
  // Offsets: in the object, once it is placed in the segment.
  std::map<std::uint32_t, std::uint32_t> identities_;  // by number
  std::uint32_t spare_ = 0, end_ = 0;                  // room behind what is in use
  std::vector<std::pair<Cidr, std::uint32_t>> nets_;   // what it says, as in the plan
};

}  // namespace tierlog::dataplane::ebpf
