// tierlogd.yaml: what it says, and every mistake with its place.
#include "daemon/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace tierlog::daemon {
namespace {

TEST(Config, EveryKeyIsRead) {
  const auto loaded = config_from_text(R"(
node: n7
cluster: c1
dataplane: nftables
policies: [/etc/a, /etc/b.yaml]
topology: /etc/t.yaml
socket: /run/x.sock
store: {path: /var/lib/x/flows.db}
nflog: {group: 12}
deny_interval: 1m
log_interval: 2s
nftables: {without: [owner]}
log_rate: 5/m
ebpf: {max_rules: 500, max_flows: 1000}
failsafe: {inbound: [tcp:2222, "udp:10.0.0.0/8:68"], outbound: []}
host_to_pod: policy
exports:
- {type: fluentbit, name: main, host: 10.0.0.1, port: 24225, tag: t}
- {type: fluentbit}
http: {listen: "[::1]:1234", tls: {cert: /c, key: /k}, token: /t}
metrics: {rules: true, max_series: 7, node: false, labels: snake, remotes: 9}
log: {level: debug}
)",
                                       "c.yaml");
  ASSERT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  const Config& c = loaded.config;
  EXPECT_EQ(c.node, "n7");
  EXPECT_EQ(c.cluster, "c1");
  EXPECT_EQ(c.policies, (std::vector<std::string>{"/etc/a", "/etc/b.yaml"}));
  EXPECT_EQ(c.topology, "/etc/t.yaml");
  EXPECT_EQ(c.socket, "/run/x.sock");
  EXPECT_EQ(c.state_path(), "/var/lib/x/state.db");
  EXPECT_EQ(c.nflog_group, 12);
  EXPECT_EQ(c.nftables_without, (std::vector<std::string>{"owner"}));
  EXPECT_EQ(c.deny_interval, std::chrono::minutes(1));
  EXPECT_EQ(c.log_interval, std::chrono::seconds(2));
  EXPECT_EQ(c.log_rate, (policy::LogRate{5, 60}));
  ASSERT_EQ(c.failsafes.inbound.size(), 2u);
  EXPECT_EQ(c.failsafes.inbound[0], (policy::Failsafe{protocol::kTcp, 2222, {}}));
  EXPECT_TRUE(c.failsafes.outbound.empty());
  EXPECT_TRUE(c.host_to_pod_by_policy);
  ASSERT_EQ(c.exports.size(), 2u);
  EXPECT_EQ(c.exports[0].name, "main");
  EXPECT_EQ(c.exports[0].forward.host, "10.0.0.1");
  EXPECT_EQ(c.exports[0].forward.port, 24225);
  EXPECT_EQ(c.exports[0].forward.tag, "t");
  EXPECT_EQ(c.exports[1].name, "fluentbit-2");
  EXPECT_EQ(c.http_listen, "[::1]:1234");
  EXPECT_EQ(c.http_certificate + c.http_key + c.http_token, "/c/k/t");
  EXPECT_TRUE(c.metrics_rules && !c.metrics_node && c.metrics_snake);
  EXPECT_EQ(c.metrics_max_series + c.metrics_remotes, 16u);
  EXPECT_EQ(c.ebpf_limits.rules + c.ebpf_limits.flows, 1500u);
  EXPECT_EQ(c.ebpf_limits.sets, 64u);
  EXPECT_EQ(c.log_level, "debug");
}

