#include "dataplane/ebpf/older_maps.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <tuple>
#include <utility>

#include "dataplane/ebpf/dump.h"

namespace tierlog::dataplane::ebpf {
namespace {

namespace fs = std::filesystem;

// Layout 2: a slot had its rule and nothing else, and losses stood once. All else is as it is now.
constexpr std::uint32_t kBareSlots = 2;
constexpr std::uint32_t kLossesOfBareSlots = 4;

template <typename T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}
template <typename T>
T from_bytes(const std::string& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof value);
  return value;
}

bool info_of(const Fd& map, bpf_map_info& info) {
  std::uint32_t length = sizeof info;
  return map && ::bpf_obj_get_info_by_fd(map.get(), &info, &length) == 0;
}

// Entries of a map whose content nobody here knows.
std::uint64_t count_entries(const Fd& map, const bpf_map_info& info) {
  if (info.type != BPF_MAP_TYPE_HASH) return 0;
  std::vector<char> key(info.key_size), next(info.key_size);
  std::uint64_t count = 0;
  for (const char* from = nullptr;
       count < info.max_entries && ::bpf_map_get_next_key(map.get(), from, next.data()) == 0; ++count) {
    key = next;
    from = key.data();
  }
  return count;
}

bool have_other_sizes(const std::string& pins, const Limits& limits) {
  for (const PinnedMap& wanted : pinned_maps(limits)) {
    const Fd map(::bpf_obj_get((pins + "/" + wanted.name).c_str()));
    bpf_map_info info{};
    if (info_of(map, info) && info.max_entries != wanted.max_entries) return true;
  }
  return false;
}

tl_counter sum(const std::vector<std::uint64_t>& words) {
  return {words[0], words[1], words[2], words[3]};
}
void add(tl_counter& to, const tl_counter& more) {
  to.packets += more.packets;
  to.bytes += more.bytes;
  to.messages += more.messages;
  to.frames += more.frames;
}

}  // namespace

Result<std::unique_ptr<OlderMaps>> OlderMaps::find(const std::string& pins, const Limits& limits) {
  const fs::path own(pins);
  std::error_code error;
  std::vector<Folder> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(own.parent_path(), error)) {
    Folder folder;
    folder.path = entry.path().string();
    folder.name = entry.path().filename().string();
    if (folder.name == own.filename()) continue;
    std::sscanf(folder.name.c_str(), "v%u-%u", &folder.layout, &folder.number);
    found.push_back(std::move(folder));
  }
  if (error) return fail(Error::from_errno(error.value(), "read folder", own.parent_path().string()));
  if (have_other_sizes(pins, limits)) {
    Folder aside;
    aside.layout = TL_LAYOUT;
    for (const Folder& folder : found)
      if (folder.layout == TL_LAYOUT) aside.number = std::max(aside.number, folder.number);
    aside.name = own.filename().string() + "-" + std::to_string(++aside.number);
    aside.path = (own.parent_path() / aside.name).string();
    if (::rename(pins.c_str(), aside.path.c_str()) != 0)
      return fail(Error::from_errno(errno, "rename folder", pins));
    if (fs::create_directory(own, error); error)
      return fail(Error::from_errno(error.value(), "make folder", pins));
    found.push_back(std::move(aside));
  }
  if (found.empty()) return std::unique_ptr<OlderMaps>();
  std::unique_ptr<OlderMaps> older(new OlderMaps);
  older->folders_ = std::move(found);
  std::sort(older->folders_.begin(), older->folders_.end(), [](const Folder& a, const Folder& b) {
    return std::tie(a.layout, a.number) < std::tie(b.layout, b.number);
  });
  for (Folder& folder : older->folders_) TL_TRY(older->open(folder));
  return older;
}

// Only maps that are what their layout says are read.
Result<void> OlderMaps::open(Folder& folder) {
  const bool known = folder.layout == TL_LAYOUT || folder.layout == kBareSlots;
  bool all = known;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder.path, error)) {
    const std::string name = entry.path().filename().string();
    Fd map(::bpf_obj_get(entry.path().c_str()));
    bpf_map_info info{};
    if (!info_of(map, info)) continue;
    const auto maps = pinned_maps({});
    const auto wanted = std::find_if(maps.begin(), maps.end(), [&](const PinnedMap& one) { return name == one.name; });
    std::uint32_t value_size = wanted == maps.end() ? 0 : wanted->value_size;
    if (name == "slots" && folder.layout == kBareSlots) value_size = sizeof(std::uint32_t);
    if (known && wanted != maps.end() && info.type == wanted->type && info.key_size == wanted->key_size &&
        info.value_size == value_size) {
      if (name == "flows") has_flows_ = true;
      folder.maps.emplace(name, std::move(map));
      continue;
    }
    all = false;
    left_unread_ += std::max<std::uint64_t>(count_entries(map, info), 1);
  }
  if (!all) unread_.push_back(folder.name);
  return {};
}

