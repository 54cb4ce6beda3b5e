// cni/configuration.h - the network configuration on stdin, and CNI_ARGS, as the plugin needs them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/net_types.h"
#include "cni/protocol.h"

namespace tierlog::cni {

// The versions of the specification that the plugin speaks, oldest first.
inline constexpr std::string_view kVersions[] = {"0.3.1", "0.4.0", "1.0.0"};
inline constexpr std::string_view kNewestVersion = "1.0.0";
bool is_supported(std::string_view version);

// The result of the plugins before this one.
struct PreviousResult {
  struct Interface {
    std::string name;
    std::string sandbox;  // empty: on the host
    std::string mac{};    // empty: not told
  };
  std::vector<Interface> interfaces;
  std::vector<IpAddr> addresses;  // of the container's side
  std::string text;               // as it came
};

struct Configuration {
  std::string version;
  std::string socket;                         // tierlogd's
  std::string spool;                          // where DEL leaves its request while the daemon is down
  std::map<std::string, std::string> labels;  // args.cni.labels
  std::optional<PreviousResult> previous;
};

// Errors: UndecodableContent, IncompatibleVersion, InvalidConfiguration.
Outcome<Configuration> read_configuration(std::string_view text);

// What DEL needs, from whatever can be read: a configuration that ADD refused must not keep a pod from going.
Configuration configuration_for_del(std::string_view text);

struct PodName {
  std::string pod_namespace;
  std::string name;
};

// K8S_POD_NAMESPACE and K8S_POD_NAME out of "KEY=value;KEY=value"; other keys do not matter. Errors:
// InvalidEnvironment.
Outcome<PodName> read_pod_name(std::string_view arguments);

}  // namespace tierlog::cni
