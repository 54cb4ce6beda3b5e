#include "daemon/export_worker.h"

#include <charconv>

#include "exporters/fluentbit/forward_sink.h"
#include "store/query.h"
#include "store/state_db.h"

namespace tierlog::daemon {
namespace {

constexpr std::size_t kBatch = 2000;
constexpr std::chrono::milliseconds kIdle{100};
constexpr std::chrono::milliseconds kRetry{1000};

std::int64_t read_cursor(store::StateDb& state, const std::string& key) {
  const auto text = state.get(key);
  std::int64_t cursor = 0;
  if (text && *text) std::from_chars((*text)->data(), (*text)->data() + (*text)->size(), cursor);
  return cursor;
}

}  // namespace

ExportWorker::ExportWorker(const ForwardExport& target, const Config& config)
    : target_(target),
      flows_path_(config.store_path),
      state_path_(config.state_path()),
      origin_{config.cluster, config.node} {
  status_.name = target.name;
  status_.target = "tcp://" + target.host + ":" + std::to_string(target.port);
  thread_ = std::thread([this] { run(); });
}

ExportWorker::~ExportWorker() {
  stop_ = true;
  thread_.join();
}

ExportStatus ExportWorker::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

void ExportWorker::note_error(const std::string& error) {
  const std::lock_guard lock(mutex_);
  status_.error = error;
}

void ExportWorker::run() {
  const auto pause = [this](std::chrono::milliseconds time) {
    for (; time.count() > 0 && !stop_; time -= kIdle) std::this_thread::sleep_for(std::min(time, kIdle));
  };
  auto state = store::StateDb::open(state_path_);
  auto reader = store::FlowReader::open(flows_path_);
  if (!state || !reader) return note_error(!state ? state.error().message : reader.error().message);
  const std::string key = "cursor/" + target_.name;
  std::int64_t cursor = read_cursor(**state, key);
  exporters::fluentbit::ForwardSink sink({.host = target_.host, .port = target_.port, .tag = target_.tag},
                                         origin_);

  const auto moved = [&](std::int64_t to) {
    cursor = to;
    if (auto kept = (*state)->put(key, std::to_string(cursor)); !kept) note_error(kept.error().message);
    const std::lock_guard lock(mutex_);
    status_.delivered_sequence = cursor;
  };
  moved(cursor);
  while (!stop_) {
    store::FlowQuery query;
    query.after_sequence = cursor;
    query.oldest_first = true;
    query.limit = kBatch;
    const auto records = reader->flows(query);
    if (!records) {
      note_error(records.error().message);
      pause(kRetry);
      continue;
    }
    if (records->empty()) {
      pause(kIdle);
      continue;
    }
    std::span<const store::StoredRecord> rest(*records);
    while (!rest.empty() && !stop_) {
      const auto sent = sink.send(rest);
      if (sent) {
        moved(rest[*sent - 1].sequence);
        rest = rest.subspan(*sent);
        note_error("");
      } else if (sent.error().code == ErrorCode::InvalidArgument) {
        moved(rest.front().sequence);
        rest = rest.subspan(1);
        const std::lock_guard lock(mutex_);
        ++status_.skipped;
      } else {
        note_error(sent.error().message);
        pause(kRetry);
      }
    }
  }
}

}  // namespace tierlog::daemon
