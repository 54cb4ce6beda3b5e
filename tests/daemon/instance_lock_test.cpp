#include "daemon/instance_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

TEST(InstanceLock, TheSecondIsToldTheFirstsPidUntilTheFirstIsGone) {
  const fs::path folder = fs::temp_directory_path() / ("tierlog-lock-" + std::to_string(::getpid()));
  const std::string path = (folder / "below" / "x.lock").string();
  InstanceLock second;
  {
    InstanceLock first;
    ASSERT_TRUE(first.take(path));
    const auto refused = second.take(path);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::Unavailable);
    EXPECT_NE(refused.error().message.find("(pid " + std::to_string(::getpid()) + ", lock " + path + ")"),
              std::string::npos)
        << refused.error().message;
    EXPECT_TRUE(first.take((folder / "other.lock").string())) << "one process may hold several";
  }
  EXPECT_TRUE(second.take(path));
  fs::remove_all(folder);
}

}  // namespace
}  // namespace tierlog::daemon
