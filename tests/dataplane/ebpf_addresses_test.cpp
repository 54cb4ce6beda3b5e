// The table of addresses as packets read it: what it says after any sequence of changes, written anew or in place, and
// that what is written in place is seen only with its one store.
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "dataplane/ebpf/address_table.h"
#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {
namespace {

using Store = AddressTable::Store;

// A segment with one table in it.
class Segment {
 public:
  void place(AddressTable table) {
    ASSERT_LE(kAt + table.blob().size(), TL_SEGMENT_SIZE);
    table.blob().place(bytes_.data() + kAt, kAt);
    table_ = std::move(table);
    table_.placed(kAt);
  }
  AddressTable& table() { return table_; }
  std::span<std::uint8_t> bytes() { return bytes_; }
  void store(const std::vector<Store>& stores) {
    for (const Store& one : stores) std::memcpy(bytes_.data() + one.offset, &one.value, sizeof one.value);
  }
  // As the programs look for it.
  tl_identity find(const IpAddr& address) const {
    const auto head = at<tl_addresses>(kAt);
    std::uint32_t entry = 0;
    if (address.family == Family::V6) entry = exact(head, address);
    if (entry == 0) {
      const auto& bytes = address.bytes;
      const std::uint32_t first = static_cast<std::uint32_t>(bytes[0] << 8 | bytes[1]) * 4;
      entry = at<std::uint32_t>((address.family == Family::V4 ? head.v4 : head.v6) + first);
      for (std::size_t i = 2; entry >> 31 != 0 && i < address.size(); ++i)
        entry = at<std::uint32_t>((entry & 0x7fffffffu) + bytes[i] * 4u);
    }
    return at<tl_identity>(entry == 0 ? head.nobody : entry);
  }

 private:
  static constexpr std::uint32_t kAt = TL_FIRST_OFFSET;

  template <typename T>
  T at(std::uint32_t offset) const {
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }
  std::uint32_t exact(const tl_addresses& head, const IpAddr& address) const {
    std::uint32_t words[4];
    std::memcpy(words, address.bytes.data(), 16);
    const std::uint32_t hash = tl_hash6(words);
    for (std::uint32_t i = 0; i < TL_SET_PROBES; ++i) {
      const auto entry =
          at<tl_exact6>(head.exact6 + ((hash + i) & head.exact6_mask) * static_cast<std::uint32_t>(sizeof(tl_exact6)));
      if (entry.identity == 0) return 0;
      if (std::memcmp(entry.address, address.bytes.data(), 16) == 0) return entry.identity;
    }
    return 0;
  }

  std::vector<std::uint8_t> bytes_ = std::vector<std::uint8_t>(TL_SEGMENT_SIZE);
  AddressTable table_;
};

// What is said of every net, and the plan of it.
class World {
 public:
  std::map<Cidr, Identity> nets;

  AddressPlan plan() {
    AddressPlan plan;
    const auto add = [&](const Identity& identity) {
      const std::uint32_t number = numbers_.of(identity);
      plan.identities.try_emplace(number, identity);
      return number;
    };
    plan.nobody = add({});
    for (const auto& [net, identity] : nets) plan.nets.emplace_back(net, add(identity));
    return plan;
  }
  std::uint32_t number_of(const IpAddr& address) {
    const std::pair<const Cidr, Identity>* best = nullptr;
    for (const auto& entry : nets)
      if (entry.first.contains(address) && (best == nullptr || entry.first.prefix > best->first.prefix)) best = &entry;
    return numbers_.of(best == nullptr ? Identity{} : best->second);
  }

