#include "store/files.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "base/handle.h"
#include "store/flow_store.h"

namespace tierlog::store {
namespace {

constexpr mode_t kFolderMode = 02750;

std::optional<gid_t> readers_group() {
  group entry{};
  group* found = nullptr;
  char buffer[4096];
  if (::getgrnam_r("tierlog", &entry, buffer, sizeof buffer, &found) != 0 || found == nullptr)
    return std::nullopt;
  return found->gr_gid;
}

// A folder with the set-group-id bit has already given the file its group.
bool inherits_group(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  struct stat status {};
  return ::stat(folder.c_str(), &status) == 0 && (status.st_mode & S_ISGID) != 0;
}

}  // namespace

Result<void> prepare_store_folder(const std::string& folder) {
  if (::mkdir(folder.c_str(), 0750) != 0) {
    if (errno == EEXIST) return {};  // whoever made it chose who may read it
    return fail(Error::from_errno(errno, "make folder", folder));
  }
  const auto group = readers_group();
  if (group && ::geteuid() == 0 && ::chown(folder.c_str(), 0, *group) != 0)
    return fail(Error::from_errno(errno, "give to group tierlog", folder));
  if (::chmod(folder.c_str(), kFolderMode) != 0)  // after chown, which clears the set-group-id bit
    return fail(Error::from_errno(errno, "set mode of", folder));
  return {};
}

Result<void> create_private_file(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) return fail(Error::from_errno(errno, "open", path));
  if (::fchmod(file.get(), 0600) != 0) return fail(Error::from_errno(errno, "set mode of", path));
  return {};
}

Result<void> create_readable_file(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!file) return fail(Error::from_errno(errno, "open", path));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return fail(Error::from_errno(errno, "stat", path));
  if (status.st_size != 0) return {};
  const auto group = readers_group();
  if (group && ::geteuid() == 0 && !inherits_group(path) &&
      ::fchown(file.get(), static_cast<uid_t>(-1), *group) != 0 &&
      errno != EPERM)  // without CAP_CHOWN: root's
    return fail(Error::from_errno(errno, "give to group tierlog", path));
  if (::fchmod(file.get(), 0640) != 0) return fail(Error::from_errno(errno, "set mode of", path));
  return {};
}

}  // namespace tierlog::store
