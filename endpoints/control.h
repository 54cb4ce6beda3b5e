// endpoints/control.h - how programs talk to the daemon: newline-delimited JSON on its Unix socket.
//
//   tierlog, tierlog-cni --{"v":1,"op":…}--> tierlogd --{"v":1,"ok":true,…}-->
//
// One request a connection. A refusal is {"v":1,"ok":false,"code":"invalid|not-found|unavailable|refused",
// "error":"…"}. Operations: see docs/control.md.
#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "base/result.h"

namespace tierlog::endpoints {

inline constexpr const char* kDefaultSocket = "/run/tierlog/tierlogd.sock";

// Sends `request` (the "v" is added) and returns the answer's object when it is ok.
// Errors: Unavailable (nobody listens, or no answer in time), else the daemon's own code and words.
Result<nlohmann::json> call(const std::string& socket_path, const nlohmann::json& request,
                            std::chrono::milliseconds timeout = std::chrono::seconds(10));

}  // namespace tierlog::endpoints
