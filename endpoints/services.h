// endpoints/services.h - the Services of a topology: what they say, and resolved to their backends.
//
//   services, endpointSlices --> [read_services] --> cluster.services (backends: rules with `services`)
//                                               `--> Service (whole: the lab's DNAT)
// `services` name pods by labels or backends by address; `endpointSlices` are Kubernetes' objects.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/fields.h"
#include "base/net_types.h"
#include "policy/cluster.h"

namespace tierlog::endpoints {

struct ServicePort {
  std::string name;
  std::uint8_t protocol = protocol::kTcp;
  std::uint16_t port = 0;
  std::uint16_t target = 0;     // number on the backends
  std::string target_name;      // of a pod's port, instead of the number
  std::uint16_t node_port = 0;  // 0: none, or whichever is free (type NodePort)

  bool operator==(const ServicePort&) const = default;
};

struct Service {
  // A backend that was named by its address: where port number `port` of the Service leads.
  struct Backend {
    IpAddr address;
    std::size_t port = 0;
    std::uint16_t target = 0;
    bool operator==(const Backend&) const = default;
  };

  std::string service_namespace;
  std::string name;
  policy::Labels selector;        // empty: only the backends below
  std::vector<Backend> backends;  // by `backends` or EndpointSlices
  std::vector<IpAddr> cluster_ips;
  bool headless = false;  // no clusterIP at all
  bool node_port = false;
  bool local_only = false;  // externalTrafficPolicy Local
  bool affinity = false;    // sessionAffinity ClientIP
  std::vector<ServicePort> ports;

  std::string display() const { return service_namespace + "/" + name; }
  bool operator==(const Service&) const = default;
};

// Reads both lists into cluster.services and, as they stand, into the result. The pods must be in the
// cluster already.
std::vector<Service> read_services(yaml::Fields& topology, policy::Cluster& cluster);

}  // namespace tierlog::endpoints
