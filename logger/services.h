// logger/services.h - what the address and port of a Service are called.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/net_types.h"

namespace tierlog::logger {

struct ServiceAddress {
  IpAddr address;
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;
  std::string name;  // "namespace/name"
};

class ServiceNames {
 public:
  void set(const std::vector<ServiceAddress>& services) {
    names_.clear();
    for (const ServiceAddress& service : services)
      names_[{service.address, service.protocol, service.port}] = service.name;
  }
  // Empty: none that we know of.
  std::string name_of(const IpAddr& address, std::uint8_t protocol, std::uint16_t port) const {
    const auto found = names_.find({address, protocol, port});
    return found == names_.end() ? std::string() : found->second;
  }

 private:
  struct Key {
    IpAddr address;
    std::uint8_t protocol;
    std::uint16_t port;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Key& key) const noexcept {
      return std::hash<IpAddr>()(key.address) * 0x9e3779b97f4a7c15ULL +
             (std::size_t{key.protocol} << 16 | key.port);
    }
  };
  std::unordered_map<Key, std::string, Hash> names_;
};

}  // namespace tierlog::logger
