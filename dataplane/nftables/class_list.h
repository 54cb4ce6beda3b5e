// dataplane/nftables/class_list.h - one class as ordered lists of what can still match, per kind of traffic.
//
//   EndpointClass --flatten--> [ClassList] --traffic_lists--> a list per protocol and port --build_classes.h-->
//
// All tiers stand in one list, so that a Pass costs no chain of its own. Pure; knows no kernel.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/ids.h"
#include "policy/program.h"

namespace tierlog::dataplane::nftables {

// A rule, an end of tier or the fallback, in the order of evaluation.
struct Slot {
  enum class Kind : std::uint8_t { Log, Pass, Final } kind{};
  RuleId id{};
  std::uint32_t tier = 0;  // ordinal in the class; the fallback stands behind the last
  bool allows = false;     // of Final
  const policy::ProgramRule* rule = nullptr;
  std::string comment;
};

// What a match asks of the peer's address (ingress: the source). In all of the one, in none of the other.
struct AddressTest {
  std::vector<std::uint32_t> in, not_in;  // into Program::sets, sorted
  auto operator<=>(const AddressTest&) const = default;
};

inline constexpr std::uint32_t kNothing = 0xffffffff;

// One way to match a slot, protocol and port apart. Equal values say the same.
struct Item {
  std::uint32_t slot = 0;
  std::uint32_t test = kNothing;  // into ClassList::tests
  std::uint32_t rest = kNothing;  // into ClassList::rests: what else must hold
  auto operator<=>(const Item&) const = default;
};
using ItemList = std::vector<Item>;

// An Item with the traffic it is about.
struct Atom {
  Item item;
  bool v4 = true, v6 = true;
  const policy::Match* match = nullptr;  // nullptr: all traffic
  bool by_name = false;                  // its ports are those of the match's port set, not its ranges
};

struct ClassList {
  Direction direction{};
  std::vector<Slot> slots;
  std::vector<AddressTest> tests;
  std::vector<policy::Match> rests;
  std::vector<Atom> atoms;  // by slot
  std::size_t matches = 0;  // of rules: how long the plain list would be
};

// The ports of one protocol that an atom is about. `portless`: packets whose ports cannot be read too.
struct Reach {
  std::vector<PortRange> ranges;  // ascending; {0, 65535} where it asks for none
  bool portless = false;
  bool is_empty() const { return ranges.empty() && !portless; }
  bool is_all_ports() const;
};
Reach reach_of(const Atom& atom, std::uint8_t protocol);
// Protocols whose packets have a port, or a type and code, that rules may ask for.
bool is_keyed(std::uint8_t protocol);

// Tiers [from, to) of those that decide; `to` = all of them brings the fallback too.
ClassList flatten(const policy::Program& program, const policy::EndpointClass& endpoint_class);

// The lists of one family. Ports of tcp, udp, sctp and udplite are destination ports; of the two ICMPs
// type * 256 + code. Where nothing is said of a port, `otherwise` holds, also for packets that have none.
struct PortList {
  std::uint16_t first = 0, last = 0;
  std::uint32_t list = 0;  // into TrafficLists::lists
};
struct ProtocolLists {
  std::uint32_t otherwise = 0;
  std::vector<PortList> ports;  // ascending, apart; only those that differ from `otherwise`
};
struct TrafficLists {
  std::vector<ItemList> lists;                     // each once, pruned
  std::map<std::uint8_t, ProtocolLists> protocols;  // those that differ from `others`
  std::uint32_t others = 0;
  std::size_t items = 0;  // of all lists
};
// Protocols that a family's packets must be told apart by, and one that stands for all others.
struct Protocols {
  std::set<std::uint8_t> named;
  std::uint8_t other = 0;
};
Protocols protocols_of(const ClassList& list, Family family);
// nullopt: more items than `budget`; the class is not worth it.
std::optional<TrafficLists> traffic_lists(const ClassList& list, Family family, std::size_t budget);

// What remains of a list for an address of which each test is known (`holds`, by test; kept = not known):
// tests are resolved, what cannot be reached is gone.
enum class Truth : std::uint8_t { No, Yes, Open };
ItemList restricted(const ClassList& list, const ItemList& items, const std::vector<Truth>& holds);
// What stands behind a Pass at `position`: the items of later tiers.
ItemList behind_pass(const ClassList& list, const ItemList& items, std::size_t position);

}  // namespace tierlog::dataplane::nftables
