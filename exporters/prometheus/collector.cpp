#include "exporters/prometheus/collector.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

namespace tierlog::prometheus {
namespace {

constexpr std::chrono::seconds kSumEvery{1};
constexpr int kSaveEvery = 30;  // sums
// Somebody who asks sooner is answered when the sums are complete; Prometheus gives up after ten by default.
constexpr std::chrono::seconds kWaitForSums{3};

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
      ledger_(options_.ledger_file, options_.boot),
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
  if (done) {
    const std::lock_guard told(mutex_);
    complete_ = true;
    completed_.notify_all();
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
    // What fails here shows in the metrics' standing still, and in the log of who writes.
    static_cast<void>(catch_up());
    {
      std::unique_lock lock(mutex_);
      stop = wake_.wait_for(lock, kSumEvery, [this] { return stop_; });
    }
    if (!stop && ++since_saved < kSaveEvery) continue;
    since_saved = 0;
    if (stop) static_cast<void>(catch_up());
    keep_counts(stop);
    const std::lock_guard lock(summing_);
    if (reader_) {
      if (const auto endpoints = reader_->endpoints()) tally_.make_room(pods_of(*endpoints));
    }
    static_cast<void>(tally_.save());
  }
}

Result<void> Collector::read(const Health& health) {
  if (!activity_reader_) {
    TL_ASSIGN(auto opened, store::ActivityReader::open(options_.flows_path));
    activity_reader_.emplace(std::move(opened));
  }
  if (!scrape_reader_) {
    TL_ASSIGN(auto opened, store::FlowReader::open(options_.flows_path));
    scrape_reader_.emplace(std::move(opened));
  }
  store::FlowReader& reader = *scrape_reader_;
  Index& index = index_;
  TL_TRY(activity_reader_->read(index));
  TL_ASSIGN(index.last_sequence, reader.last_sequence());
  TL_ASSIGN(index.last_written, reader.last_written());
  TL_ASSIGN(index.oldest, waits_since(reader, 0));
  index.waiting_since.clear();
  for (const ExportHealth& one : health.exports) {
    TL_ASSIGN(auto since, waits_since(reader, one.delivered_sequence));
    index.waiting_since.push_back(since);
  }
  return {};
}

// Sums that begin with an older file, after a kill, are smaller than what was told.
bool Collector::wait_for_sums() {
  std::unique_lock lock(mutex_);
  if (!complete_ && thread_.joinable())
    completed_.wait_for(lock, kWaitForSums, [this] { return complete_ || stop_; });
  return complete_;
}

// While nobody scrapes, and at the end.
void Collector::keep_counts(bool last) {
  const std::lock_guard one_at_a_time(scraping_);
  if (!last && scraped_at_ + kSumEvery * kSaveEvery > clock_.boottime()) return;
  // Without Health nothing was told in this life; what cannot be made or written is tried again.
  if (const auto health = health_()) static_cast<void>(make(*health, Format::Text));
  if (last) static_cast<void>(ledger_.close(clock_.wall()));
}

Result<Collector::Answer> Collector::scrape(std::string_view accept) {
  if (!health_())
    return fail(ErrorCode::Unavailable, "the daemon has not published its state yet; try again");
  if (!wait_for_sums())
    return fail(ErrorCode::Unavailable,
                "what was recorded before this start is still being summed up; try again");
  const std::lock_guard one_at_a_time(scraping_);
  return make(*health_(), negotiate(accept));  // published now: counts of an older one would step back
}

Result<Collector::Answer> Collector::make(const Health& health, Format format) {
  const Nanoseconds began = clock_.boottime();
  if (auto done = read(health); !done) {
    scrape_reader_.reset();
    activity_reader_.reset();
    index_ = {};
    return fail(done.error());
  }
  const Index& index = index_;
  Exposition out(format, options_.node, options_.cluster, options_.labels, &ledger_);
  out.family(Metric::BuildInfo);
  out.sample({options_.version, health.dataplane, health.enforcement}, std::uint64_t{1});
  out.single(Metric::Ready, health.ready ? 1.0 : 0.0);
  const auto told = this->sums();
  const Sums& sums = *told;
  policy_families(out, index, sums);
  if (options_.rules) rule_families(out, index);
  pod_families(out, sums);
  const NodeSource::Context context{index, sums};
  if (node_) node_->pod_families(out, context);
  daemon_families(out, index, health, clock_.wall());
  out.family(Metric::SeriesLimit);
  out.sample({"denied"}, sums.denied.size() >= options_.max_series ? 1.0 : 0.0);
  out.sample({"pods"}, sums.pods.size() >= options_.max_series ? 1.0 : 0.0);
  out.single(Metric::ScrapeDuration, std::chrono::duration<double>(clock_.boottime() - began).count());
  if (node_) node_->node_families(out, context);
  scraped_at_ = clock_.boottime();
  // Where it cannot be written the ledger takes care of the next life; this one is told as it is.
  static_cast<void>(ledger_.write(clock_.wall()));
  return Answer{content_type(format), out.finish()};
}

}  // namespace tierlog::prometheus
