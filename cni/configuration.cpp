#include "cni/configuration.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/result.h"
#include "endpoints/control.h"

namespace tierlog::cni {
namespace {

// Keeps the order of keys, so that a result leaves as it came.
using Json = nlohmann::ordered_json;

Failure invalid(const std::string& what) {
  return {Code::InvalidConfiguration, what, {}};
}

std::string supported_list() {
  std::string list;
  for (const auto version : kVersions) list.append(list.empty() ? "" : ", ").append(version);
  return list;
}

// An optional string member. Errors: it is something else.
Outcome<std::string> text_member(const Json& object, const char* key, std::string missing) {
  const auto found = object.find(key);
  if (found == object.end()) return missing;
  if (!found->is_string()) return tl::unexpected(invalid(std::string(key) + " is not a string"));
  return found->get<std::string>();
}

// A member of a nested object, nullptr when some step is missing.
const Json* descend(const Json& object, std::initializer_list<const char*> keys) {
  const Json* at = &object;
  for (const char* key : keys) {
    if (!at->is_object()) return nullptr;
    const auto found = at->find(key);
    if (found == at->end() || found->is_null()) return nullptr;
    at = &*found;
  }
  return at;
}

Outcome<std::map<std::string, std::string>> read_labels(const Json& config) {
  std::map<std::string, std::string> labels;
  const Json* list = descend(config, {"args", "cni", "labels"});
  if (list == nullptr) return labels;
  const auto expected = [] {
    return tl::unexpected(invalid("args.cni.labels is not a list of {\"key\": …, \"value\": …}"));
  };
  if (!list->is_array()) return expected();
  for (const auto& entry : *list) {
    const Json* key = descend(entry, {"key"});
    const Json* value = descend(entry, {"value"});
    if (key == nullptr || value == nullptr || !key->is_string() || !value->is_string()) return expected();
    labels[key->get<std::string>()] = value->get<std::string>();
  }
  return labels;
}

// Whether an entry of `ips` belongs to the host's side.
bool on_host(const Json& ip, const std::vector<PreviousResult::Interface>& interfaces) {
  const Json* index = descend(ip, {"interface"});
  if (index == nullptr || !index->is_number_unsigned()) return false;
  const auto number = index->get<std::size_t>();
  return number < interfaces.size() && interfaces[number].sandbox.empty();
}

Outcome<void> read_addresses(const Json& result, PreviousResult& into) {
  const Json* ips = descend(result, {"ips"});
  if (ips == nullptr) return {};
  if (!ips->is_array()) return tl::unexpected(invalid("prevResult.ips is not a list"));
  for (const auto& ip : *ips) {
    if (on_host(ip, into.interfaces)) continue;
    const Json* text = descend(ip, {"address"});
    const std::string address = text != nullptr && text->is_string() ? text->get<std::string>() : "";
    const auto parsed = IpAddr::parse(std::string_view(address).substr(0, address.find('/')));
    if (!parsed) {
      return tl::unexpected(invalid("prevResult.ips has the address \"" + address +
                                    "\"; expected an IP address with a prefix length"));
    }
    into.addresses.push_back(*parsed);
  }
  return {};
}

Outcome<std::optional<PreviousResult>> read_previous(const Json& config) {
  const Json* result = descend(config, {"prevResult"});
  if (result == nullptr) return std::nullopt;
  if (!result->is_object()) return tl::unexpected(invalid("prevResult is not an object"));
  PreviousResult previous;
  previous.text = result->dump();
  if (const Json* list = descend(*result, {"interfaces"}); list != nullptr) {
    if (!list->is_array()) return tl::unexpected(invalid("prevResult.interfaces is not a list"));
    for (const auto& entry : *list) {
      if (!entry.is_object()) return tl::unexpected(invalid("prevResult.interfaces holds no objects"));
      TL_ASSIGN(std::string name, text_member(entry, "name", ""));
      TL_ASSIGN(std::string sandbox, text_member(entry, "sandbox", ""));
      TL_ASSIGN(std::string mac, text_member(entry, "mac", ""));
      previous.interfaces.push_back({std::move(name), std::move(sandbox), std::move(mac)});
    }
  }
  TL_TRY(read_addresses(*result, previous));
  return previous;
}

std::string folder_of(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

}  // namespace

bool is_supported(std::string_view version) {
  return std::ranges::find(kVersions, version) != std::end(kVersions);
}

Outcome<Configuration> read_configuration(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) {
    return refuse(Code::UndecodableContent, "the network configuration on stdin is no JSON object");
  }
  Configuration config;
  // What a configuration without a version means was settled by the first specification.
  TL_ASSIGN(config.version, text_member(json, "cniVersion", "0.1.0"));
  if (!is_supported(config.version)) {
    return refuse(
        Code::IncompatibleVersion, "incompatible CNI versions",
        "the configuration is of version \"" + config.version + "\", tierlog-cni speaks " + supported_list());
  }
  TL_ASSIGN(const std::string name, text_member(json, "name", ""));
  if (name.empty()) return tl::unexpected(invalid("the network configuration has no name"));
  TL_ASSIGN(config.socket, text_member(json, "socket", endpoints::kDefaultSocket));
  TL_ASSIGN(config.spool, text_member(json, "spool", folder_of(config.socket) + "/cni-spool"));
  TL_ASSIGN(config.labels, read_labels(json));
  TL_ASSIGN(config.previous, read_previous(json));
  return config;
}

Configuration configuration_for_del(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  const auto member = [&](const char* key, std::string missing) {
    const Json* found = descend(json, {key});
    return found != nullptr && found->is_string() ? found->get<std::string>() : std::move(missing);
  };
  Configuration config;
  config.version = std::string(kNewestVersion);
  config.socket = member("socket", endpoints::kDefaultSocket);
  config.spool = member("spool", folder_of(config.socket) + "/cni-spool");
  return config;
}

Outcome<PodName> read_pod_name(std::string_view arguments) {
  PodName pod;
  while (!arguments.empty()) {
    const std::string_view pair = arguments.substr(0, arguments.find(';'));
    arguments.remove_prefix(std::min(arguments.size(), pair.size() + 1));
    const auto equals = pair.find('=');
    if (pair.empty()) continue;
    if (equals == std::string_view::npos) {
      return refuse(Code::InvalidEnvironment,
                    "CNI_ARGS has \"" + std::string(pair) + "\"; expected KEY=value");
    }
    const std::string_view key = pair.substr(0, equals);
    const std::string value(pair.substr(equals + 1));
    if (key == "K8S_POD_NAMESPACE") pod.pod_namespace = value;
    if (key == "K8S_POD_NAME") pod.name = value;
  }
  if (pod.pod_namespace.empty() || pod.name.empty()) {
    return refuse(Code::InvalidEnvironment,
                  "CNI_ARGS does not name the pod; expected K8S_POD_NAMESPACE and K8S_POD_NAME");
  }
  return pod;
}

}  // namespace tierlog::cni
