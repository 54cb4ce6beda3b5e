// The files of a lab: tierlogd.yaml, lab.json, hosts.
#include <gtest/gtest.h>

#include "base/yaml.h"
#include "lab/daemon.h"
#include "lab/names.h"
#include "lab/state.h"
#include "tests/lab/scratch.h"

namespace tierlog::lab {
namespace {

TEST(DaemonConfig, IsNestedYaml) {
  const DaemonConfig config{{{"node", "node-1"},
                             {"store.path", "/a b/\"c\""},
                             {"store.max_bytes", "1000"},
                             {"log.level", "debug"},
                             {"http.tls", "true"},
                             {"deny_interval", "1s"}},
                            {"/p/one.yaml", "/p/two: #"}};
  const std::string text = to_yaml(config);
  const auto parsed = yaml::parse(text, "tierlogd.yaml");
  ASSERT_EQ(parsed.findings.to_string(), "") << text;
  ASSERT_EQ(parsed.documents.size(), 1u);
  const yaml::Node& root = parsed.documents[0];
  EXPECT_EQ(root.find("node")->text, "node-1");
  EXPECT_EQ(root.find("store")->find("path")->text, "/a b/\"c\"");
  EXPECT_EQ(root.find("store")->find("max_bytes")->as_int(), 1000);
  EXPECT_EQ(root.find("log")->find("level")->text, "debug");
  EXPECT_EQ(root.find("http")->find("tls")->as_bool(), true);
  EXPECT_EQ(root.find("deny_interval")->text, "1s");
  ASSERT_EQ(root.find("policies")->items.size(), 2u);
  EXPECT_EQ(root.find("policies")->items[1].text, "/p/two: #");
}

LabState sample(const std::string& folder) {
  LabState state;
  state.name = "demo";
  state.folder = folder;
  state.topology = "/t.yaml";
  state.dataplane = "ebpf";
  state.life = LabOptions::Life::WithCaller;
  state.first.id = {12, 345};
  NodeState node;
  node.name = "node-1";
  node.folder = folder;
  node.database = "/records/flows.db";
  node.keeper = {12, 345};
  node.daemon = {13, 346};
  node.chain = {Cni::Bridge, "/usr/lib/cni", "/bin", "/s.sock"};
  node.addresses = {*IpAddr::parse("192.0.2.1")};
  node.pod_cidrs = {*Cidr::parse("10.0.0.0/24")};
  node.fixed = {*IpAddr::parse("10.1.0.5")};
  node.foreign = {*IpAddr::parse("10.1.0.9")};
  state.outside = {*IpAddr::parse("203.0.113.9"), *IpAddr::parse("2001:db8::9")};
  state.families = {Family::V4};
  state.masquerade = true;
  state.nodes = {node, node};
  state.nodes[1].name = "node-2";
  state.nodes[1].folder = folder + "/node-2";
  state.pods = {{"blue/a",
                 "node-1",
                 {"blue_a", "X=1", {R"({"type":"ptp"})"}, R"({"ips":[]})", node.fixed},
                 {14, 347},
                 {{"app", "a"}},
                 {{"http", protocol::kTcp, 8080}}},
                {"blue/host", "node-2", {{}, {}, {}, {}, node.addresses}, {}, {}, {}}};
  endpoints::Service service;
  service.service_namespace = "blue";
  service.name = "a";
  service.selector = {{"app", "a"}};
  service.backends = {{*IpAddr::parse("10.9.9.9"), 0, 81}};
  service.cluster_ips = {*IpAddr::parse("10.96.0.1")};
  service.node_port = service.local_only = service.affinity = true;
  service.ports = {{"http", protocol::kTcp, 80, 0, "http", 30080}};
  state.services = {service};
  return state;
}

TEST(State, SurvivesItsFile) {
  const Scratch scratch;
  const LabState written = sample(scratch / "lab");
  std::filesystem::create_directories(written.folder);
  ASSERT_TRUE(write_state(written));
  const auto read = read_state(written.folder);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->name, written.name);
  EXPECT_EQ(read->folder, written.folder);
  EXPECT_EQ(read->topology, written.topology);
  EXPECT_EQ(read->dataplane, written.dataplane);
  EXPECT_EQ(read->life, written.life);
  EXPECT_EQ(read->first.id, written.first.id);
  EXPECT_EQ(read->families, written.families);
  EXPECT_EQ(read->masquerade, written.masquerade);
  EXPECT_EQ(read->outside, written.outside);
  EXPECT_EQ(read->services, written.services);
  ASSERT_EQ(read->nodes.size(), 2u);
  const NodeState& node = read->nodes[0];
  EXPECT_EQ(node.name, "node-1");
  EXPECT_EQ(node.folder, written.folder);
  EXPECT_EQ(node.database, "/records/flows.db");
  EXPECT_EQ(node.keeper, written.nodes[0].keeper);
  EXPECT_EQ(node.daemon, written.nodes[0].daemon);
  EXPECT_EQ(node.chain.cni, written.nodes[0].chain.cni);
  EXPECT_EQ(node.chain.cni_folder, written.nodes[0].chain.cni_folder);
  EXPECT_EQ(node.chain.bin_folder, written.nodes[0].chain.bin_folder);
  EXPECT_EQ(node.chain.socket, written.nodes[0].chain.socket);
  EXPECT_EQ(node.addresses, written.nodes[0].addresses);
  EXPECT_EQ(node.pod_cidrs, written.nodes[0].pod_cidrs);
  EXPECT_EQ(node.fixed, written.nodes[0].fixed);
  EXPECT_EQ(node.foreign, written.nodes[0].foreign);
  EXPECT_EQ(read->nodes[1].folder, written.folder + "/node-2");
  EXPECT_EQ(read->node("node-2"), &read->nodes[1]);
  EXPECT_EQ(read->node(""), &read->nodes[0]);
  EXPECT_EQ(read->node("node-3"), nullptr);
  ASSERT_EQ(read->pods.size(), 2u);
  EXPECT_TRUE(read->pods[1].host_network());
  EXPECT_EQ(read->pods[1].node, "node-2");
  EXPECT_EQ(read->pods[0].labels, written.pods[0].labels);
  EXPECT_EQ(read->pods[0].ports, written.pods[0].ports);
  EXPECT_EQ(read->pods[0].name, "blue/a");
  EXPECT_EQ(read->pods[0].cni.container_id, "blue_a");
  EXPECT_EQ(read->pods[0].cni.arguments, "X=1");
  EXPECT_EQ(read->pods[0].cni.configurations, written.pods[0].cni.configurations);
  EXPECT_EQ(read->pods[0].cni.result, written.pods[0].cni.result);
  EXPECT_EQ(read->pods[0].cni.addresses, written.pods[0].cni.addresses);
  EXPECT_EQ(read->pods[0].server, written.pods[0].server);
}

TEST(State, ADamagedFileIsAnErrorWithItsName) {
  const Scratch scratch;
  for (const char* text : {"", "{", "[]", "{}", R"({"name": 7})"}) {
    std::ofstream(scratch / "lab.json") << text;
    const auto state = read_state(scratch / "");
    ASSERT_FALSE(state) << text;
    EXPECT_EQ(state.error().code, ErrorCode::Corrupt) << text;
    EXPECT_NE(state.error().message.find("lab.json"), std::string::npos) << state.error().message;
  }
}

TEST(Hosts, AreNamesWithinNamespaces) {
  EXPECT_EQ(hosts_text(sample("/x")),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.1\tnode node-1\n"
            "192.0.2.1\tnode-2\n203.0.113.9\toutside\n2001:db8::9\toutside\n10.1.0.5\ta.blue\n"
            "10.96.0.1\ta.blue.svc\n");
}

TEST(Processes, AreKnownByTheirStartTime) {
  const auto self = identify(::getpid());
  ASSERT_TRUE(self);
  EXPECT_TRUE(alive(*self));
  EXPECT_FALSE(alive({self->pid, self->start_time + 1})) << "another process that got the same pid";
  EXPECT_FALSE(alive({}));
  EXPECT_FALSE(open_process({self->pid, self->start_time + 1}));
  const pid_t child = ::fork();
  if (child == 0) ::_exit(5);
  const auto id = identify(child);
  ASSERT_TRUE(id);
  EXPECT_TRUE(eventually([&] { return !alive(*id); })) << "a zombie is not alive";
  EXPECT_EQ(wait_for(child).value_or(-1), 5);
}

}  // namespace
}  // namespace tierlog::lab