// What all of them counted. What stands beside a counter is told by the oldest folder only: those after it have it
// from there.
Result<OlderMaps::Totals> OlderMaps::totals() const {
  Totals totals;
  bool oldest = true;
  for (const Folder& folder : folders_) {
    const auto slots = folder.maps.find("slots"), counters = folder.maps.find("counters");
    if (slots == folder.maps.end() || counters == folder.maps.end()) continue;
    bpf_map_info info{};
    if (!info_of(slots->second, info)) continue;
    for (std::uint32_t slot = 0; slot < info.max_entries; ++slot) {
      tl_slot entry{};
      if (::bpf_map_lookup_elem(slots->second.get(), &slot, &entry) != 0)
        return fail(Error::from_errno(errno, "read BPF map", folder.name + "/slots"));
      if (slot >= TL_FIRST_SLOT && entry.rule == 0) break;
      TL_ASSIGN(const auto words, sum_of_cpus(counters->second.get(), slot, sizeof(tl_counter) / 8));
      tl_counter& total = totals[slot < TL_FIRST_SLOT ? slot : entry.rule];
      add(total, sum(words));
      if (oldest && folder.layout != kBareSlots) add(total, entry.before);
    }
    oldest = false;
  }
  return totals;
}

Result<void> OlderMaps::write_counters(Programs& programs, const Limits& limits) {
  TL_ASSIGN(const Totals all, totals());
  std::map<std::uint32_t, std::uint32_t> slot_of;  // by rule
  std::uint32_t next = TL_FIRST_SLOT;
  for (; next < limits.slots(); ++next) {
    tl_slot entry{};
    if (::bpf_map_lookup_elem(programs.slots(), &next, &entry) != 0)
      return fail(Error::from_errno(errno, "read BPF map", "slots"));
    if (entry.rule == 0) break;
    slot_of[entry.rule] = next;
  }
  counters_ = 0;
  left_counters_ = 0;
  // The newest first, for where there is less room than there was.
  for (auto total = all.rbegin(); total != all.rend(); ++total) {
    const auto& [rule, counter] = *total;
    tl_slot entry{rule, 0, counter};
    std::uint32_t slot = rule;
    if (rule >= TL_FIRST_SLOT) {
      const auto known = slot_of.find(rule);
      if (known == slot_of.end() && next == limits.slots()) {
        ++left_counters_;
        continue;
      }
      slot = known == slot_of.end() ? next++ : known->second;
    } else {
      entry.rule = 0;
    }
    if (::bpf_map_update_elem(programs.slots(), &slot, &entry, BPF_ANY) != 0)
      return fail(Error::from_errno(errno, "write BPF map", "slots"));
    counters_ += counter.packets > 0 ? 1 : 0;
  }
  return {};
}

Result<void> OlderMaps::write_losses(Programs& programs) {
  std::vector<std::uint64_t> before(TL_LOSSES, 0);
  bool oldest = true;
  for (const Folder& folder : folders_) {
    const auto losses = folder.maps.find("losses");
    if (losses == folder.maps.end()) continue;
    const std::uint32_t causes = folder.layout == kBareSlots ? kLossesOfBareSlots : std::uint32_t{TL_LOSSES};
    for (std::uint32_t cause = 0; cause < causes; ++cause) {
      TL_ASSIGN(const auto words, sum_of_cpus(losses->second.get(), cause, 1));
      before[cause] += words.front();
      if (!oldest || folder.layout == kBareSlots) continue;
      TL_ASSIGN(const auto earlier, sum_of_cpus(losses->second.get(), TL_LOSSES + cause, 1));
      before[cause] += earlier.front();
    }
    oldest = false;
  }
  before[TL_LOSS_LEFT] += left_flows_ + left_denied_ + left_counters_ + left_unread_;
  std::vector<std::uint64_t> by_cpu(static_cast<std::size_t>(::libbpf_num_possible_cpus()), 0);
  for (std::uint32_t cause = 0; cause < TL_LOSSES; ++cause) {
    const std::uint32_t at = TL_LOSSES + cause;
    by_cpu.front() = before[cause];
    if (::bpf_map_update_elem(programs.losses(), &at, by_cpu.data(), BPF_ANY) != 0)
      return fail(Error::from_errno(errno, "write BPF map", "losses"));
  }
  return {};
}

Result<void> OlderMaps::copy_flows(Programs& programs) {
  for (const Folder& folder : folders_) {
    const auto map = folder.maps.find("flows");
    if (map == folder.maps.end()) continue;
    TL_TRY((dump_map<tl_flow_key, tl_flow>(
        map->second.get(), folder.name + "/flows", [&](const tl_flow_key& key, const tl_flow& flow) {
          flows_[bytes_of(key)] = flow;
          if (::bpf_map_update_elem(programs.flows(), &key, &flow, BPF_NOEXIST) != 0 && errno != EEXIST) ++left_flows_;
        })));
  }
  return {};
}

