// exporters/prometheus/collector.h - answers scrapes: from the flow index by read-only connections, from what
// the daemon's loop published last, and from the node's own counters.
//
//   flows.db --> [Collector: a thread sums records behind a cursor] --scrape()--> http/
//   daemon loop --Health--^        ^-- NodeSource: /proc, netlink, BPF
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/time.h"
#include "exporters/prometheus/exposition.h"
#include "exporters/prometheus/families.h"
#include "exporters/prometheus/health.h"
#include "exporters/prometheus/ledger.h"
#include "exporters/prometheus/tally.h"

namespace tierlog::prometheus {

// What the node's kernel counts; called for each scrape, from one thread at a time.
class NodeSource {
 public:
  virtual ~NodeSource() = default;
  struct Context {
    const Index& index;
    const Sums& sums;
  };
  virtual void pod_families(Exposition& out, const Context& context) = 0;
  virtual void node_families(Exposition& out, const Context& context) = 0;
};

struct Options {
  std::string version, node, cluster;
  std::string flows_path;
  std::string tally_file;
  std::string ledger_file, boot;  // ledger.h; no file: nothing is kept
  bool rules = false;  // series for each rule, too
  std::size_t max_series = 2000;
  LabelStyle labels = LabelStyle::Aks;
};

class Collector {
 public:
  // nullptr: the loop has told nothing yet.
  using HealthOf = std::function<std::shared_ptr<const Health>()>;
  // `node` may be null: no metrics of the node.
  Collector(Options options, HealthOf health, std::unique_ptr<NodeSource> node, const Clock& clock);
  ~Collector();
  Collector(const Collector&) = delete;
  Collector& operator=(const Collector&) = delete;

  void start();  // the thread that sums

  struct Answer {
    std::string type, body;
  };
  // Errors: Unavailable before the first Health and before what was written before this start is summed up; what
  // the flow index says.
  Result<Answer> scrape(std::string_view accept);
  // Takes in what is written now; the thread does it every second.
  Result<void> catch_up();

 private:
  Result<void> read(const Health& health);
  Result<Answer> make(const Health& health, Format format);
  bool wait_for_sums();
  void keep_counts(bool last);
  void run();
  std::shared_ptr<const Sums> sums();

  Options options_;
  HealthOf health_;
  std::unique_ptr<NodeSource> node_;
  const Clock& clock_;
  std::mutex scraping_;  // one scrape at a time; ledger_
  Ledger ledger_;
  Nanoseconds scraped_at_{};
  std::mutex summing_;   // tally_ and its reader: the first sums over a large index take minutes
  Tally tally_;
  std::optional<store::FlowReader> reader_;
  std::optional<store::FlowReader> scrape_reader_;
  std::optional<store::ActivityReader> activity_reader_;
  Index index_;  // of the last scrape: names are read when they change
  std::mutex mutex_;  // what follows
  std::shared_ptr<const Sums> sums_;  // as they were summed up last
  bool complete_ = false;  // they hold what was written before this start
  std::condition_variable wake_, completed_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace tierlog::prometheus