 private:
  IdentityNumbers numbers_;
};

// Addresses near each other, so that nets hold some and paths are shared; and one far away.
std::vector<IpAddr> universe() {
  std::vector<IpAddr> all;
  for (const char* net : {"10.1.0.", "10.1.1.", "10.2.0.", "192.168.7."})
    for (const int last : {0, 1, 2, 127, 128, 255}) all.push_back(*IpAddr::parse(net + std::to_string(last)));
  for (const char* net : {"fd00::", "fd00::1:", "fd00:0:0:1::", "2001:db8::"})
    for (const int last : {0, 1, 2, 9, 80, 99}) all.push_back(*IpAddr::parse(net + std::to_string(last)));
  return all;
}

Identity random_identity(std::mt19937& dice) {
  Identity identity;
  identity.flags = static_cast<std::uint16_t>(dice() % 3);
  for (std::uint32_t group = 1; group <= 6; ++group)
    if (dice() % 3 == 0) identity.groups.push_back(group);
  return identity;
}

// Where the table says another thing than the world.
std::size_t differing(const Segment& segment, World& world, const std::vector<IpAddr>& all) {
  std::size_t count = 0;
  for (const IpAddr& address : all) count += segment.find(address).number == world.number_of(address) ? 0 : 1;
  return count;
}

TEST(EbpfAddresses, ChangesOfOneAddressAreWrittenInPlace) {
  const std::vector<IpAddr> all = universe();
  std::size_t in_place = 0, anew = 0, seen_too_early = 0, not_seen = 0;
  for (unsigned seed = 1; seed <= 10 && !HasFailure(); ++seed) {
    std::mt19937 dice(seed);
    World world;
    for (const char* net : {"10.1.0.0/16", "10.1.1.0/24", "10.1.0.0/30", "fd00::/16", "fd00::1:0/112", "192.168.7.128/25"})
      if (dice() % 2 == 0) world.nets[*Cidr::parse(net)] = random_identity(dice);
    Segment segment;
    {
      auto table = AddressTable::encode(world.plan());
      ASSERT_TRUE(table) << table.error().message;
      segment.place(std::move(*table));
    }
    for (int step = 0; step < 200; ++step) {
      World before = world;
      // One address, or one of each family; now and then put into force only with the next one.
      for (int i = dice() % 4 == 0 ? 2 : 1; i > 0; --i) {
        const IpAddr& address = all[dice() % all.size()];
        if (dice() % 3 == 0)
          world.nets.erase(Cidr::host(address));
        else
          world.nets[Cidr::host(address)] = random_identity(dice);
      }
      const AddressPlan plan = world.plan();
      const auto stores = segment.table().amend(plan, segment.bytes());
      seen_too_early += differing(segment, before, all);
      if (!stores) {
        ++anew;
        auto table = AddressTable::encode(plan);
        ASSERT_TRUE(table) << table.error().message;
        segment.place(std::move(*table));
      } else if (dice() % 8 == 0) {
        world = before;  // not wanted after all
        continue;
      } else {
        ++in_place;
        ASSERT_LE(stores->size(), 2u);
        not_seen += !stores->empty() && differing(segment, world, all) > 0 ? 1 : 0;
        segment.store(*stores);
        segment.table().amended(plan);
      }
      ASSERT_EQ(differing(segment, world, all), 0u) << "seed " << seed << " step " << step;
    }
  }
  EXPECT_EQ(seen_too_early, 0u);
  EXPECT_GT(not_seen, 300u) << "stores that change nothing prove nothing";
  EXPECT_GT(in_place, 1000u);
  EXPECT_GT(anew, 20u);
}

struct Unfit {
  const char* what;
  std::vector<const char*> nets;
};

TEST(EbpfAddresses, WhatTakesMoreThanOneStoreIsWrittenAnew) {
  const std::vector<Unfit> cases{
      {"two addresses of one family", {"10.1.0.1", "10.1.0.2"}},
      {"a net", {"10.1.0.0/24"}},
      {"two IPv6 addresses", {"fd00::1", "fd00::2"}},
      {"every address", {"0.0.0.0/0"}},
  };
  for (const Unfit& unfit : cases) {
    SCOPED_TRACE(unfit.what);
    World world;
    world.nets[*Cidr::parse("10.1.0.9")] = {0, {1}};
    Segment segment;
    auto table = AddressTable::encode(world.plan());
    ASSERT_TRUE(table) << table.error().message;
    segment.place(std::move(*table));
    for (const char* net : unfit.nets) world.nets[*Cidr::parse(net)] = {0, {2}};
    EXPECT_FALSE(segment.table().amend(world.plan(), segment.bytes()));
    EXPECT_EQ(segment.find(*IpAddr::parse("10.1.0.1")).number, segment.find(*IpAddr::parse("9.9.9.9")).number);
  }
}

// A pod has an address of each family, and both change at once.
TEST(EbpfAddresses, OneOfEachFamilyFits) {
  World world;
  Segment segment;
  auto table = AddressTable::encode(world.plan());
  ASSERT_TRUE(table) << table.error().message;
  segment.place(std::move(*table));
  for (const char* net : {"10.1.0.1", "fd00::1"}) world.nets[*Cidr::parse(net)] = {TL_IS_LOCAL, {2, 7}};
  const auto stores = segment.table().amend(world.plan(), segment.bytes());
  ASSERT_TRUE(stores);
  EXPECT_EQ(stores->size(), 2u);
  segment.store(*stores);
  for (const char* address : {"10.1.0.1", "fd00::1"}) {
    const tl_identity found = segment.find(*IpAddr::parse(address));
    EXPECT_EQ(found.number, world.number_of(*IpAddr::parse(address)));
    EXPECT_EQ(found.count, 2u);
    EXPECT_EQ(found.flags, TL_IS_LOCAL);
  }
}

}  // namespace
}  // namespace tierlog::dataplane::ebpf
