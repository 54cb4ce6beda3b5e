#include "store/damaged.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "base/time.h"
#include "store/flow_store.h"
#include "store/schema.h"
#include "store/sqlite.h"

namespace tierlog::store {
namespace {

Result<void> rename_file(const std::string& from, const std::string& to, bool must_exist) {
  if (::rename(from.c_str(), to.c_str()) == 0 || (errno == ENOENT && !must_exist)) return {};
  return fail(Error::from_errno(errno, "keep aside", from));
}

// "20261128T122200Z"
std::string now_as_name() {
  std::string text = format_rfc3339(SystemClock().wall()).substr(0, 19) + "Z";
  std::string name;
  for (const char c : text)
    if (c != '-' && c != ':') name += c;
  return name;
}

}  // namespace

bool belongs_to_others(const std::string& path) {
  auto database = sqlite::Database::open(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX);
  if (!database) return false;
  const auto application = database->integer("PRAGMA application_id");
  const auto version = database->integer("PRAGMA user_version");
  const auto objects = database->integer("SELECT count(*) FROM sqlite_schema");
  if (!application || !version || !objects) return false;
  return *application != kApplicationId || *version > kSchemaVersion;
}

Result<std::string> keep_aside(const std::string& path) {
  const std::string base = path + ".corrupt-" + now_as_name();
  std::string name = base;
  for (int i = 2; ::access(name.c_str(), F_OK) == 0; ++i) name = base + "-" + std::to_string(i);
  TL_TRY(rename_file(path, name, true));
  TL_TRY(rename_file(path + "-wal", name + "-wal", false));
  if (::unlink((path + "-shm").c_str()) != 0 && errno != ENOENT)
    return fail(Error::from_errno(errno, "remove", path + "-shm"));
  return name;
}

}  // namespace tierlog::store
