// exporters/file/file_sink.h - records as lines of JSON in a file, for `tail` inputs.
//
//   records --take()--> lines --deliver()--> flows.jsonl --rotation--> flows.jsonl.1, flows.jsonl.2, …
//
// At least once: after the daemon's death the last records may stand in the file twice, with the same id. Half a
// line that a death left behind is cut off. Somebody else may rotate the file, too (it was moved or removed: a new
// one is made), but nobody else may write to it.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "exporters/options.h"
#include "exporters/output.h"
#include "store/record.h"

namespace tierlog::exporters::file {

class FileSink final : public Output {
 public:
  FileSink(FileOptions options, store::Origin origin);
  ~FileSink() override;

  std::string target() const override;
  std::size_t take(std::span<const store::StoredRecord> records) override;
  Outcome<void> deliver() override;
  bool holds() const override;
  Outcome<void> secure(bool at_once) override;
  OutputCounts counts() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tierlog::exporters::file
