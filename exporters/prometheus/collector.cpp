#include "exporters/prometheus/collector.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

namespace tierlog::prometheus {
namespace {

constexpr std::chrono::seconds kSumEvery{1};
constexpr int kSaveEvery = 30;  // sums

std::set<PodKey> pods_of(const std::vector<store::EndpointRow>& endpoints) {
  std::set<PodKey> pods;
  for (const store::EndpointRow& one : endpoints)
    pods.insert({one.endpoint_namespace, one.workload, one.name});
  return pods;
}

// When the first record after `sequence` ended.
Result<std::optional<WallTime>> waits_since(store::FlowReader& reader, std::int64_t sequence) {
  store::FlowQuery query;
  query.after_sequence = std::max<std::int64_t>(0, sequence);
  query.oldest_first = true;
  query.limit = 1;
  TL_ASSIGN(const auto found, reader.flows(query));
  return found.empty() ? std::nullopt : std::optional<WallTime>(found.front().record.end);
}

}  // namespace

Collector::Collector(Options options, HealthOf health, std::unique_ptr<NodeSource> node, const Clock& clock)
    : options_(std::move(options)),
      health_(std::move(health)),
      node_(std::move(node)),
      clock_(clock),
      tally_(options_.tally_file, options_.max_series),
      sums_(std::make_shared<const Sums>(tally_.sums())) {}

Collector::~Collector() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Collector::start() {
  thread_ = std::thread([this] { run(); });
}

Result<void> Collector::catch_up() {
  const std::lock_guard lock(summing_);
  if (!reader_) {
    TL_ASSIGN(auto opened, store::FlowReader::open(options_.flows_path));
    reader_.emplace(std::move(opened));
  }
  const std::int64_t before = tally_.sums().cursor;
  const auto done = tally_.catch_up(*reader_);
  if (!done) reader_.reset();  // perhaps it is another file now
  if (tally_.sums().cursor != before) {
    auto made = std::make_shared<const Sums>(tally_.sums());
    const std::lock_guard told(mutex_);
    sums_ = std::move(made);
  }
  return done;
}

std::shared_ptr<const Sums> Collector::sums() {
  const std::lock_guard lock(mutex_);
  return sums_;
}

void Collector::run() {
  int since_saved = 0;
  for (bool stop = false; !stop;) {
    {
      std::unique_lock lock(mutex_);
      stop = wake_.wait_for(lock, kSumEvery, [this] { return stop_; });
    }
    // What fails here shows in the metrics' standing still, and in the log of who writes.
    static_cast<void>(catch_up());
    if (!stop && ++since_saved < kSaveEvery) continue;
    since_saved = 0;
    const std::lock_guard lock(summing_);
    if (reader_) {
      if (const auto endpoints = reader_->endpoints()) tally_.make_room(pods_of(*endpoints));
    }
    static_cast<void>(tally_.save());
  }
}

Result<Index> Collector::read(const Health& health) {
  if (!scrape_reader_) {
    TL_ASSIGN(auto opened, store::FlowReader::open(options_.flows_path));
    scrape_reader_.emplace(std::move(opened));
  }
  store::FlowReader& reader = *scrape_reader_;
  Index index;
  TL_ASSIGN(index.rules, reader.rules({}, true));
  TL_ASSIGN(index.policies, reader.policies());
  TL_ASSIGN(index.endpoints, reader.endpoints());
  TL_ASSIGN(index.losses, reader.losses());
  TL_ASSIGN(index.last_sequence, reader.last_sequence());
  TL_ASSIGN(index.oldest, waits_since(reader, 0));
  for (const ExportHealth& one : health.exports) {
    TL_ASSIGN(auto since, waits_since(reader, one.delivered_sequence));
    index.waiting_since.push_back(since);
  }
  return index;
}

Result<Collector::Answer> Collector::scrape(std::string_view accept) {
  const std::lock_guard one_at_a_time(scraping_);
  const Nanoseconds began = clock_.boottime();
  const auto health = health_();
  if (!health) return fail(ErrorCode::Unavailable, "the daemon has not published its state yet; try again");
  auto index = read(*health);
  if (!index) {
    scrape_reader_.reset();
    return fail(index.error());
  }
  const Format format = negotiate(accept);
  Exposition out(format, options_.node, options_.cluster, options_.labels);
  out.family(Metric::BuildInfo);
  out.sample({options_.version, health->dataplane, health->enforcement}, std::uint64_t{1});
  out.single(Metric::Ready, health->ready ? 1.0 : 0.0);
  const auto told = this->sums();
  const Sums& sums = *told;
  policy_families(out, *index, sums);
  if (options_.rules) rule_families(out, *index);
  pod_families(out, sums);
  const NodeSource::Context context{*index, sums};
  if (node_) node_->pod_families(out, context);
  daemon_families(out, *index, *health, clock_.wall());
  out.family(Metric::SeriesLimit);
  out.sample({"denied"}, sums.denied.size() >= options_.max_series ? 1.0 : 0.0);
  out.sample({"pods"}, sums.pods.size() >= options_.max_series ? 1.0 : 0.0);
  out.single(Metric::ScrapeDuration, std::chrono::duration<double>(clock_.boottime() - began).count());
  if (node_) node_->node_families(out, context);
  return Answer{content_type(format), out.finish()};
}

}  // namespace tierlog::prometheus
