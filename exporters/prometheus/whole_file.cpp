#include "exporters/prometheus/whole_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

#include "base/handle.h"

namespace tierlog::prometheus {
namespace {

Result<void> write_all(int file, const std::string& text, const std::string& path) {
  std::size_t written = 0;
  while (written < text.size()) {
    const ssize_t count = ::write(file, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return fail(Error::from_errno(errno, "write", path));
    written += static_cast<std::size_t>(count);
  }
  return {};
}

}  // namespace

Result<void> write_whole(const std::string& path, const std::string& text, Durability durability) {
  const std::string beside = path + ".new";
  const bool sync = durability == Durability::Power;
  {
    const Fd file(::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640));
    if (!file) return fail(Error::from_errno(errno, "open", beside));
    TL_TRY(write_all(file.get(), text, beside));
    if (sync && ::fdatasync(file.get()) < 0) return fail(Error::from_errno(errno, "sync", beside));
  }
  if (std::rename(beside.c_str(), path.c_str()) != 0) return fail(Error::from_errno(errno, "rename", beside));
  if (!sync) return {};
  // The name as well.
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const Fd directory(::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory || ::fsync(directory.get()) < 0) return fail(Error::from_errno(errno, "sync", folder));
  return {};
}

}  // namespace tierlog::prometheus
