#include "exporters/file/file_sink.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/handle.h"
#include "exporters/format/record_format.h"

namespace tierlog::exporters::file {
namespace {

namespace fs = std::filesystem;
using Time = std::chrono::steady_clock::time_point;

// Of lines that wait to be written: what bounds the memory of an output.
constexpr std::size_t kMaxTaken = 4'000'000;
constexpr mode_t kMode = 0640;

tl::unexpected<Failure> failed(std::string_view operation, const std::string& path) {
  return fail(FailureCause::Disk, Error::from_errno(errno, operation, path));
}

std::string numbered(const std::string& path, std::size_t number) {
  return path + "." + std::to_string(number);
}

// Where the last whole line ends.
std::int64_t end_of_lines(int file, std::int64_t size) {
  std::array<char, 65'536> buffer{};
  while (size > 0) {
    const std::int64_t from = std::max<std::int64_t>(0, size - static_cast<std::int64_t>(buffer.size()));
    const ssize_t got = ::pread(file, buffer.data(), static_cast<std::size_t>(size - from), from);
    if (got <= 0) return size;
    for (ssize_t i = got; i > 0; --i)
      if (buffer[static_cast<std::size_t>(i - 1)] == '\n') return from + i;
    size = from;
  }
  return 0;
}

}  // namespace

struct FileSink::Impl {
  FileOptions options;
  store::Origin origin;
  RecordFormat format;
  Fd file{};
  struct stat identity {};      // of the open file
  std::uint64_t size = 0;       // of whole lines
  WallTime begun{};             // when the file was made
  std::string lines{};          // taken
  std::size_t records = 0;      // in them
  std::uint64_t unsynced = 0;   // bytes
  Time synced{std::chrono::steady_clock::now()};
  OutputCounts counts{};

  Outcome<void> open();
  bool is_ours() const;
  bool is_full() const;
  Outcome<void> rotate();
  Outcome<void> write();
  Outcome<void> sync();
};

bool FileSink::Impl::is_ours() const {
  struct stat now {};
  return ::stat(options.path.c_str(), &now) == 0 && now.st_ino == identity.st_ino && now.st_dev == identity.st_dev;
}

Outcome<void> FileSink::Impl::open() {
  if (file && is_ours()) return {};
  if (file) TL_TRY(sync());  // somebody moved it: what is in it must stay
  file.reset(::open(options.path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, kMode));
  if (!file) return failed("open", options.path);
  if (::fstat(file.get(), &identity) != 0) return failed("stat", options.path);
  if (!S_ISREG(identity.st_mode)) {
    file.reset();
    return fail(FailureCause::Disk, options.path + " is no regular file; expected one, or nothing");
  }
  const std::int64_t end = end_of_lines(file.get(), identity.st_size);
  if (end != identity.st_size && ::ftruncate(file.get(), end) != 0) return failed("cut half a line off", options.path);
  size = static_cast<std::uint64_t>(end);
  struct statx born {};
  const bool known = ::statx(file.get(), "", AT_EMPTY_PATH, STATX_BTIME, &born) == 0 && (born.stx_mask & STATX_BTIME) != 0;
  begun = known ? from_ns(born.stx_btime.tv_sec * 1'000'000'000 + born.stx_btime.tv_nsec) : SystemClock().wall();
  return {};
}

bool FileSink::Impl::is_full() const {
  if (size == 0) return false;
  if (options.rotate_bytes > 0 && size + lines.size() > options.rotate_bytes) return true;
  return options.rotate_every.count() > 0 && SystemClock().wall() - begun >= options.rotate_every;
}

// From the oldest on, so that a death in between loses none but the one that was to go.
Outcome<void> FileSink::Impl::rotate() {
  TL_TRY(sync());
  std::error_code ignored;
  fs::remove(numbered(options.path, options.keep), ignored);
  for (std::size_t i = options.keep; i-- > 1;) {
    const std::string from = numbered(options.path, i);
    if (::rename(from.c_str(), numbered(options.path, i + 1).c_str()) != 0 && errno != ENOENT)
      return failed("rename", from);
  }
  const std::string to = options.keep == 0 ? "" : numbered(options.path, 1);
  const int code = to.empty() ? ::unlink(options.path.c_str()) : ::rename(options.path.c_str(), to.c_str());
  if (code != 0 && errno != ENOENT) return failed("rotate", options.path);
  file.reset();
  return open();
}

Outcome<void> FileSink::Impl::write() {
  std::string_view rest = lines;
  while (!rest.empty()) {
    const ssize_t written = ::write(file.get(), rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      const auto failure = failed("write", options.path);
      // All of it or nothing, so that the next attempt begins at a line.
      static_cast<void>(::ftruncate(file.get(), static_cast<off_t>(size)));
      return failure;
    }
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  size += lines.size();
  unsynced += lines.size();
  counts.bytes += lines.size();
  counts.records += records;
  ++counts.messages;
  lines.clear();
  records = 0;
  return {};
}

Outcome<void> FileSink::Impl::sync() {
  if (unsynced > 0 && options.sync != FileOptions::Sync::Never && ::fdatasync(file.get()) != 0)
    return failed("fdatasync", options.path);
  unsynced = 0;
  synced = std::chrono::steady_clock::now();
  return {};
}

FileSink::FileSink(FileOptions options, store::Origin origin)
    : impl_(std::make_unique<Impl>(Impl{options, std::move(origin), RecordFormat(options.format)})) {}
FileSink::~FileSink() = default;

std::string FileSink::target() const {
  return "file://" + impl_->options.path;
}

std::size_t FileSink::take(std::span<const store::StoredRecord> records) {
  std::size_t taken = 0;
  for (const store::StoredRecord& stored : records) {
    if (impl_->lines.size() > kMaxTaken) break;
    impl_->format.append_line(impl_->lines, stored.record, impl_->origin);
    ++taken;
  }
  impl_->records += taken;
  return taken;
}

Outcome<void> FileSink::deliver() {
  if (impl_->lines.empty()) return {};
  TL_TRY(impl_->open());
  if (impl_->is_full()) TL_TRY(impl_->rotate());
  TL_TRY(impl_->write());
  return secure(impl_->options.sync == FileOptions::Sync::Always);
}

bool FileSink::holds() const {
  return impl_->options.sync == FileOptions::Sync::Every && impl_->unsynced > 0;
}

Outcome<void> FileSink::secure(bool at_once) {
  if (impl_->unsynced == 0) return {};
  const bool due = impl_->options.sync != FileOptions::Sync::Every ||
                   std::chrono::steady_clock::now() - impl_->synced >= impl_->options.sync_every;
  return at_once || due ? impl_->sync() : Outcome<void>{};
}

OutputCounts FileSink::counts() const {
  return impl_->counts;
}

}  // namespace tierlog::exporters::file
