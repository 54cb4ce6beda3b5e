#include "daemon/export_worker.h"

#include <charconv>
#include <future>

#include "daemon/backoff.h"
#include "exporters/file/file_sink.h"
#include "exporters/fluentbit/connection.h"
#include "exporters/fluentbit/forward_sink.h"

namespace tierlog::daemon {
namespace {

using exporters::Failure;
using exporters::FailureCause;
using exporters::Output;

constexpr std::size_t kBatch = 2000;
constexpr std::chrono::milliseconds kIdle{100};
constexpr std::chrono::milliseconds kFirstRetry{1000}, kMostRetry{60'000};
// Keeping the cursor is a write that waits for the disk: while much waits, not after each piece.
constexpr std::chrono::milliseconds kKeepEvery{200};
// A cursor that only passes what the filter leaves out is not worth a write each time.
constexpr std::chrono::milliseconds kKeepPassed{1000};

std::int64_t read_cursor(store::StateDb& state, const std::string& key) {
  const auto text = state.get(key);
  std::int64_t cursor = 0;
  if (text && *text) std::from_chars((*text)->data(), (*text)->data() + (*text)->size(), cursor);
  return cursor;
}

std::string cursor_key(const ExportConfig& target) {
  return "cursor/" + target.name;
}

bool is_file(const ExportConfig& target) {
  return target.type == ExportConfig::Type::File;
}

Result<std::unique_ptr<Output>> make_output(const ExportConfig& target, const store::Origin& origin,
                                            const std::atomic<bool>* stop) {
  if (is_file(target)) return std::make_unique<exporters::file::FileSink>(target.file, origin);
  TL_ASSIGN(auto sink, exporters::fluentbit::ForwardSink::make(target.forward, origin, stop));
  return std::unique_ptr<Output>(std::move(sink));
}

}  // namespace

struct ExportWorker::Source {
  std::unique_ptr<store::StateDb> state;
  std::optional<store::Outbox> outbox;
  std::unique_ptr<Output> output;
  std::string key;
  std::int64_t cursor = 0;  // delivered
  std::int64_t kept = 0;    // of it, in state.db
  std::chrono::steady_clock::time_point kept_at{};
  Backoff retry{kFirstRetry, kMostRetry};
  bool known = false;       // the cursor is not of this start: what is missing behind it was lost
};

ExportWorker::ExportWorker(const ExportConfig& target, const Config& config)
    : target_(target),
      flows_path_(config.store_path),
      state_path_(config.state_path()),
      origin_{config.cluster, config.node} {
  status_.name = target.name;
  status_.type = is_file(target) ? "file" : "fluentbit";
  status_.target = is_file(target) ? "file://" + target.file.path : exporters::fluentbit::url_of(target.forward);
  status_.filter = target.filter;
  status_.format = target.forward.format.name;
  // Told before the thread has come so far: a counter must not begin anew for a moment.
  if (auto state = store::StateDb::open(state_path_))
    status_.kept_sequence = status_.delivered_sequence = read_cursor(**state, cursor_key(target));
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

void ExportWorker::note_failure(const Failure& failure) {
  if (stop_) return;
  const std::lock_guard lock(mutex_);
  status_.error = failure.error.message;
  ++status_.failures[static_cast<std::size_t>(failure.cause)];
}

void ExportWorker::note_good() {
  const std::lock_guard lock(mutex_);
  status_.error.clear();
}

void ExportWorker::pause(std::chrono::milliseconds time) const {
  for (; time.count() > 0 && !stop_; time -= kIdle) std::this_thread::sleep_for(std::min(time, kIdle));
}

bool ExportWorker::open(Source& source) {
  if (!source.state) {
    auto state = store::StateDb::open(state_path_);
    if (!state) return note_failure({FailureCause::Index, state.error()}), false;
    source.state = std::move(*state);
    source.key = cursor_key(target_);
    source.cursor = source.kept = read_cursor(*source.state, source.key);
    source.known = source.cursor > 0;
    move(source, source.cursor);
    const std::lock_guard lock(mutex_);
    status_.kept_sequence = source.kept;
  }
  if (!source.output) {
    auto output = make_output(target_, origin_, &stop_);
    if (!output) return note_failure({FailureCause::Connect, output.error()}), false;
    source.output = std::move(*output);
  }
  if (source.outbox) return true;
  auto outbox = store::Outbox::open(flows_path_, target_.filters);
  if (!outbox) return note_failure({FailureCause::Index, outbox.error()}), false;
  source.outbox.emplace(std::move(*outbox));
  return true;
}

void ExportWorker::move(Source& source, std::int64_t to) {
  source.cursor = to;
  const std::lock_guard lock(mutex_);
  status_.delivered_sequence = to;
  if (source.output) status_.counts = source.output->counts();
}

// The cursor on disk never passes what a power failure could still take.
void ExportWorker::keep(Source& source) {
  if (source.cursor == source.kept || source.output->holds()) return;
  if (auto kept = source.state->put(source.key, std::to_string(source.cursor)); !kept)
    return note_failure({FailureCause::Index, kept.error()});
  source.kept = source.cursor;
  {
    const std::lock_guard lock(mutex_);
    status_.kept_sequence = source.kept;
  }
  source.kept_at = std::chrono::steady_clock::now();
}

void ExportWorker::secure(Source& source, Urgency urgency) {
  if (const auto safe = source.output->secure(urgency == Urgency::End); !safe) note_failure(safe.error());
  if (urgency != Urgency::Busy || std::chrono::steady_clock::now() - source.kept_at >= kKeepEvery) keep(source);
}

// Until what the output took has arrived, or the daemon stops.
void ExportWorker::bring(Source& source) {
  while (!stop_) {
    const std::uint64_t before = source.output->counts().messages;
    const auto delivered = source.output->deliver();
    // A receiver that took something is there: the next attempt soon.
    if (delivered || source.output->counts().messages > before) source.retry.reset();
    if (delivered) return note_good();
    note_failure(delivered.error());
    {
      const std::lock_guard lock(mutex_);
      status_.counts = source.output->counts();
    }
    pause(source.retry.next());
    const std::lock_guard lock(mutex_);
    ++status_.retries;
  }
}

// False when there was nothing.
bool ExportWorker::work(Source& source, const store::OutboxPiece& piece) {
  if (piece.expired > 0 && source.known) {
    const std::lock_guard lock(mutex_);
    status_.expired += piece.expired;
  }
  std::span<const store::StoredRecord> rest(piece.records);
  while (!rest.empty()) {
    const std::size_t taken = source.output->take(rest);
    bring(source);
    if (stop_) return true;  // what did not arrive is read again by the next start
    rest = rest.subspan(taken);
    move(source, rest.empty() ? piece.through : rest.front().sequence - 1);
    secure(source, Urgency::Busy);
  }
  source.known = true;
  if (piece.through <= source.cursor) return !piece.records.empty();
  move(source, piece.through);
  if (std::chrono::steady_clock::now() - source.kept_at >= kKeepPassed) keep(source);
  return true;
}

void ExportWorker::run() {
  Source source;
  // The next piece is read while this one is brought: one thread at a time has the outbox.
  std::future<Result<store::OutboxPiece>> next;
  while (!stop_) {
    if (!open(source)) {
      pause(source.retry.next());
      continue;
    }
    auto piece = next.valid() ? next.get() : source.outbox->read(source.cursor, kBatch);
    if (!piece) {
      note_failure({FailureCause::Index, piece.error()});
      source.outbox.reset();
      pause(source.retry.next());
      continue;
    }
    if (piece->through < piece->last)
      next = std::async(std::launch::async, [&outbox = *source.outbox, after = piece->through] {
        return outbox.read(after, kBatch);
      });
    if (work(source, *piece)) continue;
    secure(source, Urgency::Idle);
    pause(kIdle);
  }
  if (next.valid()) next.wait();
  if (source.output) secure(source, Urgency::End);
}

}  // namespace tierlog::daemon
