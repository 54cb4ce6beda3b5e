// daemon/export_worker.h - one thread per export: records from the flow index to a receiver.
//
//   flows.db --FlowReader, behind the cursor in state.db--> ForwardSink --ack--> cursor moves
//
// The index is the outbox: whatever happens to the receiver, to this thread or to the daemon, the
// cursor says where to go on. Capture never waits for it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "daemon/config.h"
#include "store/record.h"

namespace tierlog::daemon {

struct ExportStatus {
  std::string name;
  std::string target;  // "tcp://127.0.0.1:24224"
  std::int64_t delivered_sequence = 0;
  std::uint64_t skipped = 0;  // records that fit no chunk
  std::string error;          // empty: fine
};

class ExportWorker {
 public:
  ExportWorker(const ForwardExport& target, const Config& config);
  ExportWorker(const ExportWorker&) = delete;
  ExportWorker& operator=(const ExportWorker&) = delete;
  ~ExportWorker();  // stops after at most one attempt

  ExportStatus status() const;

 private:
  void run();
  void note_error(const std::string& error);

  ForwardExport target_;
  std::string flows_path_, state_path_;
  store::Origin origin_;
  mutable std::mutex mutex_;
  ExportStatus status_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace tierlog::daemon
