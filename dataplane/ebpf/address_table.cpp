#include "dataplane/ebpf/address_table.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <set>
#include <string>

#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {
namespace {

using policy::Program;

constexpr std::uint32_t kBlock = 1u << 31;

// What an address is, before it has a number: terms by their place in a list of all, and flags.
struct Belongs {
  std::vector<std::uint32_t> terms;  // ascending
  std::uint16_t flags = 0;
};

class AddressPlanner {
 public:
  AddressPlanner(const Program& program, const GroupNumbers& groups, IdentityNumbers& identities, const Limits& limits)
      : program_(program), groups_(groups), identities_(identities), limits_(limits) {}

  Result<AddressPlan> run();

 private:
  void collect_terms();
  void collect_flags();
  Result<std::uint32_t> identity_of(const Belongs& belongs, const Cidr& net);
  std::string who_names(const std::vector<std::uint32_t>& groups) const;

  const Program& program_;
  const GroupNumbers& groups_;
  IdentityNumbers& identities_;
  const Limits& limits_;
  AddressPlan plan_;
  std::map<Term, std::uint32_t> term_index_;
  // By their first term: groups whose terms an address may all have.
  std::map<std::uint32_t, std::vector<std::pair<std::vector<std::uint32_t>, std::uint32_t>>> by_first_;
  std::map<Cidr, Belongs> nets_;  // what is said of exactly this net
};

void AddressPlanner::collect_terms() {
  for (const auto& [group, number] : groups_.used())
    for (const Term& term : group) term_index_.try_emplace(term, 0);
  std::uint32_t next = 0;
  for (auto& [term, index] : term_index_) index = next++;
  for (const auto& [group, number] : groups_.used()) {
    std::vector<std::uint32_t> terms;
    for (const Term& term : group) terms.push_back(term_index_.at(term));
    std::sort(terms.begin(), terms.end());
    by_first_[terms.front()].emplace_back(std::move(terms), number);
  }
  for (const auto& [term, index] : term_index_) {
    if (!term.of_port_set) {
      for (const Cidr& member : program_.sets[term.set].members) nets_[member].terms.push_back(index);
      continue;
    }
    for (const policy::EndpointPort& member : program_.port_sets[term.set].members)
      if (member.protocol == term.protocol && member.port == term.port)
        nets_[Cidr::host(member.address)].terms.push_back(index);
  }
}

void AddressPlanner::collect_flags() {
  for (const IpAddr& address : program_.host_addresses) nets_[Cidr::host(address)].flags |= TL_OF_NODE;
  for (const auto& [address, index] : program_.enforced_by_address)
    nets_[Cidr::host(address)].flags |= TL_IS_LOCAL;
}

// The policies whose rules name these groups, as many as a line has room for.
std::string AddressPlanner::who_names(const std::vector<std::uint32_t>& groups) const {
  std::set<Term> terms;
  for (const auto& [group, number] : groups_.used())
    if (std::binary_search(groups.begin(), groups.end(), number)) terms.insert(group.begin(), group.end());
  const auto has = [&](bool of_port_set, std::uint32_t set) {
    return std::any_of(terms.begin(), terms.end(),
                       [&](const Term& term) { return term.of_port_set == of_port_set && term.set == set; });
  };
  const auto names_one = [&](const policy::PeerMatch& peer) {
    for (const auto* list : {&peer.in_sets, &peer.not_in_sets})
      for (const std::uint32_t set : *list)
        if (has(false, set)) return true;
    for (const auto& set : {peer.port_set, peer.not_port_set, peer.service_ports})
      if (set && has(true, *set)) return true;
    return false;
  };
  std::string names;
  std::set<std::uint32_t> told;
  for (const policy::ProgramRule& rule : program_.rules)
    for (const policy::Match& match : rule.any_of)
      if ((names_one(match.source) || names_one(match.destination)) && told.insert(rule.policy).second &&
          names.size() < 200)
        names += (names.empty() ? "" : ", ") + program_.policies[rule.policy].display;
  return names;
}

Result<std::uint32_t> AddressPlanner::identity_of(const Belongs& belongs, const Cidr& net) {
  std::vector<std::uint32_t> numbers;
  for (const std::uint32_t term : belongs.terms) {
    const auto begin_here = by_first_.find(term);
    if (begin_here == by_first_.end()) continue;
    for (const auto& [terms, number] : begin_here->second)
      if (std::includes(belongs.terms.begin(), belongs.terms.end(), terms.begin(), terms.end()))
        numbers.push_back(number);
  }
  std::sort(numbers.begin(), numbers.end());
  if (numbers.size() > limits_.sets)
    return fail(ErrorCode::InvalidArgument, who_names(numbers) + ": address " + net.to_string() + " is in " +
                                                std::to_string(numbers.size()) + " of the sets that policies name" +
                                                limit_text(&Limits::sets, limits_));
  Identity identity{belongs.flags, std::move(numbers)};
  const std::uint32_t number = identities_.of(identity);
  plan_.identities.try_emplace(number, std::move(identity));
  return number;
}

// Parents come before what lies in them, so each net is said over what surrounds it.
Result<AddressPlan> AddressPlanner::run() {
  collect_terms();
  collect_flags();
  TL_ASSIGN(plan_.nobody, identity_of({}, {}));
  plan_.nets.reserve(nets_.size());
  std::vector<std::pair<Cidr, Belongs>> around;
  for (const auto& [net, own] : nets_) {
    while (!around.empty() && !around.back().first.contains(net)) around.pop_back();
    Belongs belongs = own;
    if (!around.empty()) {
      const Belongs& outer = around.back().second;
      belongs.terms.insert(belongs.terms.end(), outer.terms.begin(), outer.terms.end());
    }
    std::sort(belongs.terms.begin(), belongs.terms.end());
    belongs.terms.erase(std::unique(belongs.terms.begin(), belongs.terms.end()), belongs.terms.end());
    TL_ASSIGN(const std::uint32_t number, identity_of(belongs, net));
    plan_.nets.emplace_back(net, number);
    around.emplace_back(net, std::move(belongs));
  }
  return std::move(plan_);
}

bool is_exact6(const Cidr& net) {
  return net.address.family == Family::V6 && net.prefix == 128;
}

std::uint32_t hash_of(const IpAddr& address) {
  std::uint32_t words[4];
  std::memcpy(words, address.bytes.data(), 16);
  return tl_hash6(words);
}

std::uint32_t word_at(const std::uint8_t* segment, std::uint32_t offset) {
  std::uint32_t value;
  std::memcpy(&value, segment + offset, sizeof value);
  return value;
}

void put_word(std::uint8_t* segment, std::uint32_t offset, std::uint32_t value) {
  std::memcpy(segment + offset, &value, sizeof value);
}

// struct tl_identity and what follows it.
std::vector<std::uint32_t> words_of(const Identity& identity, std::uint32_t number) {
  const tl_identity head{number, static_cast<__u16>(identity.groups.size()), identity.flags};
  std::vector<std::uint32_t> words(sizeof head / 4 + identity.groups.size());
  std::memcpy(words.data(), &head, sizeof head);
  std::copy(identity.groups.begin(), identity.groups.end(), words.begin() + sizeof head / 4);
  return words;
}

tl_addresses head_of(const std::uint8_t* segment, std::uint32_t reference) {
  tl_addresses head;
  std::memcpy(&head, segment + (reference & (TL_SEGMENT_SIZE - 1)), sizeof head);
  return head;
}

// Room behind a table for what changes of single addresses need: a new path takes 2 KiB, an identity some bytes.
constexpr std::uint32_t kSpare = 65536;
constexpr std::uint32_t kMost = TL_SEGMENT_SIZE - TL_FIRST_OFFSET;
constexpr auto kExactEntry = static_cast<std::uint32_t>(sizeof(tl_exact6));
constexpr std::uint32_t kBlockBytes = 256 * 4;

}  // namespace

