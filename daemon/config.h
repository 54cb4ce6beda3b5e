// daemon/config.h - tierlogd.yaml as one struct. Every key is one row of a table in config.cpp; the shipped
// deploy/tierlogd.yaml documents each.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "base/diagnostics.h"
#include "dataplane/ebpf/limits.h"
#include "exporters/options.h"
#include "policy/program.h"
#include "store/query.h"

namespace tierlog::daemon {

// One entry of exports[].
struct ExportConfig {
  enum class Type : std::uint8_t { Fluentbit, File } type = Type::Fluentbit;
  std::string name;  // type + position when not given
  exporters::ForwardOptions forward;
  exporters::FileOptions file;
  std::string filter;  // as typed; empty: every record
  std::vector<store::FieldFilter> filters;
};

struct Config {
  std::string node;  // default: the host's name
  std::string cluster = "default";
  std::string dataplane = "nftables";
  std::vector<std::string> policies;  // files and folders
  std::string topology;               // empty: none
  std::string socket = "/run/tierlog/tierlogd.sock";
  std::string cni_spool;  // default: cni-spool beside the socket
  std::string store_path = "/var/lib/tierlog/flows.db";
  // What the flow index may grow to; 0: no limit.
  std::chrono::milliseconds store_max_age = std::chrono::hours(24 * 30);
  std::uint64_t store_max_bytes = 8ULL << 30;
  std::uint64_t store_max_rows = 0;
  std::uint16_t nflog_group = 4610;
  std::vector<std::string> nftables_without;  // "owner", "egress-hook": do as on a kernel without it
  dataplane::ebpf::Limits ebpf_limits;
  std::chrono::milliseconds flow_interval{60'000};
  std::chrono::milliseconds deny_interval{10'000};
  std::chrono::milliseconds log_interval{10'000};
  policy::LogRate log_rate{1000, 1};  // messages of one Log rule
  policy::Failsafes failsafes = policy::default_failsafes();
  bool audits = false;                 // enforcement: enforce | audit
  bool lab_cluster_ips = false;        // cluster_ips: topology | lab
  bool host_to_pod_by_policy = false;  // host_to_pod: allow | policy
  std::vector<ExportConfig> exports;
  std::string http_listen = "127.0.0.1:9477";  // empty: no HTTP (http.listen: none)
  std::string http_certificate, http_key;      // PEM files; both or none
  std::string http_token;                      // file whose first line is the token; empty: none is asked for
  bool metrics_rules = false;                  // series for each rule
  std::size_t metrics_max_series = 2000;       // of one kind whose labels are not policies
  bool metrics_node = true;
  bool metrics_snake = false;  // metrics.labels: aks | snake
  std::size_t metrics_remotes = 100;
  std::string log_level = "info";

  std::string state_path() const;  // state.db beside the flow index
};

struct LoadedConfig {
  Config config;
  Diagnostics findings;
};

// A setting from the command line: its key as a path ("store.path") and its value as YAML; of "policies"
// each is one path, and all together are in the place of the file's.
struct Override {
  std::string key, value;
};

LoadedConfig load_config(const std::string& path, const std::vector<Override>& overrides = {});
LoadedConfig config_from_text(const std::string& text, const std::string& file_name,
                              const std::vector<Override>& overrides = {});
std::vector<std::string> config_keys();  // as paths, in the shipped file's order

}  // namespace tierlog::daemon