TEST(Config, ExportsHaveTheirOwnWayFormAndFilter) {
  const auto loaded = config_from_text(R"(
exports:
- name: all
  socket: /run/fluent-bit.sock
  tag: "tierlog.{action}.{tier}"
  compress: gzip
  chunk_size: 400KiB
  timeout: 10s
- name: siem
  host: siem.example
  tls: {ca: /ca, cert: /c, key: /k, server_name: siem, verify: false}
  auth: {shared_key_file: /key, user: ann, password_file: /word, hostname: node-7}
  filter: --action deny --logged --not --namespace "kube-system"
  format: ocsf
  omit: [unmapped.trace]
- type: file
  path: /var/log/tierlog/flows.jsonl
  rotate: {size: 1MiB, every: 24h, keep: 3}
  fsync: always
  fields: [id, action]
- {host: other, tls: true}
)",
                                       "c.yaml");
  ASSERT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  ASSERT_EQ(loaded.config.exports.size(), 4u);
  const ExportConfig& all = loaded.config.exports[0];
  EXPECT_EQ(all.forward.socket, "/run/fluent-bit.sock");
  EXPECT_EQ(all.forward.compression, exporters::Compression::Gzip);
  EXPECT_EQ(all.forward.max_chunk_bytes, 400u << 10);
  EXPECT_EQ(all.forward.timeout, std::chrono::seconds(10));
  EXPECT_FALSE(all.forward.tls.on || all.forward.auth.on);
  EXPECT_TRUE(all.filters.empty());
  const ExportConfig& siem = loaded.config.exports[1];
  EXPECT_TRUE(siem.forward.tls.on && !siem.forward.tls.verify && siem.forward.auth.on);
  EXPECT_EQ(siem.forward.tls.ca + siem.forward.tls.cert + siem.forward.tls.key, "/ca/c/k");
  EXPECT_EQ(siem.forward.auth.user + siem.forward.auth.hostname, "annnode-7");
  ASSERT_EQ(siem.filters.size(), 3u);
  EXPECT_TRUE(siem.filters[2].negate);
  EXPECT_EQ(siem.filters[2].values, (std::vector<std::string>{"kube-system"}));
  EXPECT_EQ(siem.forward.format.name, "ocsf");
  const ExportConfig& file = loaded.config.exports[2];
  EXPECT_EQ(file.type, ExportConfig::Type::File);
  EXPECT_EQ(file.name, "file-3");
  EXPECT_EQ(file.file.rotate_bytes, 1u << 20);
  EXPECT_EQ(file.file.rotate_every, std::chrono::hours(24));
  EXPECT_EQ(file.file.keep, 3u);
  EXPECT_EQ(file.file.sync, exporters::FileOptions::Sync::Always);
  EXPECT_EQ(file.file.format.fields, (std::vector<std::string>{"id", "action"}));
  EXPECT_TRUE(loaded.config.exports[3].forward.tls.on);
}

TEST(Config, TheCommandLineStandsInThePlaceOfTheFile) {
  const auto loaded = config_from_text("node: n7\npolicies: [/etc/a]\nstore: {path: /x/f.db}\n", "c.yaml",
                                       {{"node", "n8"},
                                        {"policies", "/etc/b"},
                                        {"policies", "/etc/c"},
                                        {"exports", "[{host: 10.0.0.1}]"},
                                        {"deny_interval", "1m"}});
  ASSERT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  EXPECT_EQ(loaded.config.node, "n8");
  EXPECT_EQ(loaded.config.policies, (std::vector<std::string>{"/etc/b", "/etc/c"}));
  EXPECT_EQ(loaded.config.store_path, "/x/f.db");
  EXPECT_EQ(loaded.config.exports.size(), 1u);
  EXPECT_EQ(loaded.config.deny_interval, std::chrono::minutes(1));
}

TEST(Config, AMistakeOnTheCommandLineNamesTheOption) {
  const auto loaded = config_from_text("", "c.yaml", {{"dataplane", "nftable"}, {"node", ""}});
  EXPECT_NE(loaded.findings.to_string().find("--dataplane:1:1: unknown value \"nftable\""), std::string::npos)
      << loaded.findings.to_string();
  EXPECT_NE(loaded.findings.to_string().find("--node: no value"), std::string::npos);
}