class AddressEncoder {
 public:
  explicit AddressEncoder(const AddressPlan& plan) : plan_(plan) {}

  Result<AddressTable> run() {
    head_at_ = blob_.make_room(sizeof(tl_addresses));
    blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, nobody)), identity_at(plan_.nobody));
    v4_ = blob_.make_room(65536 * 4);
    v6_ = blob_.make_room(65536 * 4);
    blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, v4)), v4_);
    blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, v6)), v6_);
    for (const auto& [net, number] : plan_.nets)
      if (is_exact6(net))
        exact6_.emplace_back(net.address, identity_at(number));
      else
        insert(net, identity_at(number));
    write_exact();
    if (blob_.size() > kMost)
      return fail(ErrorCode::InvalidArgument, "the addresses that policies tell apart need " +
                                                  std::to_string(blob_.size()) + " bytes; " + std::to_string(kMost) +
                                                  " are the limit");
    table_.spare_ = blob_.make_room(0);
    blob_.make_room(std::min(kSpare, kMost - blob_.size()));
    table_.end_ = blob_.size();
    table_.nets_ = plan_.nets;
    table_.blob_ = std::move(blob_);
    return std::move(table_);
  }

 private:
  std::uint32_t identity_at(std::uint32_t number);
  void insert(const Cidr& net, std::uint32_t identity);
  std::uint32_t block_below(std::uint32_t entry_at);
  void fill(std::uint32_t entry_at, std::uint32_t identity);
  void write_exact();

  const AddressPlan& plan_;
  AddressTable table_;
  Blob blob_;
  std::uint32_t head_at_ = 0, v4_ = 0, v6_ = 0;
  std::vector<std::pair<IpAddr, std::uint32_t>> exact6_;
};

