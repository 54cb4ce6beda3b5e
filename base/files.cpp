#include "base/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/handle.h"

namespace tierlog {
namespace {

const char* kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a named pipe";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "something else";
}

bool is_own_descriptor(const std::string& path) {
  return path == "/dev/stdin" || path.starts_with("/dev/fd/") || path.starts_with("/proc/self/fd/");
}

tl::unexpected<Error> irregular(mode_t mode) {
  return fail(ErrorCode::InvalidArgument, std::string("is ") + kind_of(mode) + "; expected a regular file");
}

bool has_yaml_name(std::string_view name) {
  const auto dot = name.rfind('.');
  if (dot == 0 || dot == std::string_view::npos) return false;
  const std::string_view extension = name.substr(dot);
  return extension == ".yaml" || extension == ".yml" || extension == ".json";
}

Result<Fd> open_regular(const std::string& path) {
  if (path == "/dev/stdin") {
    Fd copy(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    return copy ? Result<Fd>(std::move(copy)) : fail(Error::from_errno(errno, "read", path));
  }
  const bool own = is_own_descriptor(path);
  struct stat about {};
  // Looked at before it is opened too: opening alone starts some devices.
  if (::stat(path.c_str(), &about) != 0) return fail(Error::from_errno(errno, "read", path));
  if (!S_ISREG(about.st_mode) && (!own || S_ISDIR(about.st_mode))) return irregular(about.st_mode);
  Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | (own ? 0 : O_NONBLOCK)));
  if (!file || ::fstat(file.get(), &about) != 0) return fail(Error::from_errno(errno, "read", path));
  if (!S_ISREG(about.st_mode) && !own) return irregular(about.st_mode);
  return file;
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
  TL_ASSIGN(const Fd file, open_regular(path));
  std::string text;
  std::array<char, 1 << 16> block{};
  while (text.size() <= max_bytes) {
    const ssize_t got = ::read(file.get(), block.data(), std::min(block.size(), max_bytes + 1 - text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Error::from_errno(errno, "read", path));
    if (got == 0) break;
    text.append(block.data(), static_cast<std::size_t>(got));
  }
  return text;
}

Result<std::vector<std::string>> names_in(const std::string& folder) {
  const Owned<DIR, ::closedir> stream(::opendir(folder.c_str()));
  if (!stream) return fail(Error::from_errno(errno, "read folder", folder));
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  if (errno != 0) return fail(Error::from_errno(errno, "read folder", folder));
  std::sort(names.begin(), names.end());
  return names;
}

Result<std::vector<std::string>> yaml_files_in(const std::string& folder) {
  TL_ASSIGN(const auto names, names_in(folder));
  std::vector<std::string> files;
  for (const std::string& name : names) {
    const std::string path = folder + (folder.ends_with('/') ? "" : "/") + name;
    struct stat about {};
    const bool is_folder = ::stat(path.c_str(), &about) == 0 && S_ISDIR(about.st_mode);
    if (!is_folder && has_yaml_name(name)) files.push_back(path);
  }
  return files;
}

}  // namespace tierlog
