#include "cli/follow.h"

#include <algorithm>
#include <csignal>
#include <ctime>

#include "cli/console.h"

namespace tierlog::cli {
namespace {

constexpr long kPollNanoseconds = 200'000'000;
constexpr std::size_t kBatch = 1000;

volatile std::sig_atomic_t stop_asked = 0;

void ask_to_stop(int) {
  stop_asked = 1;
}

// With SA_RESTART, so that a record whose reader is slow is written to its end; the pause between two polls ends at once
// all the same. A second signal ends the program where it stands: its reader may never take the rest.
void watch_signals() {
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

void pause_between_polls() {
  const timespec pause{0, kPollNanoseconds};
  ::nanosleep(&pause, nullptr);
}

// Everything after the query's sequence, in order; moves the sequence on.
Result<void> show_new(store::FlowReader& reader, store::FlowQuery& query,
                      const std::function<void(const store::FlowRecord&)>& show) {
  for (;;) {
    auto batch = reader.flows(query);
    // The writer was in the way: the next poll finds the same records.
    if (!batch && batch.error().code == ErrorCode::Unavailable) return {};
    if (!batch) return fail(batch.error());
    for (const store::StoredRecord& stored : *batch) {
      show(stored.record);
      query.after_sequence = std::max(query.after_sequence, stored.sequence);
    }
    if (batch->size() < kBatch || stop_asked != 0) return {};
  }
}

// Shows what is to be shown first and returns the sequence after which new records begin.
Result<std::int64_t> begin(store::FlowReader& reader, const store::FlowQuery& asked, const FollowStart& start,
                           const std::function<void(const store::FlowRecord&)>& show) {
  if (start.from == FollowStart::From::Since) return asked.after_sequence;
  TL_ASSIGN(const std::int64_t last, reader.last_sequence());
  if (start.from == FollowStart::From::Now) return last;
  store::FlowQuery newest = asked;
  newest.limit = start.count;
  TL_ASSIGN(auto records, reader.flows(newest));
  std::int64_t shown = last;
  for (auto record = records.rbegin(); record != records.rend(); ++record) {
    show(record->record);
    shown = std::max(shown, record->sequence);
  }
  return shown;
}

}  // namespace

Result<void> follow(store::FlowReader& reader, store::FlowQuery query, const FollowStart& start,
                    const std::function<void(const store::FlowRecord&)>& show) {
  watch_signals();
  TL_ASSIGN(query.after_sequence, begin(reader, query, start, show));
  say("following new records; Ctrl-C ends");  // from here on nothing is missed
  query.oldest_first = true;                  // in the order of writing: a limit leaves no gap
  query.limit = kBatch;
  while (stop_asked == 0) {
    TL_TRY(show_new(reader, query, show));
    if (!flush_stdout()) return fail(ErrorCode::Io, "the reader of this output is gone");
    pause_between_polls();
  }
  return {};
}

}  // namespace tierlog::cli