std::uint32_t AddressEncoder::identity_at(std::uint32_t number) {
  const auto [known, is_new] = table_.identities_.try_emplace(number, 0);
  if (!is_new) return known->second;
  const std::vector<std::uint32_t> words = words_of(plan_.identities.at(number), number);
  known->second = blob_.make_room(words.size() * 4);
  for (std::uint32_t i = 0; i < words.size(); ++i) blob_.put(known->second + i * 4, words[i]);
  return known->second;
}

void AddressEncoder::fill(std::uint32_t entry_at, std::uint32_t identity) {
  const auto value = blob_.get<std::uint32_t>(entry_at);
  if (value == 0)
    blob_.put_offset(entry_at, identity);
  else
    blob_.put(entry_at, identity);
}

// The block that an entry leads to; a new one begins with what the entry said of all its addresses.
std::uint32_t AddressEncoder::block_below(std::uint32_t entry_at) {
  const auto value = blob_.get<std::uint32_t>(entry_at);
  if ((value & kBlock) != 0) return value & ~kBlock;
  const std::uint32_t block = blob_.make_room(kBlockBytes);
  for (std::uint32_t i = 0; value != 0 && i < 256; ++i) blob_.put_offset(block + i * 4, value);
  if (value == 0)
    blob_.put_offset(entry_at, block, kBlock);
  else
    blob_.put(entry_at, block | kBlock);
  return block;
}

void AddressEncoder::insert(const Cidr& net, std::uint32_t identity) {
  const bool v4 = net.address.family == Family::V4;
  const auto& bytes = net.address.bytes;
  std::uint32_t table = v4 ? v4_ : v6_, bits = 16,
                from = static_cast<std::uint32_t>(bytes[0] << 8 | bytes[1]);
  std::size_t next = 2;
  std::uint32_t below = net.prefix;
  while (below > bits) {
    table = block_below(table + from * 4);
    from = bytes[next++];
    below -= bits;
    bits = 8;
  }
  const std::uint32_t count = 1u << (bits - below);
  for (std::uint32_t i = 0; i < count; ++i) fill(table + (from + i) * 4, identity);
}

void AddressEncoder::write_exact() {
  std::uint32_t size = 8;
  std::vector<std::uint32_t> places;
  for (bool fits = false; !fits;) {
    std::vector<bool> taken(size);
    places.clear();
    fits = exact6_.size() * 2 <= size;
    for (std::size_t i = 0; fits && i < exact6_.size(); ++i) {
      const std::uint32_t hash = hash_of(exact6_[i].first);
      std::uint32_t probe = 0;
      while (probe < TL_SET_PROBES && taken[(hash + probe) % size]) ++probe;
      fits = probe < TL_SET_PROBES;
      if (!fits) break;
      taken[(hash + probe) % size] = true;
      places.push_back((hash + probe) % size);
    }
    if (!fits) size *= 2;
  }
  const std::uint32_t table = blob_.make_room(size * kExactEntry);
  for (std::size_t i = 0; i < exact6_.size(); ++i) {
    const std::uint32_t at = table + places[i] * kExactEntry;
    blob_.put(at, exact6_[i].first.bytes);
    blob_.put_offset(at + 16, exact6_[i].second);
  }
  blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, exact6)), table);
  blob_.put(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, exact6_mask)), size - 1);
}

Result<AddressPlan> plan_addresses(const Program& program, const GroupNumbers& groups, IdentityNumbers& identities,
                                   const Limits& limits) {
  return AddressPlanner(program, groups, identities, limits).run();
}

std::uint32_t AddressPlan::around(const IpAddr& address) const {
  const auto less = [](const auto& entry, const Cidr& net) { return entry.first < net; };
  Cidr net = Cidr::host(address);
  while (net.prefix > 0) {
    --net.prefix;
    net.address.bytes[net.prefix / 8] &= static_cast<std::uint8_t>(0xff00u >> net.prefix % 8);
    const auto found = std::lower_bound(nets.begin(), nets.end(), net, less);
    if (found != nets.end() && found->first == net) return found->second;
  }
  return nobody;
}

Result<AddressTable> AddressTable::encode(const AddressPlan& plan) {
  return AddressEncoder(plan).run();
}

void AddressTable::placed(std::uint32_t reference) {
  reference_ = reference;
  const std::uint32_t base = reference & (TL_SEGMENT_SIZE - 1);
  for (auto& [number, offset] : identities_) offset += base;
  spare_ += base;
  end_ += base;
  blob_ = {};
}

