// policy/cluster.h - who there is: endpoints with addresses and labels, namespaces, network sets.
//
//   endpoints/ (CNI registrations, topology file, Kubernetes API) --> [Cluster] --> resolve.h, compile.h
//                                                                            `----> logger/ (names)
// A plain value, one snapshot of the world; shared as std::shared_ptr<const Cluster>.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/net_types.h"
#include "policy/labels.h"
#include "policy/model.h"

namespace tierlog::policy {

struct NamedPort {
  std::string name;
  std::uint8_t protocol = protocol::kTcp;
  std::uint16_t port = 0;

  bool operator==(const NamedPort&) const = default;
};

// One (address, protocol, port) that something listens on.
struct EndpointPort {
  IpAddr address;
  std::uint8_t protocol = 0;
  std::uint16_t port = 0;

  auto operator<=>(const EndpointPort&) const = default;
};

struct Endpoint {
  std::string endpoint_namespace;  // "tenant-01"
  std::string name;                // "db-0"
  Labels labels;                   // its own
  std::vector<IpAddr> addresses;
  std::vector<NamedPort> ports;
  std::string service_account;  // empty: "default", as Kubernetes has it
  std::string workload;   // "web" of "web-7c9f8-x2x1z"; the name itself when there is no owner
  std::string node;       // empty: unknown
  std::string interface;  // host side of its veth; empty when not local
  std::string mac{};      // of the pod's own side, "02:00:…"; empty: unknown
  std::string bridge{};   // that `interface` is a port of; empty: routed
  bool host_network = false;
  bool local = false;     // enforced on this node

  std::string display() const { return endpoint_namespace + "/" + name; }
  bool operator==(const Endpoint&) const = default;
};

struct ServiceAccountObject {
  std::string account_namespace;
  std::string name;
  Labels labels;

  bool operator==(const ServiceAccountObject&) const = default;
};

struct NodeObject {
  std::string name;
  Labels labels;
  std::vector<IpAddr> addresses;

  bool operator==(const NodeObject&) const = default;
};

// Where a Kubernetes Service leads, by its EndpointSlices: the backends, never the Service's own address.
struct ServiceObject {
  std::string service_namespace;
  std::string name;
  std::vector<IpAddr> addresses;
  std::vector<EndpointPort> ports;

  bool operator==(const ServiceObject&) const = default;
};

// A Service that leads to the pods it selects, where no EndpointSlice says it better.
struct SelectingService {
  struct Port {
    std::uint8_t protocol = protocol::kTcp;
    std::uint16_t number = 0;  // of the pods
    std::string named;         // instead of it: a pod's port

    bool operator==(const Port&) const = default;
  };
  std::string service_namespace;
  std::string name;
  Labels selector;  // never empty
  std::vector<Port> ports;

  bool operator==(const SelectingService&) const = default;
};

// Interfaces of a node that policies protect like an endpoint (projectcalico.org/v3 HostEndpoint).
struct HostEndpoint {
  std::string name;
  std::string node;
  std::string interface;  // "eth0"; "*": all but loopback and the pods'; empty: that with one of the addresses
  Labels labels;
  std::vector<IpAddr> addresses;  // expectedIPs; none: its node's
  std::vector<NamedPort> ports;
  bool open = false;   // a profile allows what no policy decides; else that is denied
  bool local = false;  // enforced on this node

  std::string display() const { return "host " + name; }
  bool operator==(const HostEndpoint&) const = default;
};

struct Cluster {
  std::map<std::string, NamespaceObject> namespaces;  // by name; a namespace nobody declared has only
                                                      // its kubernetes.io/metadata.name label
  std::vector<ServiceAccountObject> service_accounts;
  std::vector<NodeObject> nodes;
  std::vector<ServiceObject> services;
  std::vector<Endpoint> endpoints;
  std::vector<HostEndpoint> host_endpoints;
  std::vector<NetworkSet> network_sets;  // from the topology; those of the PolicySet come on top

  const Endpoint* find(std::string_view endpoint_namespace, std::string_view name) const;  // linear
};

// Core objects among policy files: they say who there is, as a topology does. Places are of the objects.
struct ClusterObjects {
  std::vector<Endpoint> pods;
  std::vector<ServiceAccountObject> service_accounts;
  std::vector<NodeObject> nodes;
  std::vector<ServiceObject> services;  // by EndpointSlices
  std::vector<SelectingService> selecting_services;
  std::vector<HostEndpoint> host_endpoints;
};

// Adds what policy files say of the cluster, and their Namespaces. Who is in both keeps its addresses and
// ports where it has some; labels are joined, those of the files win.
void add_objects(Cluster& cluster, const PolicySet& policies);

// What selectors see of an endpoint (policy/labels.h).
Labels effective_labels(const Cluster& cluster, const Endpoint& endpoint);
// The same of a network set: its own labels, projectcalico.org/name, projectcalico.org/namespace and pcns.*.
Labels effective_labels(const Cluster& cluster, const NetworkSet& set);
// The same of a host endpoint: its own labels and projectcalico.org/name; it has no namespace.
Labels effective_labels(const HostEndpoint& endpoint);
// "web-7c9f8b6d5-x2x1z" -> "web", "db-0" -> "db": owner by the usual suffixes when nobody told it.
std::string workload_of(std::string_view pod_name);

}  // namespace tierlog::policy
