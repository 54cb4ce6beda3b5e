#include "dataplane/ebpf/services.h"

#include <bpf/bpf.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {
namespace {

void put(const IpAddr& address, std::uint8_t (&into)[16]) {
  std::copy(address.bytes.begin(), address.bytes.begin() + static_cast<std::ptrdiff_t>(address.size()), into);
}

template <typename T>
std::string bytes_of(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

}  // namespace

Result<void> Services::set(const std::vector<ServiceTarget>& targets) {
  std::map<std::string, std::string> wanted;
  for (const ServiceTarget& target : targets) {
    tl_service_key key{};
    put(target.address, key.address);
    key.port = target.port;
    key.protocol = target.protocol;
    key.family = target.address.family == Family::V6 ? 6 : 4;
    tl_service value{};
    const std::size_t count = target.backends.size();
    value.count = count > TL_BACKENDS ? TL_NONE : static_cast<std::uint32_t>(count);
    for (std::size_t i = 0; i < std::min<std::size_t>(count, TL_BACKENDS); ++i) {
      put(target.backends[i].first, value.backends[i].address);
      value.backends[i].port = target.backends[i].second;
    }
    wanted[bytes_of(key)] = bytes_of(value);
  }
  if (wanted.size() > most_)
    return fail(ErrorCode::InvalidArgument, "Services have " + std::to_string(wanted.size()) +
                                                " addresses and ports; " + std::to_string(most_) +
                                                " are the limit (ebpf.max_services)");
  for (auto known = written_.begin(); known != written_.end();) {
    if (!wanted.contains(known->first)) {
      static_cast<void>(::bpf_map_delete_elem(map_, known->first.data()));
      known = written_.erase(known);
    } else {
      ++known;
    }
  }
  for (const auto& [key, value] : wanted) {
    if (const auto known = written_.find(key); known != written_.end() && known->second == value) continue;
    if (::bpf_map_update_elem(map_, key.data(), value.data(), BPF_ANY) != 0)
      return fail(Error::from_errno(errno, "write BPF map", "services"));
    written_[key] = value;
  }
  return {};
}

}  // namespace tierlog::dataplane::ebpf
