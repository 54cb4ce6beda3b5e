#include "dataplane/ebpf/installed.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>
#include <utility>


namespace tierlog::dataplane::ebpf {
namespace {

using policy::Program;

// A change of one address takes a head; when none is left, the object is written anew.
constexpr std::uint32_t kHeads = 64;
constexpr std::uint32_t kHeadBytes = 32;
static_assert(sizeof(tl_root) <= kHeadBytes);

std::string content_of(const Blob& blob) {
  const XXH128_hash_t hash = XXH3_128bits(blob.bytes().data(), blob.bytes().size());
  return std::string(reinterpret_cast<const char*>(&hash), sizeof hash) + std::to_string(blob.size());
}

Result<tl_endpoint> endpoint_entry(const Program& program, const Attached& end) {
  tl_endpoint entry{};
  entry.ifindex = end.ifindex;
  if (end.station == Station::Closed) {
    entry.flags = TL_CLOSED;
    return entry;
  }
  const policy::ProgramEndpoint& enforced = program.endpoints[end.endpoint];
  const policy::Endpoint& pod = program.cluster->endpoints[enforced.endpoint];
  if (enforced.audited) entry.flags |= TL_AUDITED;
  if (!pod.bridge.empty()) entry.flags |= TL_BRIDGED;
  unsigned part[6];
  if (std::sscanf(pod.mac.c_str(), "%2x:%2x:%2x:%2x:%2x:%2x", &part[0], &part[1], &part[2], &part[3],
                  &part[4], &part[5]) == 6) {
    entry.flags |= TL_HAS_MAC;
    for (std::size_t i = 0; i < 6; ++i) entry.mac[i] = static_cast<std::uint8_t>(part[i]);
  }
  for (const IpAddr& address : pod.addresses) {
    const bool v4 = address.family == Family::V4;
    std::uint32_t& count = v4 ? entry.count4 : entry.count6;
    if (count == TL_END_ADDRESSES)
      return fail(ErrorCode::InvalidArgument, pod.display() + " has more than " +
                                                  std::to_string(TL_END_ADDRESSES) +
                                                  " addresses of one family, the limit");
    if (v4)
      std::memcpy(&entry.v4[count++], address.bytes.data(), 4);
    else
      std::memcpy(entry.v6[count++], address.bytes.data(), 16);
  }
  return entry;
}

tl_failsafe failsafe_entry(const policy::Failsafe& failsafe) {
  tl_failsafe entry{};
  entry.port = failsafe.port;
  entry.protocol = failsafe.protocol;
  if (!failsafe.net) return entry;
  const IpAddr& address = failsafe.net->address;
  entry.family = address.family == Family::V4 ? 4 : 6;
  for (std::uint32_t bit = 0; bit < failsafe.net->prefix; ++bit)
    entry.mask[bit / 8] |= static_cast<std::uint8_t>(0x80u >> bit % 8);
  for (std::size_t i = 0; i < address.size(); ++i)
    entry.net[i] = static_cast<std::uint8_t>(address.bytes[i] & entry.mask[i]);
  return entry;
}

Result<void> check_failsafes(const std::vector<policy::Failsafe>& failsafes) {
  if (failsafes.size() <= TL_FAILSAFES) return {};
  return fail(ErrorCode::InvalidArgument, "failsafe: " + std::to_string(failsafes.size()) + " ports of one direction; " +
                                              std::to_string(TL_FAILSAFES) + " are the limit");
}

}  // namespace

std::uint32_t Installed::generation_of(const std::vector<std::uint32_t>& content) {
  const auto [known, is_new] = host_generations_.try_emplace(content, next_generation_);
  if (is_new) ++next_generation_;
  return known->second;
}

// Its generations stand for all that is asked: failsafe ports, the early stages, the node's own and what passes.
Result<tl_endpoint> Installed::host_entry(const Program& program, const Attached& end) {
  const policy::ProgramHost& host = program.hosts[end.endpoint];
  tl_endpoint entry{};
  entry.ifindex = end.ifindex;
  entry.flags = TL_HOST;
  const auto reference = [&](std::uint32_t index) -> std::uint32_t {
    return index == policy::kNone ? 0 : by_class_.at(index).reference;
  };
  const bool audited = audits_;
  if (audited) entry.flags |= TL_AUDITED;
  std::vector<std::uint32_t> failsafes;
  for (const auto* list : {&program.failsafes.inbound, &program.failsafes.outbound}) {
    TL_TRY(check_failsafes(*list));
    for (const policy::Failsafe& failsafe : *list) {
      const tl_failsafe written = failsafe_entry(failsafe);
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(&written);
      failsafes.insert(failsafes.end(), bytes, bytes + sizeof written);
    }
  }
  if (!audited && host.pre_dnat != policy::kNone) entry.host.pre_dnat = reference(host.pre_dnat);
  for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
    const auto at = static_cast<std::size_t>(direction);
    const std::uint32_t own = host.class_of(direction, policy::Stage::Local);
    const std::uint32_t forward = host.class_of(direction, policy::Stage::Forward);
    entry.classes[at] = reference(own);
    entry.host.forward[at] = reference(forward);
    if (!audited) entry.host.untracked[at] = reference(host.class_of(direction, policy::Stage::Untracked));
    std::vector<std::uint32_t> content{static_cast<std::uint32_t>(direction)};
    for (const std::uint32_t index : {own, forward, direction == Direction::Ingress ? host.pre_dnat : policy::kNone})
      content.push_back(index == policy::kNone ? 0 : by_class_.at(index).generation);
    content.insert(content.end(), failsafes.begin(), failsafes.end());
    entry.generations[at] = generation_of(content);
  }
  return entry;
}

