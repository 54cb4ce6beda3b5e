// api/api.h - the query API: what the listings of the command answer, over HTTP, read-only.
//
//   http/ --Request--> [Api] --query/, store/--> flows.db (read-only connections)
//                        ` status: what the daemon's loop published last
//
// Same filters, same JSON, same sentences as `tierlog … -o json` (docs/api.md). Never touches the event path.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/time.h"
#include "http/server.h"

namespace tierlog::api {

// What `status` answers, as JSON text; the time at which it was made is in it. nullptr: not there yet.
using Status = std::function<std::shared_ptr<const std::string>()>;

class Api {
 public:
  static constexpr const char* kPrefix = "/api/v1";

  Api(std::string flows_path, Status status, const Clock& clock);
  ~Api();

  // Called from several threads.
  http::Response answer(const http::Request& request) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::api
