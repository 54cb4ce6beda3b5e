#include "cni/spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/handle.h"

namespace tierlog::cni {

Result<std::string> spool(const std::string& folder, const std::string& container_id,
                          const std::string& interface, const std::string& request) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return fail(Error::from_errno(error.value(), "make folder", folder));
  const std::string path = folder + "/" + container_id + "@" + interface + ".json";
  const std::string unfinished = path + "." + std::to_string(::getpid());
  const Fd file(::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file) return fail(Error::from_errno(errno, "create", unfinished));
  const std::string line = request + "\n";
  const bool written = ::write(file.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size());
  if (!written || ::fsync(file.get()) != 0 || ::rename(unfinished.c_str(), path.c_str()) != 0) {
    const Error failed = Error::from_errno(errno, "write", path);
    ::unlink(unfinished.c_str());
    return fail(failed);
  }
  return path;
}

}  // namespace tierlog::cni
