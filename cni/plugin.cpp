#include "cni/plugin.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <nlohmann/json.hpp>

#include "base/result.h"
#include "cni/configuration.h"
#include "cni/spool.h"
#include "endpoints/control.h"

namespace tierlog::cni {
namespace {

using Json = nlohmann::ordered_json;

// Loading many rules for a new pod may take a while; a runtime waits for minutes.
constexpr auto kPatience = std::chrono::seconds(60);
// DEL has the spool to fall back on.
constexpr auto kShortPatience = std::chrono::seconds(10);

std::string printable(const Json& json) {
  return json.dump(4, ' ', false, Json::error_handler_t::replace) + "\n";
}

Output failed(const Failure& failure, std::string_view version) {
  Json error{{"cniVersion", version},
             {"code", static_cast<int>(failure.code)},
             {"msg", failure.message.empty() ? "tierlog-cni failed" : failure.message}};
  if (!failure.details.empty()) error["details"] = failure.details;
  return {printable(error), 1};
}

Output version_output() {
  Json versions = Json::array();
  for (const auto version : kVersions) versions.push_back(version);
  return {printable({{"cniVersion", kNewestVersion}, {"supportedVersions", std::move(versions)}}), 0};
}

// Both end up in file names and in the daemon's keys.
bool is_id(const std::string& text) {
  const auto fits = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.' || c == '-'; };
  return !text.empty() && std::isalnum(static_cast<unsigned char>(text.front())) != 0 &&
         std::ranges::all_of(text, fits);
}

bool is_interface(const std::string& text) {
  const auto bad = [](unsigned char c) { return c == '/' || c == ':' || std::isspace(c) != 0; };
  return !text.empty() && text.size() < 16 && text != "." && text != ".." && std::ranges::none_of(text, bad);
}

Outcome<void> check_environment(const Environment& environment) {
  if (!is_id(environment.container_id)) {
    return refuse(Code::InvalidEnvironment, "CNI_CONTAINERID is \"" + environment.container_id +
                                                "\"; expected letters, digits, _, . and -");
  }
  if (!is_interface(environment.interface)) {
    return refuse(Code::InvalidEnvironment,
                  "CNI_IFNAME is \"" + environment.interface + "\"; expected an interface's name");
  }
  if (environment.command != "DEL" && environment.netns.empty()) {
    return refuse(Code::InvalidEnvironment, "CNI_NETNS is not set; expected the path of a network namespace");
  }
  return {};
}

Failure from_daemon(const Error& error, Code when_unknown) {
  switch (error.code) {
    case ErrorCode::Unavailable:
      return {Code::TryAgainLater, "tierlogd is not ready; try again", error.message};
    case ErrorCode::InvalidArgument:
      return {Code::InvalidConfiguration, error.message, {}};
    case ErrorCode::NotFound:
      return {when_unknown, error.message, {}};
    case ErrorCode::Io:
    case ErrorCode::Corrupt:
      return {Code::IoFailure, error.message, {}};
    case ErrorCode::Refused:
      break;
  }
  return {Code::Refused, error.message, {}};
}

// The request that registers a pod, or asks whether it is registered like this.
Outcome<nlohmann::json> pod_request(const char* operation, const Environment& environment,
                                    const Configuration& config, const Links& links) {
  if (!config.previous) {
    return refuse(Code::InvalidConfiguration,
                  "no prevResult; expected tierlog-cni after a plugin that makes the pod's interface");
  }
  TL_ASSIGN(const PodName pod, read_pod_name(environment.arguments));
  if (config.previous->addresses.empty()) {
    return refuse(Code::InvalidConfiguration, "prevResult has no address of the pod; expected at least one");
  }
  TL_ASSIGN(const std::string interface, host_interface(*config.previous, environment, links));
  auto addresses = nlohmann::json::array();
  for (const auto& address : config.previous->addresses) addresses.push_back(address.to_string());
  std::string mac;
  for (const auto& one : config.previous->interfaces)
    if (!one.sandbox.empty() && one.name == environment.interface) mac = one.mac;
  if (mac.empty()) mac = links.mac_in_container(environment.netns, environment.interface);
  return nlohmann::json{{"op", operation},
                        {"container_id", environment.container_id},
                        {"ifname", environment.interface},
                        {"netns", environment.netns},
                        {"namespace", pod.pod_namespace},
                        {"name", pod.name},
                        {"labels", config.labels},
                        {"addresses", std::move(addresses)},
                        {"interface", interface},
                        {"mac", mac}};
}

Outcome<std::string> add(const Environment& environment, const Configuration& config, const Links& links) {
  TL_ASSIGN(const auto request, pod_request("cni-add", environment, config, links));
  const auto answer = endpoints::call(config.socket, request, kPatience);
  if (!answer) return tl::unexpected(from_daemon(answer.error(), Code::Refused));
  return config.previous->text + "\n";
}

Outcome<std::string> check(const Environment& environment, const Configuration& config, const Links& links) {
  if (config.version == "0.3.1") {
    return refuse(Code::IncompatibleVersion, "CNI 0.3.1 has no CHECK; expected cniVersion 0.4.0 or 1.0.0");
  }
  TL_ASSIGN(const auto request, pod_request("cni-check", environment, config, links));
  const auto answer = endpoints::call(config.socket, request, kPatience);
  if (!answer) return tl::unexpected(from_daemon(answer.error(), Code::NotEnforced));
  return std::string();
}

Outcome<std::string> del(const Environment& environment, const Configuration& config) {
  nlohmann::json request{
      {"op", "cni-del"}, {"container_id", environment.container_id}, {"ifname", environment.interface}};
  if (endpoints::call(config.socket, request, kShortPatience)) return std::string();
  request["v"] = 1;
  const auto path = spool(config.spool, environment.container_id, environment.interface, request.dump());
  // A daemon that has come up meanwhile read the spool before this request was in it.
  const bool told = endpoints::call(config.socket, request, kShortPatience).has_value();
  if (told && path) ::unlink(path->c_str());
  return std::string();
}

Outcome<std::string> dispatch(const Environment& environment, const Configuration& config,
                              const Links& links) {
  TL_TRY(check_environment(environment));
  if (environment.command == "ADD") return add(environment, config, links);
  if (environment.command == "CHECK") return check(environment, config, links);
  return del(environment, config);
}

// What is wrong with CNI_COMMAND, if anything.
Outcome<void> check_command(const std::string& command) {
  if (command == "ADD" || command == "CHECK" || command == "DEL") return {};
  if (command == "GC" || command == "STATUS") {
    return refuse(Code::IncompatibleVersion,
                  command + " is of CNI 1.1.0; tierlog-cni speaks up to " + std::string(kNewestVersion));
  }
  return refuse(Code::InvalidEnvironment,
                "CNI_COMMAND is \"" + command + "\"; expected ADD, CHECK, DEL or VERSION");
}

}  // namespace

Output run(const Environment& environment, std::string_view configuration, const Links& links) {
  if (environment.command == "VERSION") return version_output();
  if (const auto known = check_command(environment.command); !known) {
    return failed(known.error(), kNewestVersion);
  }
  auto config = read_configuration(configuration);
  if (!config && environment.command == "DEL") config = configuration_for_del(configuration);
  if (!config) return failed(config.error(), kNewestVersion);
  const auto done = dispatch(environment, *config, links);
  if (!done) return failed(done.error(), config->version);
  return {*done, 0};
}

}  // namespace tierlog::cni
