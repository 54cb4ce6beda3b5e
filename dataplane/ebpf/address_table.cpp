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

class AddressEncoder {
 public:
  AddressEncoder(const Program& program, const GroupNumbers& groups, IdentityNumbers& identities, const Limits& limits)
      : program_(program), groups_(groups), identities_(identities), limits_(limits) {}

  Result<Blob> run() {
    head_at_ = blob_.make_room(sizeof(tl_addresses));
    collect_terms();
    collect_flags();
    TL_ASSIGN(const std::uint32_t nobody, identity_of({}, {}));
    blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, nobody)), nobody);
    v4_ = blob_.make_room(65536 * 4);
    v6_ = blob_.make_room(65536 * 4);
    blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, v4)), v4_);
    blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, v6)), v6_);
    TL_TRY(write_nets());
    write_exact();
    if (blob_.size() > TL_SEGMENT_SIZE - TL_FIRST_OFFSET)
      return fail(ErrorCode::InvalidArgument,
                  "the addresses that policies tell apart need " + std::to_string(blob_.size()) + " bytes; " +
                      std::to_string(TL_SEGMENT_SIZE - TL_FIRST_OFFSET) + " are the limit");
    return std::move(blob_);
  }

 private:
  void collect_terms();
  void collect_flags();
  Result<void> write_nets();
  Result<std::uint32_t> identity_of(const Belongs& belongs, const Cidr& net);
  std::string who_names(const std::vector<std::uint32_t>& groups) const;
  void insert(const Cidr& net, std::uint32_t identity);
  std::uint32_t block_below(std::uint32_t entry_at);
  void fill(std::uint32_t entry_at, std::uint32_t identity);
  void write_exact();

  const Program& program_;
  const GroupNumbers& groups_;
  IdentityNumbers& identities_;
  const Limits& limits_;
  Blob blob_;
  std::uint32_t head_at_ = 0, v4_ = 0, v6_ = 0;
  std::map<Term, std::uint32_t> term_index_;
  // By their first term: groups whose terms an address may all have.
  std::map<std::uint32_t, std::vector<std::pair<std::vector<std::uint32_t>, std::uint32_t>>> by_first_;
  std::map<Cidr, Belongs> nets_;  // what is said of exactly this net
  std::map<std::pair<std::uint16_t, std::vector<std::uint32_t>>, std::uint32_t> written_;
  std::vector<std::uint8_t> is_offset_;  // entries of tries that were noted already
  std::vector<std::pair<IpAddr, std::uint32_t>> exact6_;
};

void AddressEncoder::collect_terms() {
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

void AddressEncoder::collect_flags() {
  for (const IpAddr& address : program_.host_addresses) nets_[Cidr::host(address)].flags |= TL_OF_NODE;
  for (const auto& [address, index] : program_.enforced_by_address)
    nets_[Cidr::host(address)].flags |= TL_IS_LOCAL;
}

// The policies whose rules name these groups, as many as a line has room for.
std::string AddressEncoder::who_names(const std::vector<std::uint32_t>& groups) const {
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

Result<std::uint32_t> AddressEncoder::identity_of(const Belongs& belongs, const Cidr& net) {
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
  const auto [known, is_new] = written_.try_emplace({belongs.flags, numbers}, 0);
  if (!is_new) return known->second;
  const std::uint32_t at = blob_.make_room(sizeof(tl_identity) + numbers.size() * 4);
  blob_.put(at, identities_.of(numbers, belongs.flags));
  blob_.put(at + 4, static_cast<std::uint16_t>(numbers.size()));
  blob_.put(at + 6, belongs.flags);
  for (std::uint32_t i = 0; i < numbers.size(); ++i) blob_.put(at + 8 + i * 4, numbers[i]);
  known->second = at;
  return at;
}

// Parents come before what lies in them, so each net is written over what surrounds it.
Result<void> AddressEncoder::write_nets() {
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
    TL_ASSIGN(const std::uint32_t identity, identity_of(belongs, net));
    if (net.address.family == Family::V6 && net.prefix == 128)
      exact6_.emplace_back(net.address, identity);
    else
      insert(net, identity);
    around.emplace_back(net, std::move(belongs));
  }
  return {};
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
  const std::uint32_t block = blob_.make_room(256 * 4);
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

std::uint32_t hash_of(const IpAddr& address) {
  std::uint32_t words[4];
  std::memcpy(words, address.bytes.data(), 16);
  return tl_hash6(words);
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
  constexpr auto kEntry = static_cast<std::uint32_t>(sizeof(tl_exact6));
  const std::uint32_t table = blob_.make_room(size * kEntry);
  for (std::size_t i = 0; i < exact6_.size(); ++i) {
    const std::uint32_t at = table + places[i] * kEntry;
    blob_.put(at, exact6_[i].first.bytes);
    blob_.put_offset(at + 16, exact6_[i].second);
  }
  blob_.put_offset(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, exact6)), table);
  blob_.put(head_at_ + static_cast<std::uint32_t>(offsetof(tl_addresses, exact6_mask)), size - 1);
}

}  // namespace

Result<Blob> encode_addresses(const Program& program, const GroupNumbers& groups,
                              IdentityNumbers& identities, const Limits& limits) {
  return AddressEncoder(program, groups, identities, limits).run();
}

}  // namespace tierlog::dataplane::ebpf
