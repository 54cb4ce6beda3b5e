// dataplane/ebpf/dump.h - reading hash maps whole, many entries at a time.
//
//   BPF map --[dump_map]--> each entry --> backend.h, older_maps.h
#pragma once

#include <bpf/bpf.h>

#include <cerrno>
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace tierlog::dataplane::ebpf {

// In no order; what comes or goes meanwhile may be there or not. Errors: Refused.
template <typename Key, typename Value, typename Each>
Result<void> dump_map(int map, const std::string& name, const Each& each) {
  constexpr std::uint32_t kBatch = 4096;
  std::vector<Key> keys(kBatch);
  std::vector<Value> values(kBatch);
  std::uint32_t cursor = 0;
  bool first = true, more = true;
  while (more) {
    std::uint32_t count = kBatch;
    LIBBPF_OPTS(bpf_map_batch_opts, options);
    const int failed = ::bpf_map_lookup_batch(map, first ? nullptr : &cursor, &cursor, keys.data(), values.data(),
                                              &count, &options);
    first = false;
    more = failed == 0;
    if (failed != 0 && errno != ENOENT) return fail(Error::from_errno(errno, "read BPF map", name));
    for (std::uint32_t i = 0; i < count; ++i) each(keys[i], values[i]);
  }
  return {};
}

}  // namespace tierlog::dataplane::ebpf
