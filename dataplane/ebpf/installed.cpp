#include "dataplane/ebpf/installed.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>
#include <utility>

#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {
namespace {

using policy::Program;

std::string content_of(const Blob& blob) {
  const XXH128_hash_t hash = XXH3_128bits(blob.bytes().data(), blob.bytes().size());
  return std::string(reinterpret_cast<const char*>(&hash), sizeof hash) + std::to_string(blob.size());
}

Result<tl_endpoint> endpoint_entry(const Program& program, const Attached& end) {
  tl_endpoint entry{};
  entry.ifindex = end.ifindex;
  if (end.endpoint == policy::kNone) {
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

}  // namespace

Result<Installed::Placed> Installed::place_class(const Program& program, std::uint32_t index,
                                                 const SlotOf& slot_of) {
  TL_ASSIGN(EncodedClass encoded, encode_class(program, index, groups_, slot_of));
  const std::string content = content_of(encoded.blob);
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

Result<std::uint32_t> Installed::place_root(const Program& program, const std::vector<Attached>& ends) {
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
  const std::uint32_t head = blob.make_room(sizeof(tl_root), 128);
  const std::uint32_t table = blob.make_room(size * kEntry, 128);
  blob.put(head, tl_root{addresses_, epoch_, 0, size - 1});
  blob.put_offset(head + static_cast<std::uint32_t>(offsetof(tl_root, endpoints)), table);
  for (std::size_t i = 0; i < ends.size(); ++i) {
    TL_ASSIGN(tl_endpoint entry, endpoint_entry(program, ends[i]));
    if (ends[i].endpoint != policy::kNone)
      for (const Direction direction : {Direction::Ingress, Direction::Egress}) {
        const Placed& placed = by_class_.at(program.endpoints[ends[i].endpoint].class_of(direction));
        entry.classes[static_cast<int>(direction)] = placed.reference;
        entry.generations[static_cast<int>(direction)] = placed.generation;
      }
    blob.put(table + places[i] * kEntry, entry);
  }
  return arena_.put(blob);
}

Result<std::uint32_t> Installed::prepare(const Program& program, const std::vector<Attached>& ends,
                                         const SlotOf& slot_of) {
  groups_.begin_program();
  by_class_.clear();
  for (auto& [content, placed] : classes_) placed.wanted = false;
  std::set<std::uint32_t> wanted;
  for (const policy::ProgramEndpoint& endpoint : program.endpoints)
    wanted.insert({endpoint.ingress_class, endpoint.egress_class});
  for (const std::uint32_t index : wanted) {
    auto placed = place_class(program, index, slot_of);
    if (!placed) {
      abandon();
      return fail(placed.error());
    }
    by_class_.emplace(index, *placed);
  }
  auto addresses = encode_addresses(program, groups_, identities_);
  if (!addresses) {
    abandon();
    return fail(addresses.error());
  }
  std::uint32_t replaced = 0;
  if (const std::string content = content_of(*addresses); content != address_content_) {
    auto reference = arena_.put(*addresses);
    if (!reference) {
      abandon();
      return fail(reference.error());
    }
    replaced = std::exchange(addresses_, *reference);
    address_content_ = content;
    epoch_ = next_epoch_++;
  }
  auto root = place_root(program, ends);
  if (!root) {
    if (replaced != 0) {
      arena_.free(std::exchange(addresses_, replaced));
      address_content_.clear();
    }
    abandon();
    return fail(root.error());
  }
  replaced_addresses_ = replaced;
  prepared_ = *root;
  return prepared_;
}

// Objects of a Program that was not put into force stay until the next one that is: they cost memory only.
void Installed::abandon() {
  for (auto& [content, placed] : classes_) placed.wanted = true;
  if (prepared_ == 0) return;
  arena_.free(std::exchange(prepared_, 0));
  if (replaced_addresses_ == 0) return;
  arena_.free(std::exchange(addresses_, std::exchange(replaced_addresses_, 0)));
  address_content_.clear();
}

void Installed::commit(std::chrono::steady_clock::time_point now) {
  if (prepared_ == 0) return;
  if (replaced_addresses_ != 0) older_.emplace_back(now, std::exchange(replaced_addresses_, 0));
  if (root_ != 0) older_.emplace_back(now, root_);
  root_ = std::exchange(prepared_, 0);
  std::erase_if(classes_, [&](const auto& entry) {
    if (!entry.second.wanted) older_.emplace_back(now, entry.second.reference);
    return !entry.second.wanted;
  });
}

void Installed::forget_older(std::chrono::steady_clock::time_point until) {
  for (; !older_.empty() && older_.front().first <= until; older_.pop_front()) arena_.free(older_.front().second);
}

std::uint32_t Installed::class_reference(std::uint32_t endpoint_class) const {
  const auto found = by_class_.find(endpoint_class);
  return found == by_class_.end() ? 0 : found->second.reference;
}

}  // namespace tierlog::dataplane::ebpf
