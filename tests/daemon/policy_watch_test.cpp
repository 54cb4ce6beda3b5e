// What counts as a change of the policy files.
#include "daemon/policy_watch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

class PolicyWatchTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  void watch(const std::vector<std::string>& paths) {
    auto opened = PolicyWatch::open(paths);
    ASSERT_TRUE(opened) << opened.error().message;
    watch_.emplace(std::move(*opened));
  }
  // Whether anything that happened since the last call is a change.
  bool changed() {
    pollfd ready{watch_->fd(), POLLIN, 0};
    if (::poll(&ready, 1, 0) > 0) watch_->on_readable(std::chrono::seconds(1));
    const bool due = watch_->due().has_value();
    watch_->done();
    return due;
  }
  std::string path(const char* name) const { return (folder_ / name).string(); }

  const fs::path folder_ = fs::temp_directory_path() / ("tierlog-watch-" + std::to_string(::getpid()));
  std::optional<PolicyWatch> watch_;
};

TEST_F(PolicyWatchTest, FilesCountWhenTheyAreWhole) {
  watch({folder_.string()});
  EXPECT_FALSE(changed());
  {
    std::ofstream file(path("a.yaml"));
    file << "kind: " << std::flush;
    EXPECT_FALSE(changed()) << "still being written";
  }
  EXPECT_TRUE(changed());
  fs::rename(path("a.yaml"), path("b.yaml"));
  EXPECT_TRUE(changed());
  fs::create_symlink("b.yaml", path("link.yaml"));
  EXPECT_TRUE(changed());
  fs::remove(path("b.yaml"));
  EXPECT_TRUE(changed());
  EXPECT_FALSE(changed());
}

TEST_F(PolicyWatchTest, AFolderThatIsReplacedIsStillWatched) {
  fs::create_directories(path("policies"));
  watch({path("policies/")});
  fs::remove_all(path("policies"));
  EXPECT_TRUE(changed());
  fs::create_directories(path("policies"));
  EXPECT_TRUE(changed());
  std::ofstream(path("policies/a.yaml")) << "x";
  EXPECT_TRUE(changed());
}

TEST_F(PolicyWatchTest, WhatIsNotThereYetIsNoticedWhenItComes) {
  watch({path("later/policies"), path("later/topology.yaml")});
  fs::create_directories(path("later"));
  EXPECT_TRUE(changed());
  std::ofstream(path("later/topology.yaml")) << "x";
  EXPECT_TRUE(changed());
  fs::create_directories(path("later/policies"));
  EXPECT_TRUE(changed());
  std::ofstream(path("later/policies/a.yaml")) << "x";
  EXPECT_TRUE(changed());
}

TEST_F(PolicyWatchTest, WhatLiesBesideAFileIsNoChange) {
  fs::create_directories(path("policies"));
  std::ofstream(path("topology.yaml")) << "x";
  watch({path("policies"), path("topology.yaml")});
  struct Step {
    const char* name;
    bool is_change;
  };
  for (const Step& step : {Step{"notes.txt", false}, {"flows.db-wal", false}, {"topology.yaml.swp", false},
                           {"topology.yaml", true}, {"policies/a.yaml", true}, {"policies/README", true}}) {
    std::ofstream(path(step.name)) << "y";
    EXPECT_EQ(changed(), step.is_change) << step.name;
  }
  fs::create_directories(path("..2026_11_28"));
  EXPECT_FALSE(changed());
  fs::create_symlink("..2026_11_28", path("..data_tmp"));
  EXPECT_FALSE(changed());
  fs::rename(path("..data_tmp"), path("..data"));
  EXPECT_TRUE(changed()) << "so a mounted ConfigMap is renewed";
}

TEST_F(PolicyWatchTest, TheFolderAboveIsForgottenWhenTheWantedOneIsThere) {
  watch({path("later/policies")});
  fs::create_directories(path("later/policies"));
  EXPECT_TRUE(changed());
  fs::create_directories(path("other"));
  EXPECT_FALSE(changed());
}

}  // namespace
}  // namespace tierlog::daemon
