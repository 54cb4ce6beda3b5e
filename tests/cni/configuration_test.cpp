// What the plugin makes of its configuration and of CNI_ARGS.
#include "cni/configuration.h"

#include <gtest/gtest.h>

namespace tierlog::cni {
namespace {

struct Broken {
  const char* name;
  const char* text;
  Code code;
  const char* says;  // part of the message or of its details
};

void PrintTo(const Broken& broken, std::ostream* out) {
  *out << broken.name;
}

class BrokenConfiguration : public testing::TestWithParam<Broken> {};

TEST_P(BrokenConfiguration, IsRefusedWithItsCode) {
  const auto config = read_configuration(GetParam().text);
  ASSERT_FALSE(config);
  EXPECT_EQ(config.error().code, GetParam().code);
  const std::string said = config.error().message + " " + config.error().details;
  EXPECT_NE(said.find(GetParam().says), std::string::npos) << said;
}

INSTANTIATE_TEST_SUITE_P(
    Cni, BrokenConfiguration,
    testing::Values(
        Broken{"empty", "", Code::UndecodableContent, "no JSON object"},
        Broken{"cut", R"({"cniVersion":"1.0.0",)", Code::UndecodableContent, "no JSON object"},
        Broken{"list", "[]", Code::UndecodableContent, "no JSON object"},
        Broken{"no_version", R"({"name":"n"})", Code::IncompatibleVersion, "\"0.1.0\""},
        Broken{"newer", R"({"cniVersion":"1.1.0","name":"n"})", Code::IncompatibleVersion,
               "0.3.1, 0.4.0, 1.0.0"},
        Broken{"version_number", R"({"cniVersion":1,"name":"n"})", Code::InvalidConfiguration, "cniVersion"},
        Broken{"no_name", R"({"cniVersion":"1.0.0"})", Code::InvalidConfiguration, "no name"},
        Broken{"socket", R"({"cniVersion":"1.0.0","name":"n","socket":7})", Code::InvalidConfiguration,
               "socket"},
        Broken{"labels_map", R"({"cniVersion":"1.0.0","name":"n","args":{"cni":{"labels":{"a":"b"}}}})",
               Code::InvalidConfiguration, "args.cni.labels"},
        Broken{"label_value",
               R"({"cniVersion":"1.0.0","name":"n","args":{"cni":{"labels":[{"key":"a","value":1}]}}})",
               Code::InvalidConfiguration, "args.cni.labels"},
        Broken{"result_text", R"({"cniVersion":"1.0.0","name":"n","prevResult":"x"})",
               Code::InvalidConfiguration, "prevResult"},
        Broken{"ips_map", R"({"cniVersion":"1.0.0","name":"n","prevResult":{"ips":{}}})",
               Code::InvalidConfiguration, "prevResult.ips"},
        Broken{"address",
               R"({"cniVersion":"1.0.0","name":"n","prevResult":{"ips":[{"address":"10.1.2/24"}]}})",
               Code::InvalidConfiguration, "10.1.2/24"},
        Broken{"interfaces_text", R"({"cniVersion":"1.0.0","name":"n","prevResult":{"interfaces":["eth0"]}})",
               Code::InvalidConfiguration, "interfaces"}),
    [](const auto& param) { return param.param.name; });

// As bridge gives it: the bridge, the host's veth, the pod's; a gateway address on the bridge as well.
constexpr const char* kBridge = R"({
  "cniVersion": "1.0.0", "name": "net", "type": "tierlog-cni", "socket": "/run/x/d.sock",
  "args": {"cni": {"labels": [{"key": "app", "value": "db"}, {"key": "role", "value": ""}]}},
  "prevResult": {
    "cniVersion": "1.0.0", "zz": 1, "aa": 2,
    "interfaces": [{"name": "br0", "mac": "00:00:00:00:00:01"}, {"name": "veth1"},
                   {"name": "eth0", "sandbox": "/run/netns/p"}],
    "ips": [{"address": "10.1.0.1/24", "interface": 0}, {"address": "10.1.0.5/24", "interface": 2},
            {"address": "fd00::5/64"}]}})";

TEST(Configuration, HoldsWhatThePluginNeeds) {
  const auto config = read_configuration(kBridge);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->version, "1.0.0");
  EXPECT_EQ(config->socket, "/run/x/d.sock");
  EXPECT_EQ(config->spool, "/run/x/cni-spool");
  EXPECT_EQ(config->labels, (std::map<std::string, std::string>{{"app", "db"}, {"role", ""}}));
  ASSERT_TRUE(config->previous);
  ASSERT_EQ(config->previous->interfaces.size(), 3u);
  EXPECT_EQ(config->previous->interfaces[2].sandbox, "/run/netns/p");
  // Addresses of the host's side are not the pod's.
  ASSERT_EQ(config->previous->addresses.size(), 2u);
  EXPECT_EQ(config->previous->addresses[0].to_string(), "10.1.0.5");
  EXPECT_EQ(config->previous->addresses[1].to_string(), "fd00::5");
  EXPECT_EQ(config->previous->text.find(R"({"cniVersion":"1.0.0","zz":1,"aa":2,"interfaces")"), 0u);
}

TEST(Configuration, HasDefaults) {
  const auto config = read_configuration(R"({"cniVersion":"0.3.1","name":"n","prevResult":null})");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->socket, "/run/tierlog/tierlogd.sock");
  EXPECT_EQ(config->spool, "/run/tierlog/cni-spool");
  EXPECT_FALSE(config->previous);
  EXPECT_TRUE(config->labels.empty());
}

struct Arguments {
  const char* name;
  const char* text;
  const char* expected;  // "ns/pod", or the error
};

void PrintTo(const Arguments& arguments, std::ostream* out) {
  *out << arguments.name;
}

class PodNames : public testing::TestWithParam<Arguments> {};

TEST_P(PodNames, AreReadFromCniArgs) {
  const auto pod = read_pod_name(GetParam().text);
  const std::string got = pod ? pod->pod_namespace + "/" + pod->name : pod.error().message;
  EXPECT_EQ(got, GetParam().expected);
  if (!pod) {
    EXPECT_EQ(pod.error().code, Code::InvalidEnvironment);
  }
}

constexpr const char* kUnnamed =
    "CNI_ARGS does not name the pod; expected K8S_POD_NAMESPACE and K8S_POD_NAME";

INSTANTIATE_TEST_SUITE_P(
    Cni, PodNames,
    testing::Values(
        Arguments{"plain", "K8S_POD_NAMESPACE=blue;K8S_POD_NAME=a", "blue/a"},
        Arguments{"among_others",
                  "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=a;K8S_POD_INFRA_CONTAINER_ID=f00;"
                  "K8S_POD_UID=1-2",
                  "blue/a"},
        Arguments{"ends_with_semicolon", "K8S_POD_NAME=a;K8S_POD_NAMESPACE=blue;", "blue/a"},
        Arguments{"value_with_equals", "X=a=b;K8S_POD_NAME=a;K8S_POD_NAMESPACE=blue", "blue/a"},
        Arguments{"empty", "", kUnnamed}, Arguments{"no_namespace", "K8S_POD_NAME=a", kUnnamed},
        Arguments{"empty_name", "K8S_POD_NAME=;K8S_POD_NAMESPACE=blue", kUnnamed},
        Arguments{"no_pair", "K8S_POD_NAME", "CNI_ARGS has \"K8S_POD_NAME\"; expected KEY=value"}),
    [](const auto& param) { return param.param.name; });

}  // namespace
}  // namespace tierlog::cni
