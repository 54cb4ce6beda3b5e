// Programs for data plane tests, from policy text; host endpoints stand in it too.
#pragma once

#include <gtest/gtest.h>

#include "policy/compile.h"
#include "policy/load.h"

namespace tierlog::testing {

inline policy::Endpoint local_pod(const std::string& ns, const std::string& name,
                                  std::vector<std::string> addresses, policy::Labels labels) {
  policy::Endpoint endpoint;
  endpoint.endpoint_namespace = ns;
  endpoint.name = name;
  for (const std::string& address : addresses) endpoint.addresses.push_back(*IpAddr::parse(address));
  endpoint.labels = std::move(labels);
  endpoint.ports = {{"http", protocol::kTcp, 8080}};
  endpoint.local = true;
  return endpoint;
}

inline std::shared_ptr<const policy::Program> compile(const std::string& text,
                                                      std::vector<policy::Endpoint> pods,
                                                      policy::RuleIdRegistry& ids) {
  const policy::Loaded loaded = policy::load_text(text, "test.yaml");
  EXPECT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  auto cluster = std::make_shared<policy::Cluster>();
  for (const policy::Endpoint& pod : pods)
    cluster->namespaces[pod.endpoint_namespace].name = pod.endpoint_namespace;
  cluster->endpoints = std::move(pods);
  policy::add_objects(*cluster, loaded.set);
  auto program = policy::compile(loaded.set, cluster, ids);
  EXPECT_TRUE(program) << program.error().message;
  return std::make_shared<const policy::Program>(std::move(*program));
}

}  // namespace tierlog::testing
