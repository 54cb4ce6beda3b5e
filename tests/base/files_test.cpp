// What stands in the place of a file, and what its reader says. A reader that opened a pipe to wait for a
// writer would never end: the test's time limit is its proof.
#include "base/files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/handle.h"

namespace tierlog {
namespace {

namespace fs = std::filesystem;

class Files : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(folder_ / "folder.yaml");
    std::ofstream(folder_ / "plain.yaml") << "0123456789";
    fs::create_symlink("plain.yaml", folder_ / "link.yml");
    fs::create_symlink("loop.yaml", folder_ / "loop.yaml");
    fs::create_symlink("nowhere", folder_ / "dangling.json");
    fs::create_symlink("/dev/zero", folder_ / "endless.yaml");
    ASSERT_EQ(::mkfifo((folder_ / "pipe.yaml").c_str(), 0600), 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, (folder_ / "socket.yaml").c_str());
    socket_ = Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    std::ofstream(folder_ / ".yaml") << "no extension but a name";
    std::ofstream(folder_ / "other.txt") << "x";
  }
  void TearDown() override { fs::remove_all(folder_); }

  const fs::path folder_ = fs::temp_directory_path() / ("tierlog-files-" + std::to_string(::getpid()));
  Fd socket_;
};

TEST_F(Files, OnlyRegularOnesAreRead) {
  struct Case {
    const char* name;
    int errno_value;
    const char* message;  // where there is no errno
  };
  for (const Case& c : {Case{"plain.yaml", 0, ""}, {"link.yml", 0, ""},
                        {"folder.yaml", 0, "is a folder; expected a regular file"},
                        {"pipe.yaml", 0, "is a named pipe; expected a regular file"},
                        {"socket.yaml", 0, "is a socket; expected a regular file"},
                        {"endless.yaml", 0, "is a device; expected a regular file"},
                        {"loop.yaml", ELOOP, ""}, {"dangling.json", ENOENT, ""}}) {
    const auto text = read_file((folder_ / c.name).string(), 100);
    if (c.errno_value == 0 && *c.message == '\0') {
      ASSERT_TRUE(text) << c.name << ": " << text.error().message;
      EXPECT_EQ(*text, "0123456789");
      continue;
    }
    ASSERT_FALSE(text) << c.name;
    EXPECT_EQ(text.error().errno_value, c.errno_value) << c.name;
    if (c.errno_value == 0) {
      EXPECT_EQ(text.error().message, c.message) << c.name;
    }
  }
}

TEST_F(Files, AreReadUpToALimitAndOneByteMore) {
  EXPECT_EQ(read_file((folder_ / "plain.yaml").string(), 4).value(), "01234");
  EXPECT_EQ(read_file((folder_ / "plain.yaml").string(), 10).value(), "0123456789");
}

TEST_F(Files, APipeOfOnesOwnMayBeRead) {
  int ends[2] = {};
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd from(ends[0]);
  Fd into(ends[1]);
  ASSERT_EQ(::write(into.get(), "ab", 2), 2);
  into.reset();
  EXPECT_EQ(read_file("/dev/fd/" + std::to_string(from.get()), 100).value(), "ab");
}

TEST_F(Files, FoldersAreListed) {
  const auto at = [&](const char* name) { return (folder_ / name).string(); };
  EXPECT_EQ(yaml_files_in(folder_.string()).value(),
            (std::vector<std::string>{at("dangling.json"), at("endless.yaml"), at("link.yml"), at("loop.yaml"),
                                      at("pipe.yaml"), at("plain.yaml"), at("socket.yaml")}));
  EXPECT_EQ(names_in((folder_ / "folder.yaml").string()).value(), std::vector<std::string>());
  EXPECT_EQ(names_in((folder_ / "nowhere").string()).error().errno_value, ENOENT);
  EXPECT_EQ(yaml_files_in((folder_ / "plain.yaml").string()).error().errno_value, ENOTDIR);
}

}  // namespace
}  // namespace tierlog
