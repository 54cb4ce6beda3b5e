#include "bench/programs.h"

#include <cstdio>
#include <cstdlib>

#include "policy/load.h"

namespace tierlog::bench {

policy::Endpoint local_pod(const std::string& ns, const std::string& name, const std::string& address,
                           policy::Labels labels, const std::string& interface) {
  policy::Endpoint endpoint;
  endpoint.endpoint_namespace = ns;
  endpoint.name = name;
  endpoint.workload = name;
  endpoint.addresses = {*IpAddr::parse(address)};
  endpoint.labels = std::move(labels);
  endpoint.interface = interface;
  endpoint.local = true;
  return endpoint;
}

std::shared_ptr<const policy::Program> program_of(const std::string& text, std::vector<policy::Endpoint> pods,
                                                  policy::RuleIdRegistry& ids) {
  const policy::Loaded loaded = policy::load_text(text, "bench.yaml");
  auto cluster = std::make_shared<policy::Cluster>();
  for (const policy::Endpoint& pod : pods)
    cluster->namespaces[pod.endpoint_namespace].name = pod.endpoint_namespace;
  cluster->endpoints = std::move(pods);
  auto program = policy::compile(loaded.set, cluster, ids, {.scope = policy::CompileOptions::Scope::Local});
  if (!loaded.findings.has_errors() && program)
    return std::make_shared<const policy::Program>(std::move(*program));
  std::fprintf(stderr, "%s%s\n", loaded.findings.to_string().c_str(),
               program ? "" : program.error().message.c_str());
  std::exit(3);
}

std::string policy_head(const std::string& ns, const std::string& name, const std::string& selector,
                        const std::string& direction) {
  const std::string list = direction == "Ingress" ? "ingress" : "egress";
  return "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: " + name +
         ", namespace: " + ns + "}\nspec:\n  selector: \"" + selector + "\"\n  types: [" + direction +
         "]\n  " + list + ":\n";
}

}  // namespace tierlog::bench
