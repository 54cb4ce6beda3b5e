// exporters/prometheus/ledger.h - counters that a process counts for itself (exports, repairs, what BPF
// programs saw), going on over the lives of the daemon.
//
//   families --since_start(), at_least()--> [Ledger] --the value to tell--> exposition.h
//                                              ` counters.json, written before an answer goes out
//
// Nothing is told that is not written down, so that a killed daemon's successor goes on at or above what was
// told: a counter that steps back to another value than 0 is read by Prometheus as if all of it had happened
// again. What was counted after the last writing is lost by a kill, and by nothing else.
//
// The file is renamed into place but not synced: it outlives the process, not a power failure, after which it
// is older than what was told. It is believed only in the boot that wrote it, or when it was closed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace tierlog::prometheus {

class Ledger {
 public:
  // An empty name: nothing is kept. `boot`: another one after each boot of the machine.
  Ledger(std::string file, std::string boot);

  // What to tell of a series (its name with its labels, as in the answer) of which this process has counted
  // `count`. A smaller count than before began anew with its thing (a pod that came again): it is added.
  std::uint64_t since_start(std::string_view series, std::uint64_t count);
  // The same of a count over all lives that somebody else keeps, but perhaps not its last part.
  std::uint64_t at_least(std::string_view series, std::uint64_t count);

  // Before what was asked for is told. Where it cannot be written the file is taken away: the next life
  // begins with 0, which is read rightly. Series that nobody asked for in a day are forgotten. Errors: Io.
  Result<void> write(WallTime now);
  // The end of a life in good order: valid after a boot too. Errors: Io.
  Result<void> close(WallTime now);

 private:
  struct Series {
    std::uint64_t told = 0;    // over all lives
    std::uint64_t count = 0;   // of this one
    std::int64_t asked_s = 0;  // when it was last written after somebody had asked
    bool asked = false;        // since then
  };
  Series& series(std::string_view name);
  void load();
  Result<void> put(WallTime now, bool closed);

  std::string file_, boot_;
  std::map<std::string, Series, std::less<>> series_;
  bool changed_ = false;
};

}  // namespace tierlog::prometheus
