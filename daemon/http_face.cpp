#include "daemon/http_face.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "daemon/host_view.h"
#include "exporters/prometheus/node/node_source.h"
#include "store/query.h"

namespace tierlog::daemon {
namespace {

using nlohmann::json;

// The loop publishes every two seconds; a change of a large rule set keeps it busy for some more.
constexpr std::chrono::seconds kStuckAfter{60};

constexpr std::size_t kLongestSecret = 1 << 20;

Result<std::string> read_file(const std::string& path, const char* key) {
  auto text = tierlog::read_file(path, kLongestSecret);
  if (text) return text;
  return fail(ErrorCode::InvalidArgument, std::string(key) + ": cannot read " + path + ": " + text.error().message);
}

// As Recorder::books() has them, but from the flow index alone: what the next reading will bring is on its
// way.
void add_books(json& status, store::FlowReader& reader) {
  const auto rules = reader.rules({}, true);
  const auto losses = reader.losses();
  if (!rules || !losses) return;
  std::uint64_t kernel = 0, recorded = 0, unattributed = 0, waiting = 0;
  for (const store::RuleActivity& rule : *rules) {
    if (rule.rule.action != "Allow" && rule.rule.action != "Deny") continue;
    kernel += rule.kernel_packets;
    recorded += rule.recorded_packets;
    unattributed += rule.unattributed;
    waiting += rule.kernel_packets - std::min(rule.kernel_packets, rule.recorded_packets + rule.unattributed);
  }
  std::map<std::string, std::uint64_t> causes;
  for (const store::LossCount& loss : *losses)
    if (loss.rule != RuleId::None && loss.packets > 0) causes[loss.cause] += loss.packets;
  status["books"] = {{"kernel", kernel},   {"recorded", recorded}, {"unattributed", unattributed},
                     {"waiting", waiting}, {"undeclared", 0},      {"causes", causes}};
}

void add_times(json& status, store::FlowReader& reader) {
  const auto time_of = [&](std::int64_t sequence) {
    const auto record = reader.record_at(sequence);
    return record ? json(format_rfc3339(record->end)) : json();
  };
  store::FlowQuery oldest;
  oldest.oldest_first = true;
  oldest.limit = 1;
  const auto first = reader.flows(oldest);
  status["store"]["oldest_time"] =
      first && !first->empty() ? json(format_rfc3339(first->front().record.end)) : json();
  for (json& one : status["exports"])
    one["delivered_time"] = time_of(one.value("delivered_sequence", std::int64_t{0}));
}

}  // namespace

struct HttpFace::Published {
  std::shared_ptr<const prometheus::Health> health;
  json status;
};

HttpFace::HttpFace(const Config& config, const Clock& clock) : config_(config), clock_(clock) {}
HttpFace::~HttpFace() = default;

Result<std::unique_ptr<HttpFace>> HttpFace::open(const Config& config, const Clock& clock) {
  std::unique_ptr<HttpFace> face(new HttpFace(config, clock));
  face->options_.listen = config.http_listen;
  if (!config.http_certificate.empty()) {
    TL_ASSIGN(face->options_.certificate, read_file(config.http_certificate, "http.tls.cert"));
    TL_ASSIGN(face->options_.key, read_file(config.http_key, "http.tls.key"));
  }
  if (!config.http_token.empty()) {
    TL_ASSIGN(std::string token, read_file(config.http_token, "http.token"));
    token.erase(std::min(token.size(), token.find_first_of("\r\n")));
    if (token.empty())
      return fail(ErrorCode::InvalidArgument,
                  "http.token: the first line of " + config.http_token + " is empty");
    face->options_.token = token;
  }
  prometheus::Options options;
  options.version = TIERLOG_VERSION;
  options.node = config.node;
  options.cluster = config.cluster;
  options.flows_path = config.store_path;
  const std::filesystem::path folder = std::filesystem::path(config.state_path()).parent_path();
  options.tally_file = (folder / "metrics.json").string();
  options.ledger_file = (folder / "counters.json").string();
  options.boot = KernelView().boot_id();
  options.rules = config.metrics_rules;
  options.max_series = config.metrics_max_series;
  options.labels = config.metrics_snake ? prometheus::LabelStyle::Snake : prometheus::LabelStyle::Aks;
  std::unique_ptr<prometheus::NodeMetrics> node;
  if (config.metrics_node) {
    std::unique_ptr<prometheus::KernelEvents> events;
    auto opened = prometheus::KernelEvents::open();
    if (opened)
      events = std::move(*opened);
    else
      face->events_problem_ = opened.error().message;
    node = std::make_unique<prometheus::NodeMetrics>(std::move(events), config.metrics_remotes, clock);
  }
  HttpFace* self = face.get();
  face->collector_ = std::make_unique<prometheus::Collector>(
      std::move(options),
      [self] {
        const auto now = self->published();
        return now ? now->health : nullptr;
      },
      std::move(node), clock);
  face->api_ = std::make_unique<api::Api>(
      config.store_path, [self] { return self->status(); }, clock);
  return face;
}

Result<void> HttpFace::start() {
  TL_ASSIGN(auto server, http::Server::listen(options_));
  using http::Request;
  using Cost = http::Route::Cost;
  TL_TRY(server->start(
      {{"/metrics", [this](const Request& request) { return metrics(request); }, Cost::Short, false},
       {"/healthz", [this](const Request&) { return healthz(); }, Cost::Short, true},
       {"/readyz", [this](const Request&) { return readyz(); }, Cost::Short, true},
       {api::Api::kPrefix, [this](const Request& request) { return api_->answer(request); }, Cost::Long,
        false}}));
  collector_->start();
  server_ = std::move(server);
  return {};
}

std::string HttpFace::url() const {
  return server_ ? server_->url() : "";
}

bool HttpFace::is_open_to_all() const {
  return server_ && options_.token.empty() && !server_->is_loopback();
}

void HttpFace::publish(prometheus::Health health, const json& status) {
  auto made = std::make_shared<Published>();
  health.made_at = clock_.boottime();
  made->health = std::make_shared<const prometheus::Health>(std::move(health));
  made->status = status;
  made->status["as_of"] = format_rfc3339(clock_.wall());
  const std::lock_guard lock(mutex_);
  published_ = std::move(made);
}

std::shared_ptr<const HttpFace::Published> HttpFace::published() const {
  const std::lock_guard lock(mutex_);
  return published_;
}

std::shared_ptr<const std::string> HttpFace::status() const {
  const auto now = published();
  if (!now) return nullptr;
  json status = now->status;
  if (auto reader = store::FlowReader::open(config_.store_path)) {
    add_books(status, *reader);
    add_times(status, *reader);
  }
  return std::make_shared<const std::string>(status.dump(2, ' ', false, json::error_handler_t::replace) +
                                             "\n");
}

http::Response HttpFace::metrics(const http::Request& request) {
  auto answer = collector_->scrape(request.accept);
  if (!answer) return http::refusal(503, answer.error().message);
  return {200, answer->type, std::move(answer->body)};
}

http::Response HttpFace::healthz() const {
  const auto now = published();
  const Nanoseconds age = now ? clock_.boottime() - now->health->made_at : Nanoseconds::max();
  if (age < kStuckAfter) return {200, "text/plain; charset=utf-8", "ok\n"};
  return {503, "text/plain; charset=utf-8",
          now ? "the daemon's loop has not come round for " + format_duration(age) + "\n" : "starting\n"};
}

http::Response HttpFace::readyz() const {
  const auto now = published();
  if (!now) return {503, "text/plain; charset=utf-8", "starting\n"};
  if (!now->health->ready)
    return {503, "text/plain; charset=utf-8", "no good policy set: all traffic of endpoints is denied\n"};
  return {200, "text/plain; charset=utf-8",
          now->health->in_sync ? "ready\n" : "ready, but the policy files are not what is in force\n"};
}

}  // namespace tierlog::daemon
