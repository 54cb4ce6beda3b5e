// dataplane/ebpf/services.h - where Services lead, for packets that are seen before their destination is translated.
//
//   daemon/plane.h --ServiceTarget--> [Services] --map `services`--> tierlog.bpf.c (find_service)
//
// A packet to a Service is judged as a packet to each of its backends; they must agree.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"
#include "dataplane/ebpf/layout.h"

namespace tierlog::dataplane::ebpf {

struct ServiceTarget {
  IpAddr address;  // the Service's own
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  // Address and port of those that policies may tell apart. Empty: judged by its own address.
  std::vector<std::pair<IpAddr, std::uint16_t>> backends;
};

class Services {
 public:
  // `map`: borrowed.
  explicit Services(int map, std::uint32_t most = TL_SERVICES) : map_(map), most_(most) {}
  // All there are. More than TL_BACKENDS of one: its packets are denied, `service-backends-differ`. Errors: InvalidArgument,
  // there are more than the limit; Refused.
  Result<void> set(const std::vector<ServiceTarget>& targets);

 private:
  int map_;
  std::uint32_t most_;
  std::map<std::string, std::string> written_;  // entries as bytes
};

}  // namespace tierlog::dataplane::ebpf