std::optional<std::uint32_t> AddressTable::take(std::uint32_t bytes) {
  if (end_ - spare_ < bytes) return std::nullopt;
  return std::exchange(spare_, spare_ + bytes);
}

std::optional<std::uint32_t> AddressTable::identity_at(const AddressPlan& plan, std::uint32_t number, std::uint8_t* segment) {
  if (const auto known = identities_.find(number); known != identities_.end()) return known->second;
  const std::vector<std::uint32_t> words = words_of(plan.identities.at(number), number);
  const auto at = take((static_cast<std::uint32_t>(words.size()) * 4 + 7) / 8 * 8);
  if (!at) return std::nullopt;
  std::memcpy(segment + *at, words.data(), words.size() * 4);
  identities_.emplace(number, *at);
  return at;
}

// Blocks that are missing on the way are written with the entry in them: what packets see of all is one store.
std::optional<AddressTable::Store> AddressTable::in_trie(const IpAddr& address, std::uint32_t identity,
                                                         std::uint8_t* segment) {
  const auto head = head_of(segment, reference_);
  const auto& bytes = address.bytes;
  std::uint32_t at = head.v4 + static_cast<std::uint32_t>(bytes[0] << 8 | bytes[1]) * 4;
  std::size_t next = 2;
  for (; next < address.size() && (word_at(segment, at) & kBlock) != 0; ++next)
    at = (word_at(segment, at) & ~kBlock) + bytes[next] * 4u;
  if (next == address.size()) return Store{at, identity};
  std::optional<Store> seen;
  for (const std::uint32_t before = word_at(segment, at); next < address.size(); ++next) {
    const auto block = take(kBlockBytes);
    if (!block) return std::nullopt;
    for (std::uint32_t i = 0; i < 256; ++i) put_word(segment, *block + i * 4, before);
    if (seen)
      put_word(segment, at, *block | kBlock);
    else
      seen = Store{at, *block | kBlock};
    at = *block + bytes[next] * 4u;
  }
  put_word(segment, at, identity);
  return seen;
}

std::optional<AddressTable::Store> AddressTable::in_exact6(const IpAddr& address, std::uint32_t identity,
                                                           std::uint8_t* segment) {
  const auto head = head_of(segment, reference_);
  const std::uint32_t hash = hash_of(address);
  for (std::uint32_t probe = 0; probe < TL_SET_PROBES; ++probe) {
    const std::uint32_t at = head.exact6 + ((hash + probe) & head.exact6_mask) * kExactEntry;
    const bool is_free = word_at(segment, at + 16) == 0;
    if (!is_free && std::memcmp(segment + at, address.bytes.data(), 16) != 0) continue;
    std::memcpy(segment + at, address.bytes.data(), 16);
    return Store{at + 16, identity};
  }
  return std::nullopt;
}

std::optional<std::vector<AddressTable::Store>> AddressTable::amend(const AddressPlan& plan,
                                                                    std::span<std::uint8_t> segment) {
  std::optional<std::uint32_t> v4, v6;  // numbers
  IpAddr address4, address6;
  const auto differs = [&](const Cidr& net, std::uint32_t number) {
    const bool is_v4 = net.address.family == Family::V4;
    std::optional<std::uint32_t>& slot = is_v4 ? v4 : v6;
    if (net.prefix != net.address.bits() || slot) return false;
    slot = number;
    (is_v4 ? address4 : address6) = net.address;
    return true;
  };
  auto old = nets_.begin();
  for (auto now = plan.nets.begin(); old != nets_.end() || now != plan.nets.end();) {
    const bool is_gone = now == plan.nets.end() || (old != nets_.end() && old->first < now->first);
    const bool is_new = !is_gone && (old == nets_.end() || now->first < old->first);
    if (is_gone) {
      if (!differs(old->first, plan.around(old->first.address))) return std::nullopt;
      ++old;
      continue;
    }
    if ((is_new || old->second != now->second) && !differs(now->first, now->second)) return std::nullopt;
    if (!is_new) ++old;
    ++now;
  }
  std::vector<Store> stores;
  for (const auto& [number, address] : {std::pair(v4, address4), std::pair(v6, address6)}) {
    if (!number) continue;
    const auto identity = identity_at(plan, *number, segment.data());
    if (!identity) return std::nullopt;
    const auto store = address.family == Family::V4 ? in_trie(address, *identity, segment.data())
                                                    : in_exact6(address, *identity, segment.data());
    if (!store) return std::nullopt;
    stores.push_back(*store);
  }
  return stores;
}

}  // namespace tierlog::dataplane::ebpf