// A rule and its cells: all that an encoder reads of it. Also notes the groups that it names.
std::uint64_t Installed::digest_of(const Program& program, std::uint32_t index) {
  std::optional<std::uint64_t>& digest = digests_[index];
  if (digest) return *digest;
  const policy::ProgramRule& rule = program.rules[index];
  std::vector<std::uint32_t> words{number(rule.id), static_cast<std::uint32_t>(rule.action)};
  const auto add = [&](const std::vector<PortRange>& ranges) {
    words.push_back(static_cast<std::uint32_t>(ranges.size()));
    for (const PortRange& range : ranges) words.push_back(std::uint32_t{range.first} << 16 | range.last);
  };
  for (const policy::Match& match : rule.any_of)
    for (const Cell& cell : cells_of(program, match, groups_)) {
      static_assert(sizeof(Protocols) % sizeof(std::uint32_t) == 0);
      words.insert(words.end(), {cell.source, cell.destination});
      const std::size_t at = words.size();
      words.resize(at + sizeof(Protocols) / sizeof(std::uint32_t));
      std::memcpy(words.data() + at, &cell.protocols, sizeof(Protocols));
      for (const auto* groups : {&cell.not_source, &cell.not_destination}) {
        words.push_back(static_cast<std::uint32_t>(groups->size()));
        words.insert(words.end(), groups->begin(), groups->end());
      }
      for (const Ports* ports : {&cell.source_ports, &cell.destination_ports}) {
        add(ports->ports);
        add(ports->icmp);
        words.push_back(ports->other ? 1 : 0);
      }
    }
  digest = XXH3_64bits(words.data(), words.size() * sizeof(std::uint32_t));
  return *digest;
}

std::string Installed::input_of(const Program& program, std::uint32_t index) {
  const policy::EndpointClass& source = program.classes[index];
  std::vector<std::uint64_t> words{static_cast<std::uint64_t>(source.direction), static_cast<std::uint64_t>(source.stage),
                                   number(source.fallback), static_cast<std::uint64_t>(source.fallback_action)};
  for (const policy::ClassTier& tier : source.tiers) {
    const policy::EndOfTier* end = tier.end == policy::kNone ? nullptr : &program.ends[tier.end];
    words.insert(words.end(), {~std::uint64_t{0}, end == nullptr ? 0 : number(end->id),
                               end == nullptr ? 0 : static_cast<std::uint64_t>(end->action)});
    for (const std::uint32_t policy : tier.policies)
      if (!program.policies[policy].staged)
        for (const std::uint32_t rule : program.policies[policy].rules(source.direction))
          words.push_back(digest_of(program, rule));
  }
  const XXH128_hash_t hash = XXH3_128bits(words.data(), words.size() * sizeof(std::uint64_t));
  return std::string(reinterpret_cast<const char*>(&hash), sizeof hash) + std::to_string(words.size());
}

Result<Installed::Placed> Installed::place_class(const Program& program, std::uint32_t index,
                                                 const SlotOf& slot_of) {
  const std::string input = input_of(program, index);
  if (const auto made = contents_.find(input); made != contents_.end())
    if (const auto known = classes_.find(made->second); known != classes_.end()) {
      known->second.wanted = true;
      return known->second;
    }
  TL_ASSIGN(EncodedClass encoded, encode_class(program, index, groups_, slot_of, limits_));
  const std::string content = content_of(encoded.blob);
  contents_[input] = content;
  if (const auto known = classes_.find(content); known != classes_.end()) {
    known->second.wanted = true;
    return known->second;
  }
  Placed placed{0, next_generation_++, true};
  encoded.blob.put(0, placed.generation);
  TL_ASSIGN(placed.reference, arena_.put(encoded.blob));
  classes_.emplace(content, placed);
  return placed;
}