TEST(Config, TheSpoolStandsBesideTheSocketUnlessItIsNamed) {
  EXPECT_EQ(config_from_text("socket: /run/x/s.sock", "c").config.cni_spool, "/run/x/cni-spool");
  EXPECT_EQ(config_from_text("cni: {spool: /var/spool/t}", "c").config.cni_spool, "/var/spool/t");
}

TEST(Config, ANodeWithoutANameHasTheHosts) {
  const auto loaded = config_from_text("node:\ncluster: default\n", "c.yaml");
  EXPECT_FALSE(loaded.findings.has_errors()) << loaded.findings.to_string();
  EXPECT_EQ(loaded.config.node, config_from_text("", "c.yaml").config.node);
}

TEST(Config, AnEmptyFileIsTheDefaults) {
  const auto loaded = config_from_text("", "c.yaml");
  EXPECT_FALSE(loaded.findings.has_errors());
  EXPECT_FALSE(loaded.config.node.empty()) << "the host's name";
  EXPECT_EQ(loaded.config.socket, "/run/tierlog/tierlogd.sock");
}

// They are read later: what is wrong with them now is a warning.
TEST(Config, FilesThatAreNotThereAndSecretsOfEverybodyAreWarnings) {
  const auto folder = std::filesystem::temp_directory_path() / ("tierlog-config-" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  const auto file = [&](const char* name, int mode) {
    const std::string path = (folder / name).string();
    std::ofstream(path) << "x\n";
    std::filesystem::permissions(path, static_cast<std::filesystem::perms>(mode));
    return path;
  };
  const std::string open = file("open", 0644), closed = file("closed", 0640), settings = (folder / "c.yaml").string();
  std::ofstream(settings) << "http: {token: " << open << "}\nexports:\n- tls: {ca: " << open << ", cert: /none, key: " << open
                          << "}\n  auth: {shared_key_file: " << closed << ", user: u, password_file: " << open << "}\n";
  const auto loaded = load_config(settings);
  EXPECT_FALSE(loaded.findings.has_errors());
  const auto everybody = [&](const char* place) {
    return settings + ":" + place + ": warning: everybody on this machine can read " + open +
           "; expected mode 0600 or 0640\n";
  };
  const std::string text = loaded.findings.to_string(), expected = everybody("1:15");
  for (const auto& one : loaded.findings.all()) EXPECT_GT(one.place.column, 0) << one.to_string();
  EXPECT_EQ(loaded.findings.warnings(), 4u) << text;
  EXPECT_EQ(text.substr(0, expected.size()), expected);
  EXPECT_NE(text.find(": warning: /none: No such file or directory; it is read when it is needed\n"), std::string::npos);
  EXPECT_EQ(text.find(closed), std::string::npos) << text;
  std::filesystem::remove_all(folder);
}

struct Mistake {
  const char* title;
  const char* text;
  const char* finding;
};

class Mistakes : public ::testing::TestWithParam<Mistake> {};

TEST_P(Mistakes, AreFindingsWithTheirPlace) {
  const auto loaded = config_from_text(GetParam().text, "c.yaml");
  EXPECT_EQ(loaded.findings.to_string(), GetParam().finding);
  EXPECT_TRUE(loaded.findings.has_errors());
}

INSTANTIATE_TEST_SUITE_P(
    Table, Mistakes,
    ::testing::Values(
        Mistake{"misspelt_key", "dataplan: nftables\n",
                "c.yaml:1:1: unknown key \"dataplan\"; did you mean dataplane?\n"},
        Mistake{"misspelt_key_inside", "store: {pth: x}\n",
                "c.yaml:1:9: unknown key \"pth\"; did you mean path?\n"},
        Mistake{"section_without_map", "nflog: 7\n", "c.yaml:1:8: this is a number; expected a map\n"},
        Mistake{"list_expected", "policies: /etc\n",
                "c.yaml:1:11: this is a string; expected a list of files and folders\n"},
        Mistake{"group_too_large", "nflog: {group: 70000}\n",
                "c.yaml:1:16: \"70000\" is out of range; expected a number from 1 to 65535\n"},
        Mistake{"no_interval", "deny_interval: soon\n",
                "c.yaml:1:16: \"soon\" is no interval; expected at least 1s, such as 10s or 1m\n"},
        Mistake{"interval_too_short", "deny_interval: 10ms\n",
                "c.yaml:1:16: \"10ms\" is no interval; expected at least 1s, such as 10s or 1m\n"},
        Mistake{"unknown_value", "host_to_pod: alow\n",
                "c.yaml:1:14: unknown value \"alow\"; expected one of allow, policy (did you mean allow?)\n"},
        Mistake{"listen", "http: {listen: node-1}\n",
                "c.yaml:1:16: \"node-1\" is no address to listen on; expected one like 127.0.0.1:9477 or [::1]:9477, "
                "or none\n"},
        Mistake{"half_of_tls", "http: {tls: {cert: /c}}\n", "c.yaml:1:13: http.tls has only one of cert and key; expected both\n"},
        Mistake{"export_port", "exports: [{port: many}]\n",
                "c.yaml:1:18: this is a string; expected a number from 1 to 65535\n"},
        Mistake{"export_timeout", "exports: [{timeout: 0s}]\n",
                "c.yaml:1:21: \"0s\" is no time; expected at least 100ms, such as 5s or 24h\n"},
        Mistake{"export_tls", "exports: [{tls: maybe}]\n",
                "c.yaml:1:17: this is a string; expected a map, or true or false\n"},
        Mistake{"series", "metrics: {max_series: 0}\n",
                "c.yaml:1:23: \"0\" is out of range; expected a number from 1 to 1000000\n"},
        Mistake{"export_type", "exports: [{type: syslog}]\n",
                "c.yaml:1:18: unknown export \"syslog\"; expected fluentbit or file\n"},
        Mistake{"export_key", "exports: [{prot: 1}]\n", "c.yaml:1:12: unknown key \"prot\"; did you mean port?\n"},
        Mistake{"export_key_of_another_type", "exports: [{type: file, path: /x, port: 1}]\n",
                "c.yaml:1:34: \"port\" is no key of type file\n"},
        Mistake{"export_filter", "exports: [{filter: --acton deny}]\n",
                "c.yaml:1:20: filter: unknown filter \"acton\"; did you mean action?\n"},
        Mistake{"export_filter_value", "exports: [{filter: --port 99999}]\n",
                "c.yaml:1:20: filter: port 99999; expected 0 to 65535 or a range of these\n"},
        Mistake{"export_range", "exports: [{filter: --since 1h}]\n",
                "c.yaml:1:20: filter: --since is no filter of single records; leave it out: an export goes through all in "
                "order\n"},
        Mistake{"export_tag", "exports: [{tag: \"x.{acton}\"}]\n",
                "c.yaml:1:17: tag: unknown field {acton}; did you mean {action}?\n"},
        Mistake{"export_field", "exports: [{fields: [id, acton]}]\n",
                "c.yaml:1:20: format tierlog has no field \"acton\"; did you mean action?\n"},
        Mistake{"export_twice", "exports: [{name: a}, {name: a}]\n",
                "c.yaml:1:29: a second export called \"a\"; expected a name of its own: its cursor has it\n"},
        Mistake{"export_file_without_path", "exports: [{type: file}]\n",
                "c.yaml:1:11: an export of type file without path; expected one such as /var/log/tierlog/flows.jsonl\n"},
        Mistake{"two_mistakes_at_once", "nodes: x\nlog: {level: loud}\n",
                "c.yaml:1:1: unknown key \"nodes\"; did you mean node?\n"
                "c.yaml:2:14: unknown value \"loud\"; expected one of debug, info, warning, error\n"}),
    [](const auto& param_info) { return std::string(param_info.param.title); });

}  // namespace
}  // namespace tierlog::daemon
