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
  state.daemon = {13, 346};
  state.chain = {Cni::Bridge, "/usr/lib/cni", "/bin", "/s.sock"};
  state.node = {*IpAddr::parse("192.0.2.1")};
  state.outside = {*IpAddr::parse("203.0.113.9"), *IpAddr::parse("2001:db8::9")};
  state.pod_cidrs = {*Cidr::parse("10.0.0.0/24")};
  state.fixed = {*IpAddr::parse("10.1.0.5")};
  state.foreign = {*IpAddr::parse("10.1.0.9")};
  state.pods = {
      {"blue/a", {"blue_a", "X=1", {R"({"type":"ptp"})"}, R"({"ips":[]})", state.fixed}, {14, 347}}};
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
  EXPECT_EQ(read->daemon, written.daemon);
  EXPECT_EQ(read->chain.cni, written.chain.cni);
  EXPECT_EQ(read->chain.cni_folder, written.chain.cni_folder);
  EXPECT_EQ(read->chain.bin_folder, written.chain.bin_folder);
  EXPECT_EQ(read->chain.socket, written.chain.socket);
  EXPECT_EQ(read->node, written.node);
  EXPECT_EQ(read->outside, written.outside);
  EXPECT_EQ(read->pod_cidrs, written.pod_cidrs);
  EXPECT_EQ(read->fixed, written.fixed);
  EXPECT_EQ(read->foreign, written.foreign);
  ASSERT_EQ(read->pods.size(), 1u);
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
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.1\tnode\n"
            "203.0.113.9\toutside\n2001:db8::9\toutside\n10.1.0.5\ta.blue\n");
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