// The first of its heads says all but the addresses.
Result<Blob> Installed::encode_root(const Program& program, const std::vector<Attached>& stations) {
  // Nothing is judged at a plain interface.
  std::vector<Attached> ends = stations;
  std::erase_if(ends, [](const Attached& end) { return end.station == Station::Plain; });
  constexpr auto kEntry = static_cast<std::uint32_t>(sizeof(tl_endpoint));
  static_assert(sizeof(tl_endpoint) == 128, "entries are found by masking");
  std::uint32_t size = 8;
  std::vector<std::uint32_t> places;
  for (bool fits = false; !fits;) {
    std::vector<bool> taken(size);
    places.clear();
    fits = ends.size() * 2 <= size;
    for (std::size_t i = 0; fits && i < ends.size(); ++i) {
      const std::uint32_t hash = (ends[i].ifindex * 2654435761u) >> 7;
      std::uint32_t probe = 0;
      while (probe < TL_END_PROBES && taken[(hash + probe) % size]) ++probe;
      fits = probe < TL_END_PROBES;
      if (!fits) break;
      taken[(hash + probe) % size] = true;
      places.push_back((hash + probe) % size);
    }
    if (!fits) size *= 2;
  }
  Blob blob;
  const std::uint32_t head = blob.make_room(kHeads * kHeadBytes, 128);
  const std::uint32_t table = blob.make_room(size * kEntry, 128);
  std::vector<policy::Failsafe> failsafes = program.failsafes.inbound;
  failsafes.insert(failsafes.end(), program.failsafes.outbound.begin(), program.failsafes.outbound.end());
  tl_root root{};
  root.endpoint_mask = size - 1;
  root.failsafe_in = static_cast<std::uint32_t>(program.failsafes.inbound.size());
  root.failsafe_out = static_cast<std::uint32_t>(program.failsafes.outbound.size());
  blob.put(head, root);
  blob.put_offset(head + static_cast<std::uint32_t>(offsetof(tl_root, endpoints)), table);
  if (!failsafes.empty()) {
    const std::uint32_t list = blob.make_room(failsafes.size() * sizeof(tl_failsafe), 8);
    for (std::size_t i = 0; i < failsafes.size(); ++i)
      blob.put(list + static_cast<std::uint32_t>(i * sizeof(tl_failsafe)), failsafe_entry(failsafes[i]));
    blob.put_offset(head + static_cast<std::uint32_t>(offsetof(tl_root, failsafes)), list);
  }
  for (std::size_t i = 0; i < ends.size(); ++i) {
    if (ends[i].station == Station::Host) {
      TL_ASSIGN(const tl_endpoint host, host_entry(program, ends[i]));
      blob.put(table + places[i] * kEntry, host);
      continue;
    }
    TL_ASSIGN(tl_endpoint entry, endpoint_entry(program, ends[i]));
    if (ends[i].station == Station::Pod)
      for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
        const Placed& placed = by_class_.at(program.endpoints[ends[i].endpoint].class_of(direction));
        entry.classes[static_cast<int>(direction)] = placed.reference;
        // Audited, a verdict of the same class is another one.
        entry.generations[static_cast<int>(direction)] =
            (entry.flags & TL_AUDITED) != 0 ? generation_of({TL_AUDITED, placed.generation}) : placed.generation;
      }
    blob.put(table + places[i] * kEntry, entry);
  }
  return blob;
}

Result<std::uint32_t> Installed::prepare(const Program& program, const std::vector<Attached>& ends,
                                         const SlotOf& slot_of) {
  TL_TRY(check_limits(program, limits_));
  groups_.begin_program();
  by_class_.clear();
  digests_.assign(program.rules.size(), std::nullopt);
  for (auto& [content, placed] : classes_) placed.wanted = false;
  std::set<std::uint32_t> wanted;
  for (const policy::ProgramEndpoint& endpoint : program.endpoints)
    wanted.insert({endpoint.ingress_class, endpoint.egress_class});
  for (const policy::ProgramHost& host : program.hosts)
    for (const std::uint32_t index : {host.ingress_class, host.egress_class, host.forward_ingress, host.forward_egress,
                                      host.pre_dnat, host.untracked_ingress, host.untracked_egress})
      if (index != policy::kNone) wanted.insert(index);
  for (const std::uint32_t index : wanted) {
    auto placed = place_class(program, index, slot_of);
    if (!placed) {
      abandon();
      return fail(placed.error());
    }
    by_class_.emplace(index, *placed);
  }
  auto root = put_together(program, ends);
  if (!root) abandon();
  return root;
}

