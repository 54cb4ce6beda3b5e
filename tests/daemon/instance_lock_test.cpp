#include "daemon/instance_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

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

TEST(InstanceLock, AFileThatIsRemovedAtTheEndLocksNobodyOutAndNobodyTwice) {
  const fs::path folder = fs::temp_directory_path() / ("tierlog-lock-end-" + std::to_string(::getpid()));
  const std::string kept = (folder / "kept.lock").string(), removed = (folder / "removed.lock").string();
  fs::create_directories(folder);
  {
    InstanceLock lock;
    ASSERT_TRUE(lock.take(kept));
    ASSERT_TRUE(lock.take(removed, InstanceLock::AtEnd::Remove));
    EXPECT_TRUE(fs::exists(removed));
  }
  EXPECT_TRUE(fs::exists(kept));
  EXPECT_FALSE(fs::exists(removed));
  // Both at once, again and again: never do two hold it, whoever removes it.
  std::atomic<int> holders{0}, taken{0}, twice{0};
  const auto take_often = [&] {
    for (int i = 0; i < 1000; ++i) {
      InstanceLock lock;
      if (!lock.take(removed, InstanceLock::AtEnd::Remove)) continue;
      ++taken;
      if (++holders > 1) ++twice;
      --holders;
    }
  };
  std::thread other(take_often);
  take_often();
  other.join();
  EXPECT_GT(taken, 500);
  EXPECT_EQ(twice, 0);
  fs::remove_all(folder);
}

}  // namespace
}  // namespace tierlog::daemon
