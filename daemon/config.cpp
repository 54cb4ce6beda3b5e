#include "daemon/config.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <utility>

#include "base/time.h"
#include "base/yaml.h"
#include "daemon/config_exports.h"
#include "daemon/config_values.h"
#include "http/address.h"

namespace tierlog::daemon {
namespace {

using yaml::Kind;
using yaml::Node;

std::string host_name() {
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "localhost";
}

// Reads one value into a Config; says what is wrong in `findings`.
using Reader = std::function<void(const Node& value, Config& config, Diagnostics& findings)>;

Reader text(std::string Config::*field) {
  return [field](const Node& value, Config& config, Diagnostics& findings) {
    if (value.kind != Kind::Scalar || value.is_null()) return expected(value, findings, "a string");
    config.*field = value.text;
  };
}

// The shipped file has it without a value.
void read_node(const Node& value, Config& config, Diagnostics& findings) {
  if (!value.is_null()) text(&Config::node)(value, config, findings);
}

Reader duration(std::chrono::milliseconds Config::*field) {
  return [field](const Node& value, Config& config, Diagnostics& findings) {
    const auto parsed = parse_duration(value.text);
    if (value.kind != Kind::Scalar || !parsed || *parsed < std::chrono::seconds(1))
      return findings.error(value.place,
                            "\"" + value.text + "\" is no interval; expected at least 1s, such as 10s or 1m");
    config.*field = std::chrono::duration_cast<std::chrono::milliseconds>(*parsed);
  };
}

Reader one_of(std::vector<std::string> allowed, const std::function<void(Config&, const std::string&)>& set) {
  return [allowed = std::move(allowed), set](const Node& value, Config& config, Diagnostics& findings) {
    for (const std::string& candidate : allowed)
      if (value.kind == Kind::Scalar && value.text == candidate) return set(config, value.text);
    std::string list;
    for (const std::string& candidate : allowed) list += (list.empty() ? "" : ", ") + candidate;
    const std::string near = nearest(value.text, allowed);
    findings.error(value.place, "unknown value \"" + value.text + "\"; expected one of " + list +
                                    (near.empty() ? "" : " (did you mean " + near + "?)"));
  };
}

void read_paths(const Node& value, Config& config, Diagnostics& findings) {
  if (value.kind != Kind::Sequence) return expected(value, findings, "a list of files and folders");
  for (const Node& item : value.items) {
    if (item.kind != Kind::Scalar || item.text.empty())
      expected(item, findings, "a path");
    else
      config.policies.push_back(item.text);
  }
}

void read_exports(const Node& value, Config& config, Diagnostics& findings) {
  if (value.kind != Kind::Sequence) return expected(value, findings, "a list of exports");
  for (const Node& item : value.items)
    config.exports.push_back(read_export(item, config.exports.size() + 1, findings));
  check_names(value, config.exports, findings);
}

void read_group(const Node& value, Config& config, Diagnostics& findings) {
  if (const auto group = read_number(value, 1, findings)) config.nflog_group = *group;
}

void read_log_rate(const Node& value, Config& config, Diagnostics& findings) {
  const auto rate = policy::LogRate::parse(value.text);
  if (rate)
    config.log_rate = *rate;
  else
    findings.error(value.place,
                   "\"" + value.text +
                       "\" is no rate; expected messages per second, minute, hour or day, such as "
                       "1000/s");
}

// An empty list: no port is spared.
Reader failsafes(std::vector<policy::Failsafe> policy::Failsafes::*list) {
  return [list](const Node& value, Config& config, Diagnostics& findings) {
    if (value.kind != Kind::Sequence)
      return expected(value, findings, "a list of ports such as tcp:22; [] for none");
    (config.failsafes.*list).clear();
    for (const Node& item : value.items) {
      if (const auto failsafe = policy::Failsafe::parse(item.text))
        (config.failsafes.*list).push_back(*failsafe);
      else
        findings.error(item.place,
                       "\"" + item.text +
                           "\" is no failsafe port; expected one like tcp:22, udp:68 or tcp:10.0.0.0/8:22");
    }
  };
}

void read_without(const Node& value, Config& config, Diagnostics& findings) {
  static const std::vector<std::string> known{"owner", "egress-hook"};
  if (value.kind != Kind::Sequence) return expected(value, findings, "a list of owner and egress-hook");
  for (const Node& item : value.items) {
    if (item.kind != Kind::Scalar || std::find(known.begin(), known.end(), item.text) == known.end())
      findings.error(item.place, "unknown feature \"" + item.text + "\"; expected owner or egress-hook");
    else
      config.nftables_without.push_back(item.text);
  }
}

void read_max_age(const Node& value, Config& config, Diagnostics& findings) {
  constexpr std::chrono::minutes kLeast{1};
  const auto age = value.text == "0" ? std::optional(Nanoseconds(0)) : parse_duration(value.text);
  if (value.kind != Kind::Scalar || !age || (age->count() != 0 && *age < kLeast)) {
    findings.error(
        value.place,
        "\"" + value.text + "\" is no age; expected at least 1m, such as 7d or 12h, or 0 for no limit");
    return;
  }
  config.store_max_age = std::chrono::duration_cast<std::chrono::milliseconds>(*age);
}

void read_max_bytes(const Node& value, Config& config, Diagnostics& findings) {
  constexpr std::uint64_t kLeast = 16ULL << 20;
  const auto bytes = parse_bytes(value.text);
  if (value.kind == Kind::Scalar && bytes && (*bytes == 0 || *bytes >= kLeast)) {
    config.store_max_bytes = *bytes;
    return;
  }
  findings.error(value.place, "\"" + value.text +
                                  "\" is no size; expected at least 16MiB, such as 8GiB, or 0 for no limit");
}

void read_max_rows(const Node& value, Config& config, Diagnostics& findings) {
  const auto rows = value.as_int();
  if (rows && *rows >= 0)
    config.store_max_rows = static_cast<std::uint64_t>(*rows);
  else
    findings.error(value.place,
                   "\"" + value.text + "\" is no number of records; expected one, or 0 for no limit");
}

void read_listen(const Node& value, Config& config, Diagnostics& findings) {
  if (value.kind != Kind::Scalar) return expected(value, findings, "an address such as 127.0.0.1:9477, or none");
  config.http_listen = value.text == "none" ? "" : value.text;
  if (config.http_listen.empty()) return;
  if (const auto address = http::parse_address(value.text); !address)
    findings.error(value.place, address.error().message + ", or none");
}

Reader truth(bool Config::*field) {
  return one_of({"true", "false"}, [field](Config& c, const std::string& v) { c.*field = v == "true"; });
}

Reader count(std::size_t Config::*field, std::int64_t highest) {
  return [field, highest](const Node& value, Config& config, Diagnostics& findings) {
    const auto parsed = value.as_int();
    if (parsed && *parsed >= 1 && *parsed <= highest)
      config.*field = static_cast<std::size_t>(*parsed);
    else
      findings.error(value.place, "\"" + value.text + "\" is out of range; expected a number from 1 to " +
                                      std::to_string(highest));
  };
}

Reader limit(const dataplane::ebpf::LimitSetting& setting) {
  return [&setting](const Node& value, Config& config, Diagnostics& findings) {
    const auto parsed = value.as_int();
    if (parsed && *parsed >= setting.least && *parsed <= setting.most)
      config.ebpf_limits.*setting.value = static_cast<std::uint32_t>(*parsed);
    else
      findings.error(value.place, "\"" + value.text + "\" is out of range; expected a number from " +
                                      std::to_string(setting.least) + " to " + std::to_string(setting.most));
  };
}

struct Key {
  std::string name;  // "store.path": path in the store map
  Reader read;
};

std::vector<Key> with_limits(std::vector<Key> table) {
  auto place = std::find_if(table.begin(), table.end(), [](const Key& key) { return key.name == "flow_interval"; });
  for (const auto& setting : dataplane::ebpf::limit_settings())
    place = table.insert(place, {"ebpf." + std::string(setting.name), limit(setting)}) + 1;
  return table;
}

const std::vector<Key>& keys() {
  static const std::vector<Key> table = with_limits({
      {"node", read_node},
      {"cluster", text(&Config::cluster)},
      {"dataplane", one_of({"nftables", "ebpf", "auto"}, [](Config& c, const std::string& v) { c.dataplane = v; })},
      {"policies", read_paths},
      {"topology", text(&Config::topology)},
      {"cluster_ips",
       one_of({"topology", "lab"}, [](Config& c, const std::string& v) { c.lab_cluster_ips = v == "lab"; })},
      {"socket", text(&Config::socket)},
      {"cni.spool", text(&Config::cni_spool)},
      {"store.path", text(&Config::store_path)},
      {"store.max_age", read_max_age},
      {"store.max_bytes", read_max_bytes},
      {"store.max_rows", read_max_rows},
      {"nflog.group", read_group},
      {"nftables.without", read_without},
      {"flow_interval", duration(&Config::flow_interval)},
      {"deny_interval", duration(&Config::deny_interval)},
      {"log_interval", duration(&Config::log_interval)},
      {"log_rate", read_log_rate},
      {"failsafe.inbound", failsafes(&policy::Failsafes::inbound)},
      {"failsafe.outbound", failsafes(&policy::Failsafes::outbound)},
      {"enforcement",
       one_of({"enforce", "audit"}, [](Config& c, const std::string& v) { c.audits = v == "audit"; })},
      {"host_to_pod",
       one_of({"allow", "policy"},
              [](Config& c, const std::string& v) { c.host_to_pod_by_policy = v == "policy"; })},
      {"http.listen", read_listen},
      {"http.tls.cert", text(&Config::http_certificate)},
      {"http.tls.key", text(&Config::http_key)},
      {"http.token", text(&Config::http_token)},
      {"metrics.rules", truth(&Config::metrics_rules)},
      {"metrics.max_series", count(&Config::metrics_max_series, 1'000'000)},
      {"metrics.node", truth(&Config::metrics_node)},
      {"metrics.labels",
       one_of({"aks", "snake"}, [](Config& c, const std::string& v) { c.metrics_snake = v == "snake"; })},
      {"metrics.remotes", count(&Config::metrics_remotes, 10'000)},
      {"exports", read_exports},
      {"log.level", one_of({"debug", "info", "warning", "error"},
                           [](Config& c, const std::string& v) { c.log_level = v; })},
  });
  return table;
}

// Names that may follow `prefix` ("" or "store.").
std::vector<std::string> names_after(const std::string& prefix) {
  std::vector<std::string> names;
  for (const Key& key : keys()) {
    if (key.name.rfind(prefix, 0) != 0) continue;
    const std::string rest = key.name.substr(prefix.size());
    const std::string head = rest.substr(0, rest.find('.'));
    if (names.empty() || names.back() != head) names.push_back(head);
  }
  return names;
}

void read_map(const Node& map, const std::string& prefix, Config& config, Diagnostics& findings) {
  for (const auto& [key, value] : map.entries) {
    const std::string full = prefix + key.text;
    const Key* found = nullptr;
    bool section = false;
    for (const Key& candidate : keys()) {
      if (candidate.name == full) found = &candidate;
      section = section || candidate.name.rfind(full + ".", 0) == 0;
    }
    if (found != nullptr)
      found->read(value, config, findings);
    else if (section && value.kind == Kind::Map)
      read_map(value, full + ".", config, findings);
    else if (section)
      expected(value, findings, "a map");
    else
      unknown_key(key, names_after(prefix), findings);
  }
}

// What stands on the command line, as if it stood in a file called "--KEY".
void read_overrides(const std::vector<Override>& overrides, Config& config, Diagnostics& findings) {
  bool policies = false;
  for (const Override& one : overrides) {
    if (one.key == "policies") {
      if (!std::exchange(policies, true)) config.policies.clear();
      config.policies.push_back(one.value);
      continue;
    }
    const auto found =
        std::find_if(keys().begin(), keys().end(), [&](const Key& key) { return key.name == one.key; });
    const yaml::Documents value = yaml::parse(one.value, "--" + one.key);
    findings.add(value.findings);
    if (found == keys().end() || value.documents.size() != 1)
      findings.error({"--" + one.key, 0, 0}, "no value; expected one");
    else
      found->read(value.documents.front(), config, findings);
  }
}

SourceRef place_of_tls(const yaml::Documents& documents) {
  if (!documents.documents.empty())
    if (const Node* http = documents.documents.front().find("http"))
      if (const Node* tls = http->find("tls")) return tls->place;
  return {"--http.tls", 0, 0};
}

// What a file is for that a setting names: others than its owner and group may not read a secret.
enum class Content : std::uint8_t { Public, Secret };

void look_at_file(const Node& value, Content content, Diagnostics& findings) {
  struct stat status {};
  if (value.kind != Kind::Scalar || value.text.empty()) return;
  if (::stat(value.text.c_str(), &status) != 0)
    return findings.warning(value.place, value.text + ": " + std::string(std::strerror(errno)) +
                                             "; it is read when it is needed");
  if (content == Content::Secret && (status.st_mode & S_IROTH) != 0)
    findings.warning(value.place, "everybody on this machine can read " + value.text + "; expected mode 0600 or 0640");
}

void look_at_files(const Node& settings, const std::vector<std::pair<const char*, Content>>& keys, Diagnostics& findings) {
  for (const auto& [key, content] : keys)
    if (const Node* value = settings.find(key)) look_at_file(*value, content, findings);
}

// Files that are read later, so that a wrong name is no surprise then.
void look_at_files(const yaml::Documents& documents, Diagnostics& findings) {
  using enum Content;
  if (documents.documents.empty()) return;
  const Node& top = documents.documents.front();
  if (const Node* http = top.find("http")) {
    look_at_files(*http, {{"token", Secret}}, findings);
    if (const Node* tls = http->find("tls")) look_at_files(*tls, {{"cert", Public}, {"key", Secret}}, findings);
  }
  const Node* exports = top.find("exports");
  if (exports == nullptr) return;
  for (const Node& one : exports->items) {
    if (const Node* tls = one.find("tls"))
      look_at_files(*tls, {{"ca", Public}, {"cert", Public}, {"key", Secret}}, findings);
    if (const Node* auth = one.find("auth"))
      look_at_files(*auth, {{"shared_key_file", Secret}, {"password_file", Secret}}, findings);
  }
}

LoadedConfig from_documents(const yaml::Documents& documents, const std::vector<Override>& overrides) {
  LoadedConfig loaded;
  Config& config = loaded.config;
  config.node = host_name();
  loaded.findings = documents.findings;
  if (documents.documents.size() > 1)
    loaded.findings.error(documents.documents[1].place, "a second document; expected one");
  if (!documents.documents.empty()) {
    const Node& top = documents.documents.front();
    if (top.kind == Kind::Map)
      read_map(top, "", config, loaded.findings);
    else if (!top.is_null())
      expected(top, loaded.findings, "a map of settings");
  }
  read_overrides(overrides, config, loaded.findings);
  if (config.http_certificate.empty() != config.http_key.empty())
    loaded.findings.error(place_of_tls(documents), "http.tls has only one of cert and key; expected both");
  if (config.cni_spool.empty())
    config.cni_spool = (std::filesystem::path(config.socket).parent_path() / "cni-spool").string();
  loaded.findings.sort();
  return loaded;
}

}  // namespace

std::string Config::state_path() const {
  return (std::filesystem::path(store_path).parent_path() / "state.db").string();
}

LoadedConfig load_config(const std::string& path, const std::vector<Override>& overrides) {
  const yaml::Documents documents = yaml::parse_file(path);
  LoadedConfig loaded = from_documents(documents, overrides);
  look_at_files(documents, loaded.findings);
  loaded.findings.sort();
  return loaded;
}

LoadedConfig config_from_text(const std::string& content, const std::string& file_name,
                              const std::vector<Override>& overrides) {
  return from_documents(yaml::parse(content, file_name), overrides);
}

std::vector<std::string> config_keys() {
  std::vector<std::string> names;
  for (const Key& key : keys()) names.push_back(key.name);
  return names;
}

}  // namespace tierlog::daemon