// Addresses and root, behind the classes.
Result<std::uint32_t> Installed::put_together(const Program& program, const std::vector<Attached>& ends) {
  prepared_.emplace();
  Prepared& next = *prepared_;
  TL_ASSIGN(next.plan, plan_addresses(program, groups_, identities_, limits_));
  TL_ASSIGN(const Blob blob, encode_root(program, ends));
  next.at = root_;
  next.epoch = epoch_;
  const std::string content = content_of(blob);
  const bool same_ends = root_.object != 0 && root_.heads < kHeads && content == root_.content;
  const bool same_addresses = addresses_ && addresses_->says(next.plan);
  const auto head_at = [&](std::uint32_t head) { return next.at.object + head * kHeadBytes; };
  if (same_ends && same_addresses) return next.root = head_at(root_.heads - 1);
  if (!same_addresses) {
    next.epoch = next_epoch_++;
    std::optional<std::vector<AddressTable::Store>> stores;
    // With other rules beside it, a packet would meet the old rules and the new address.
    if (same_ends && addresses_) stores = addresses_->amend(next.plan, arena_.segment_of(addresses_->reference()));
    if (stores) {
      next.stores = std::move(*stores);
    } else {
      TL_ASSIGN(auto table, AddressTable::encode(next.plan));
      TL_ASSIGN(const std::uint32_t reference, arena_.put(table.blob()));
      table.placed(reference);
      next.addresses = std::move(table);
    }
  }
  if (!same_ends) {
    TL_ASSIGN(next.at.object, arena_.put(blob));
    next.at.content = content;
    next.at.heads = 0;
  }
  std::uint8_t* object = arena_.segment_of(next.at.object).data() + (next.at.object & (TL_SEGMENT_SIZE - 1));
  tl_root head;
  std::memcpy(&head, object, sizeof head);
  head.addresses = (next.addresses ? *next.addresses : *addresses_).reference();
  head.address_epoch = next.epoch;
  next.root = head_at(next.at.heads);
  std::memcpy(object + next.at.heads++ * kHeadBytes, &head, sizeof head);
  return next.root;
}

// Objects of a Program that was not put into force stay until the next one that is: they cost memory only.
void Installed::abandon() {
  for (auto& [content, placed] : classes_) placed.wanted = true;
  if (!prepared_) return;
  if (prepared_->at.object != root_.object) arena_.free(prepared_->at.object);
  if (prepared_->addresses) arena_.free(prepared_->addresses->reference());
  prepared_.reset();
}

// Who an address is comes before the epoch that says so: what is noted with an epoch was judged by its addresses or by
// later ones, and then it is judged again.
void Installed::flip(__u32& root) {
  if (!prepared_) return;
  for (const AddressTable::Store& store : prepared_->stores) {
    auto* word = reinterpret_cast<std::uint32_t*>(arena_.segment_of(addresses_->reference()).data() + store.offset);
    __atomic_store_n(word, store.value, __ATOMIC_RELEASE);
  }
  __atomic_store_n(&root, prepared_->root, __ATOMIC_RELEASE);
}

void Installed::commit(std::chrono::steady_clock::time_point now) {
  if (!prepared_) return;
  Prepared next = std::move(*prepared_);
  prepared_.reset();
  if (next.addresses) {
    if (addresses_) older_.emplace_back(now, addresses_->reference());
    addresses_ = std::move(next.addresses);
  } else if (!next.stores.empty()) {
    addresses_->amended(std::move(next.plan));
  }
  epoch_ = next.epoch;
  if (root_.object != 0 && next.at.object != root_.object) older_.emplace_back(now, root_.object);
  root_ = std::move(next.at);
  std::erase_if(classes_, [&](const auto& entry) {
    if (!entry.second.wanted) older_.emplace_back(now, entry.second.reference);
    return !entry.second.wanted;
  });
  std::erase_if(contents_, [&](const auto& entry) { return !classes_.contains(entry.second); });
}

void Installed::forget_older(std::chrono::steady_clock::time_point until) {
  for (; !older_.empty() && older_.front().first <= until; older_.pop_front()) arena_.free(older_.front().second);
}

std::uint32_t Installed::class_reference(std::uint32_t endpoint_class) const {
  const auto found = by_class_.find(endpoint_class);
  return found == by_class_.end() ? 0 : found->second.reference;
}

}  // namespace tierlog::dataplane::ebpf
