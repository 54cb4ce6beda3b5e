// What still works and what no longer does, tried for real in a child with a network namespace of its own.
#include "daemon/privileges.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>

namespace tierlog::daemon {
namespace {

namespace fs = std::filesystem;

bool write_text(const std::string& path, const char* text) {
  std::ofstream file(path);
  file << text << std::flush;
  return file.good();
}

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  file >> text;
  return text;
}

// Runs `work` in a child that has dropped its privileges; 0 when it answers true.
int in_child(const std::function<bool()>& work) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::unshare(CLONE_NEWNET) != 0) ::_exit(2);
    if (!drop_privileges()) ::_exit(3);
    ::_exit(work() ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

class Privileges : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SETPCAP and capabilities to give up (run as root)";
    fs::create_directories(folder_);
    write_text(folder_ / "nobodys", "text");
    ASSERT_EQ(::chown((folder_ / "nobodys").c_str(), 65534, 65534), 0);
    ASSERT_EQ(::chmod((folder_ / "nobodys").c_str(), 0600), 0);
  }
  void TearDown() override { fs::remove_all(folder_); }
  const fs::path folder_ = fs::temp_directory_path() / ("tierlog-priv-" + std::to_string(::getpid()));
};

TEST_F(Privileges, TwoCapabilitiesAreLeftForGood) {
  EXPECT_EQ(in_child([] {
              return effective_capabilities() == "dac_read_search, net_admin" &&
                     ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
                     ::prctl(PR_CAPBSET_READ, 21 /* CAP_SYS_ADMIN */, 0, 0, 0) == 0;
            }),
            0);
}

TEST_F(Privileges, DroppingTwiceIsFine) {
  EXPECT_EQ(
      in_child([] { return drop_privileges() && effective_capabilities() == "dac_read_search, net_admin"; }),
      0);
}

TEST_F(Privileges, TheNetworksSwitchesCanBeSet) {
  EXPECT_EQ(in_child([] {
              const std::string path = "/proc/sys/net/ipv4/conf/lo/forwarding";
              const std::string other = read_text(path) == "1" ? "0" : "1";
              return write_text(path, other.c_str()) && read_text(path) == other;
            }),
            0);
}

TEST_F(Privileges, OthersFilesCanBeReadButNotWritten) {
  EXPECT_EQ(in_child([this] {
              const std::string path = (folder_ / "nobodys").string();
              return read_text(path) == "text" && !write_text(path, "changed");
            }),
            0);
}

TEST_F(Privileges, NothingElseOfRootsPowerIsLeft) {
  EXPECT_EQ(in_child([this] {
              const bool mounted = ::mount("none", folder_.c_str(), "tmpfs", 0, nullptr) == 0;
              const bool unshared = ::unshare(CLONE_NEWNET) == 0;
              const bool given = ::chown(folder_.c_str(), 65534, 65534) == 0;
              const bool other_user = ::setuid(65534) == 0;
              return !mounted && !unshared && !given && !other_user;
            }),
            0);
}

}  // namespace
}  // namespace tierlog::daemon
