// What a daemon of layout 2 left: the maps that are pinned now, which the attached programs go on with, but for those that
// were different then, made as they were.
#pragma once

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include <filesystem>
#include <string>

#include "base/handle.h"
#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::test {

// Of the folder BASE/v<TL_LAYOUT>, which goes, makes BASE/v2. 0: done; else the number of the step that failed.
inline int make_layout_2(const std::string& base) {
  const std::string now = base + "/v" + std::to_string(TL_LAYOUT), then = base + "/v2";
  std::error_code error;
  std::filesystem::create_directories(then, error);
  const auto pinned = [&](const std::string& name) { return Fd(::bpf_obj_get((now + "/" + name).c_str())); };
  for (const char* name : {"flows", "denied", "counters", "events"})
    if (const Fd map = pinned(name); !map || ::bpf_obj_pin(map.get(), (then + "/" + name).c_str()) != 0) return 1;
  const Fd slots(::bpf_map_create(BPF_MAP_TYPE_ARRAY, "slots", 4, 4, TL_SLOTS, nullptr));
  const Fd losses(::bpf_map_create(BPF_MAP_TYPE_PERCPU_ARRAY, "losses", 4, 8, 4, nullptr));
  if (!slots || !losses) return 2;
  const Fd from = pinned("slots");
  for (std::uint32_t slot = 0; slot < TL_SLOTS; ++slot) {
    tl_slot entry{};
    if (::bpf_map_lookup_elem(from.get(), &slot, &entry) != 0) return 3;
    if (slot >= TL_FIRST_SLOT && entry.rule == 0) break;
    if (::bpf_map_update_elem(slots.get(), &slot, &entry.rule, BPF_ANY) != 0) return 4;
  }
  if (::bpf_obj_pin(slots.get(), (then + "/slots").c_str()) != 0) return 5;
  if (::bpf_obj_pin(losses.get(), (then + "/losses").c_str()) != 0) return 6;
  return std::filesystem::remove_all(now, error) > 0 && !error ? 0 : 7;
}

}  // namespace tierlog::dataplane::test