Result<void> OlderMaps::copy_denied(Programs& programs) {
  for (const Folder& folder : folders_) {
    const auto map = folder.maps.find("denied");
    if (map == folder.maps.end()) continue;
    TL_TRY((dump_map<tl_denied_key, tl_denied>(
        map->second.get(), folder.name + "/denied", [&](const tl_denied_key& key, const tl_denied& value) {
          denied_[bytes_of(key)] = value;
          if (::bpf_map_update_elem(programs.denied(), &key, &value, BPF_NOEXIST) != 0 && errno != EEXIST)
            ++left_denied_;
        })));
  }
  return {};
}

Result<void> OlderMaps::copy(Programs& programs, const Limits& limits) {
  TL_TRY(copy_flows(programs));
  TL_TRY(copy_denied(programs));
  // Behind them: no denied flow has more than its rule's counter.
  TL_TRY(write_counters(programs, limits));
  return write_losses(programs);
}

Result<void> OlderMaps::merge_flows(const Programs& programs) {
  for (const Folder& folder : folders_) {
    const auto map = folder.maps.find("flows");
    if (map == folder.maps.end()) continue;
    std::vector<tl_merged> changed;
    TL_TRY((dump_map<tl_flow_key, tl_flow>(
        map->second.get(), folder.name + "/flows", [&](const tl_flow_key& key, const tl_flow& flow) {
          tl_merged merged{};
          merged.kind = TL_MERGE_FLOW;
          merged.flow.key = key;
          merged.flow.value = flow;
          const auto known = flows_.find(bytes_of(key));
          merged.is_new = known == flows_.end() || known->second.first != flow.first ? 1 : 0;
          if (merged.is_new == 0) {
            if (known->second.last == flow.last && known->second.told == flow.told) return;
            for (int side = 0; side < 2; ++side) {
              merged.flow.value.packets[side] -= known->second.packets[side];
              merged.flow.value.bytes[side] -= known->second.bytes[side];
            }
          }
          changed.push_back(merged);
        })));
    for (const tl_merged& merged : changed) {
      TL_ASSIGN(const bool had_room, programs.merge(merged));
      left_flows_ += had_room ? 0 : 1;
    }
  }
  flows_.clear();
  return {};
}

Result<void> OlderMaps::merge_denied(const Programs& programs) {
  for (const Folder& folder : folders_) {
    const auto map = folder.maps.find("denied");
    if (map == folder.maps.end()) continue;
    std::vector<tl_merged> changed;
    TL_TRY((dump_map<tl_denied_key, tl_denied>(
        map->second.get(), folder.name + "/denied", [&](const tl_denied_key& key, const tl_denied& value) {
          tl_merged merged{};
          merged.kind = TL_MERGE_DENIED;
          merged.denied.key = key;
          merged.denied.value = value;
          if (const auto known = denied_.find(bytes_of(key)); known != denied_.end()) {
            if (known->second.packets == value.packets) return;
            merged.denied.value.packets -= known->second.packets;
            merged.denied.value.bytes -= known->second.bytes;
          }
          changed.push_back(merged);
        })));
    for (const tl_merged& merged : changed) {
      TL_ASSIGN(const bool had_room, programs.merge(merged));
      left_denied_ += had_room ? 0 : 1;
    }
  }
  denied_.clear();
  return {};
}

Result<void> OlderMaps::finish(Programs& programs, const Limits& limits) {
  TL_TRY(merge_flows(programs));
  TL_TRY(merge_denied(programs));
  TL_TRY(write_counters(programs, limits));
  TL_TRY(write_losses(programs));
  for (const Folder& folder : folders_) {
    std::error_code error;
    if (fs::remove_all(folder.path, error); error)
      return fail(Error::from_errno(error.value(), "remove folder", folder.path));
  }
  return {};
}

std::vector<int> OlderMaps::rings() const {
  std::vector<int> found;
  for (const Folder& folder : folders_)
    if (const auto ring = folder.maps.find("events"); ring != folder.maps.end()) found.push_back(ring->second.get());
  return found;
}

std::string OlderMaps::told() const {
  std::string names;
  for (const Folder& folder : folders_) names += (names.empty() ? "" : ", ") + folder.name;
  std::string text = "maps of " + names + " taken over: " + std::to_string(flows_.size()) + " connections, " +
                     std::to_string(denied_.size()) + " denied flows, " + std::to_string(counters_) + " counters";
  const std::uint64_t left = left_flows_ + left_denied_ + left_counters_ + left_unread_;
  if (left == 0) return text;
  text += "; LEFT BEHIND: " + std::to_string(left_flows_) + " connections and " + std::to_string(left_denied_) +
          " denied flows without room, " + std::to_string(left_counters_) + " counters without a place";
  for (const std::string& name : unread_)
    text += ", what " + name + " holds in a form that this version does not know";
  return text + " (" + std::to_string(left) + " entries in all)";
}

}  // namespace tierlog::dataplane::ebpf
