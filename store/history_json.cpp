// The objects of a cluster as JSON texts, both ways.
#include <nlohmann/json.hpp>

#include "store/history.h"

namespace tierlog::store {
namespace {

using Json = nlohmann::json;

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json texts_of(const std::vector<IpAddr>& addresses) {
  Json texts = Json::array();
  for (const IpAddr& address : addresses) texts.push_back(address.to_string());
  return texts;
}

std::vector<IpAddr> addresses_of(const Json& texts) {
  std::vector<IpAddr> addresses;
  for (const Json& text : texts)
    if (const auto address = IpAddr::parse(text.get<std::string>())) addresses.push_back(*address);
  return addresses;
}

Json to_json(const policy::Endpoint& endpoint) {
  Json ports = Json::array();
  for (const policy::NamedPort& port : endpoint.ports)
    ports.push_back({{"name", port.name}, {"protocol", port.protocol}, {"port", port.port}});
  return {{"namespace", endpoint.endpoint_namespace},
          {"name", endpoint.name},
          {"labels", endpoint.labels},
          {"addresses", texts_of(endpoint.addresses)},
          {"ports", std::move(ports)},
          {"service_account", endpoint.service_account},
          {"workload", endpoint.workload},
          {"node", endpoint.node},
          {"host_network", endpoint.host_network},
          {"local", endpoint.local}};
}

policy::Endpoint endpoint_of(const Json& json) {
  policy::Endpoint endpoint;
  endpoint.endpoint_namespace = json.at("namespace").get<std::string>();
  endpoint.name = json.at("name").get<std::string>();
  endpoint.labels = json.at("labels").get<policy::Labels>();
  endpoint.addresses = addresses_of(json.at("addresses"));
  for (const Json& port : json.at("ports"))
    endpoint.ports.push_back({port.at("name").get<std::string>(), port.at("protocol").get<std::uint8_t>(),
                              port.at("port").get<std::uint16_t>()});
  endpoint.service_account = json.at("service_account").get<std::string>();
  endpoint.workload = json.at("workload").get<std::string>();
  endpoint.node = json.at("node").get<std::string>();
  endpoint.host_network = json.at("host_network").get<bool>();
  endpoint.local = json.at("local").get<bool>();
  return endpoint;
}

Json to_json(const policy::NamespaceObject& object) {
  return {{"name", object.name}, {"labels", object.labels}, {"log", static_cast<int>(object.log_decisions)}};
}

policy::NamespaceObject namespace_of(const Json& json) {
  return {json.at("name").get<std::string>(), json.at("labels").get<policy::Labels>(),
          static_cast<policy::LogDecisions>(json.at("log").get<int>())};
}

Json to_json(const policy::NodeObject& node) {
  return {{"name", node.name}, {"labels", node.labels}, {"addresses", texts_of(node.addresses)}};
}

policy::NodeObject node_of(const Json& json) {
  return {json.at("name").get<std::string>(), json.at("labels").get<policy::Labels>(),
          addresses_of(json.at("addresses"))};
}

Json to_json(const policy::ServiceObject& service) {
  Json ports = Json::array();
  for (const policy::EndpointPort& port : service.ports)
    ports.push_back(
        {{"address", port.address.to_string()}, {"protocol", port.protocol}, {"port", port.port}});
  return {{"namespace", service.service_namespace},
          {"name", service.name},
          {"addresses", texts_of(service.addresses)},
          {"ports", std::move(ports)}};
}

policy::ServiceObject service_of(const Json& json) {
  policy::ServiceObject service;
  service.service_namespace = json.at("namespace").get<std::string>();
  service.name = json.at("name").get<std::string>();
  service.addresses = addresses_of(json.at("addresses"));
  for (const Json& port : json.at("ports"))
    if (const auto address = IpAddr::parse(port.at("address").get<std::string>()))
      service.ports.push_back(
          {*address, port.at("protocol").get<std::uint8_t>(), port.at("port").get<std::uint16_t>()});
  return service;
}

Json to_json(const policy::ServiceAccountObject& account) {
  return {{"namespace", account.account_namespace}, {"name", account.name}, {"labels", account.labels}};
}

policy::ServiceAccountObject account_of(const Json& json) {
  return {json.at("namespace").get<std::string>(), json.at("name").get<std::string>(),
          json.at("labels").get<policy::Labels>()};
}

Json to_json(const policy::NetworkSet& set) {
  Json nets = Json::array();
  for (const Cidr& net : set.nets) nets.push_back(net.to_string());
  return {{"namespace", set.set_namespace}, {"name", set.name}, {"labels", set.labels}, {"nets", nets}};
}

policy::NetworkSet set_of(const Json& json) {
  policy::NetworkSet set;
  set.set_namespace = json.at("namespace").get<std::string>();
  set.name = json.at("name").get<std::string>();
  set.labels = json.at("labels").get<policy::Labels>();
  for (const Json& net : json.at("nets"))
    if (const auto cidr = Cidr::parse(net.get<std::string>())) set.nets.push_back(*cidr);
  return set;
}

void add_to(policy::Cluster& cluster, ObjectKind kind, const Json& json) {
  switch (kind) {
    case ObjectKind::Endpoint:
      return cluster.endpoints.push_back(endpoint_of(json));
    case ObjectKind::Namespace: {
      auto object = namespace_of(json);
      cluster.namespaces[object.name] = object;
      return;
    }
    case ObjectKind::Node:
      return cluster.nodes.push_back(node_of(json));
    case ObjectKind::Service:
      return cluster.services.push_back(service_of(json));
    case ObjectKind::ServiceAccount:
      return cluster.service_accounts.push_back(account_of(json));
    case ObjectKind::NetworkSet:
      return cluster.network_sets.push_back(set_of(json));
  }
}

}  // namespace

std::vector<ObjectVersion> objects_of(const policy::Cluster& cluster) {
  std::vector<ObjectVersion> objects;
  const auto add = [&](ObjectKind kind, std::string name, const Json& value) {
    objects.push_back({kind, std::move(name), {}, std::nullopt, dump(value)});
  };
  for (const auto& endpoint : cluster.endpoints)
    add(ObjectKind::Endpoint, endpoint.display(), to_json(endpoint));
  for (const auto& [name, object] : cluster.namespaces) {
    policy::NamespaceObject named = object;
    named.name = name;
    add(ObjectKind::Namespace, name, to_json(named));
  }
  for (const auto& node : cluster.nodes) add(ObjectKind::Node, node.name, to_json(node));
  for (const auto& service : cluster.services)
    add(ObjectKind::Service, service.service_namespace + "/" + service.name, to_json(service));
  for (const auto& account : cluster.service_accounts)
    add(ObjectKind::ServiceAccount, account.account_namespace + "/" + account.name, to_json(account));
  for (const auto& set : cluster.network_sets)
    add(ObjectKind::NetworkSet, set.set_namespace + "/" + set.name, to_json(set));
  return objects;
}

Result<void> add_object(policy::Cluster& cluster, const ObjectVersion& object) {
  try {
    add_to(cluster, object.kind, Json::parse(object.value));
  } catch (const Json::exception& error) {
    return fail(ErrorCode::Corrupt, "history of " + object.name + ": " + error.what());
  }
  return {};
}

}  // namespace tierlog::store
