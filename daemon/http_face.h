// daemon/http_face.h - the daemon towards HTTP: probes, metrics, the query API. On threads of its own.
//
//   Daemon's loop --publish(), every two seconds--> [HttpFace] <--GET-- Prometheus, probes, curl
//                                        flows.db --^ read-only
//
// No request is answered by the loop and none waits for it.
#pragma once

#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "api/api.h"
#include "base/result.h"
#include "base/time.h"
#include "daemon/config.h"
#include "exporters/prometheus/collector.h"
#include "exporters/prometheus/health.h"
#include "http/server.h"

namespace tierlog::daemon {

class HttpFace {
 public:
  // Reads certificate and token; opens what needs privileges. Errors: InvalidArgument (a file of the
  // settings).
  static Result<std::unique_ptr<HttpFace>> open(const Config& config, const Clock& clock);
  ~HttpFace();

  // From now on threads answer, with the privileges that are left; again and again until the address is free.
  // Errors: why it is not answered yet.
  Result<void> start();
  bool answers() const { return server_ != nullptr; }
  std::string url() const;
  // Why the kernel's tracepoints tell nothing; empty: they do, or nobody asked for it.
  const std::string& events_problem() const { return events_problem_; }
  bool is_open_to_all() const;  // beyond loopback, and no token is asked for

  // What status and metrics tell until the next call.
  void publish(prometheus::Health health, const nlohmann::json& status);

 private:
  struct Published;
  HttpFace(const Config& config, const Clock& clock);
  std::shared_ptr<const Published> published() const;
  std::shared_ptr<const std::string> status() const;
  http::Response metrics(const http::Request& request);
  http::Response healthz() const;
  http::Response readyz() const;

  const Config& config_;
  const Clock& clock_;
  http::Options options_;
  std::string events_problem_;
  mutable std::mutex mutex_;
  std::shared_ptr<const Published> published_;
  std::unique_ptr<prometheus::Collector> collector_;
  std::unique_ptr<api::Api> api_;
  std::unique_ptr<http::Server> server_;  // last: its threads end first
};

}  // namespace tierlog::daemon
