// daemon/export_worker.h - one thread per export: records from the flow index to where they go.
//
//   flows.db --Outbox, behind the cursor in state.db--> Output (exporters/output.h) --arrived--> cursor moves
//
// The index is the outbox: whatever happens to the receiver, to this thread or to the daemon, the
// cursor says where to go on. Capture never waits for it.
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "daemon/config.h"
#include "exporters/output.h"
#include "store/outbox.h"
#include "store/record.h"
#include "store/state_db.h"

namespace tierlog::daemon {

struct ExportStatus {
  std::string name;
  std::string type;    // "fluentbit", "file"
  std::string target;  // "tcp://127.0.0.1:24224"
  std::string filter, format;
  std::int64_t delivered_sequence = 0;
  std::int64_t kept_sequence = 0;  // of that, in state.db
  exporters::OutputCounts counts;  // since the daemon started
  std::uint64_t expired = 0;       // records that retention took before they were looked at
  std::uint64_t retries = 0;
  std::array<std::uint64_t, exporters::kFailureCauses> failures{};  // by cause
  std::string error;                                                // empty: fine
};

class ExportWorker {
 public:
  ExportWorker(const ExportConfig& target, const Config& config);
  ExportWorker(const ExportWorker&) = delete;
  ExportWorker& operator=(const ExportWorker&) = delete;
  ~ExportWorker();  // stops within some tenths of a second

  ExportStatus status() const;

 private:
  struct Source;
  enum class Urgency : std::uint8_t { Busy, Idle, End };  // much waits, nothing waits, the daemon stops
  void run();
  bool open(Source& source);
  bool work(Source& source, const store::OutboxPiece& piece);
  void bring(Source& source);
  void secure(Source& source, Urgency urgency);
  void move(Source& source, std::int64_t to);
  void keep(Source& source);
  void note_failure(const exporters::Failure& failure);
  void note_good();
  void pause(std::chrono::milliseconds time) const;

  ExportConfig target_;
  std::string flows_path_, state_path_;
  store::Origin origin_;
  mutable std::mutex mutex_;
  ExportStatus status_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace tierlog::daemon
