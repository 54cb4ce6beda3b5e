// The daemon's socket: right requests, wrong ones, and peers that do not behave.
#include "daemon/control_server.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "endpoints/control.h"

namespace tierlog::daemon {
namespace {

using nlohmann::json;

constexpr std::size_t kLong = 3 << 20;  // more than a socket holds

class ControlServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("tierlog-control-" + std::to_string(::getpid()));
    path_ = (folder_ / "deep" / "d.sock").string();
    auto server = ControlServer::listen(path_, [](const json& request, Trust) -> Result<json> {
      if (request["op"] == "echo") return json{{"said", request["text"].get<std::string>()}};
      if (request["op"] == "long") return json{{"said", std::string(kLong, 'x')}};
      return fail(ErrorCode::NotFound, "no such thing");
    });
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::make_unique<ControlServer>(std::move(*server));
    loop_ = std::thread([this] {
      const SystemClock clock;
      while (!stop_) {
        std::vector<pollfd> descriptors;
        server_->add_descriptors(descriptors);
        ::poll(descriptors.data(), descriptors.size(), 20);
        server_->serve(descriptors, clock.boottime());
      }
    });
  }
  void TearDown() override {
    stop_ = true;
    loop_.join();
    server_.reset();
    EXPECT_FALSE(std::filesystem::exists(path_)) << "the socket file goes with the server";
    std::filesystem::remove_all(folder_);
  }

  Fd connect() const {
    Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strcpy(address.sun_path, path_.c_str());
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    return fd;
  }

  std::string raw(const std::string& text) const {
    const Fd fd = connect();
    EXPECT_EQ(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
    ::shutdown(fd.get(), SHUT_WR);
    std::string answer(4096, '\0');
    const ssize_t got = ::recv(fd.get(), answer.data(), answer.size(), MSG_WAITALL);
    answer.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return answer;
  }

  std::filesystem::path folder_;
  std::string path_;
  std::unique_ptr<ControlServer> server_;
  std::thread loop_;
  std::atomic<bool> stop_{false};
};

TEST_F(ControlServerTest, AnswersAndRefuses) {
  const auto echoed = endpoints::call(path_, {{"op", "echo"}, {"text", "hé\n"}});
  ASSERT_TRUE(echoed) << echoed.error().message;
  EXPECT_EQ((*echoed)["said"], "hé\n");
  const auto refused = endpoints::call(path_, {{"op", "other"}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::NotFound);
  EXPECT_EQ(refused.error().message, "no such thing");
}

TEST_F(ControlServerTest, FieldsOfOtherTypesAreRefused) {
  for (const char* version : {"\"1\"", "2", "{}", "null", "1.5"})
    EXPECT_NE(raw(std::string("{\"v\":") + version + ",\"op\":\"echo\",\"text\":\"x\"}\n").find("unknown version"),
              std::string::npos)
        << version;
  EXPECT_NE(raw("{\"v\":1,\"op\":\"echo\",\"text\":7}\n").find("wrong type"), std::string::npos);
  EXPECT_TRUE(endpoints::call(path_, {{"op", "echo"}, {"text", "still there"}}));
}

TEST_F(ControlServerTest, IsForTheGroupOnly) {
  struct stat about {};
  ASSERT_EQ(::stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0660u);
}

// Whoever the kernel says is at the other end; 'o' for an owner, 'r' for a reader, 'n' for nobody who may
// ask.
char trust_of_peer(const std::string& path, uid_t user, gid_t group, gid_t also) {
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setgroups(1, &also) != 0 || ::setgid(group) != 0 || ::setuid(user) != 0) ::_exit('?');
    const auto answer = endpoints::call(path, {{"op", "who"}});
    ::_exit(answer ? (*answer)["trust"].get<std::string>().front() : 'n');
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return static_cast<char>(WEXITSTATUS(status));
}

// In a mount namespace where there is a group tierlog, behind a socket that every user may connect to.
char trust_in_a_host_with_the_group(uid_t user, gid_t group, gid_t also) {
  constexpr gid_t kTierlog = 54'321;
  const auto folder =
      std::filesystem::temp_directory_path() / ("tierlog-peers-" + std::to_string(::getpid()));
  const pid_t host = ::fork();
  if (host == 0) {
    std::filesystem::create_directories(folder);
    std::ofstream(folder / "group") << "root:x:0:\ntierlog:x:" << kTierlog << ":\n";
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount((folder / "group").c_str(), "/etc/group", nullptr, MS_BIND, nullptr) != 0)
      ::_exit('?');
    const std::string path = (folder / "d.sock").string();
    auto server = ControlServer::listen(path, [](const json&, Trust trust) -> Result<json> {
      return json{{"trust", trust == Trust::Owner ? "o" : "r"}};
    });
    if (!server || ::chmod(path.c_str(), 0777) != 0 || ::chmod(folder.c_str(), 0755) != 0) ::_exit('?');
    std::atomic<bool> stop{false};
    std::thread loop([&] {
      const SystemClock clock;
      while (!stop) {
        std::vector<pollfd> descriptors;
        server->add_descriptors(descriptors);
        ::poll(descriptors.data(), descriptors.size(), 20);
        server->serve(descriptors, clock.boottime());
      }
    });
    const char trust = trust_of_peer(path, user, group, also);
    stop = true;
    loop.join();
    ::_exit(trust);
  }
  int status = 0;
  ::waitpid(host, &status, 0);
  std::filesystem::remove_all(folder);
  return static_cast<char>(WEXITSTATUS(status));
}

TEST(ControlServerPeers, AreWhoTheKernelSaysTheyAre) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SETUID, CAP_SETGID and CAP_SYS_ADMIN to be other users (run as root)";
  constexpr gid_t kTierlog = 54'321, kOther = 65'534;
  constexpr uid_t kUser = 65'534;
  EXPECT_EQ(trust_in_a_host_with_the_group(0, 0, 0), 'o');
  EXPECT_EQ(trust_in_a_host_with_the_group(kUser, kTierlog, kOther), 'r');
  EXPECT_EQ(trust_in_a_host_with_the_group(kUser, kOther, kTierlog), 'r') << "a member by its further groups";
  EXPECT_EQ(trust_in_a_host_with_the_group(kUser, kOther, kOther), 'n');
}

struct RawCase {
  const char* title;
  const char* text;
  const char* answer;  // part of it
};

TEST_F(ControlServerTest, SaysWhatIsWrongWithARequest) {
  const RawCase cases[] = {{"no json", "hello\n", "expected {\\\"v\\\":1"},
                           {"a list", "[1]\n", "expected {\\\"v\\\":1"},
                           {"no op", "{\"v\":1}\n", "expected {\\\"v\\\":1"},
                           {"op is no text", "{\"v\":1,\"op\":3}\n", "expected {\\\"v\\\":1"},
                           {"another version", "{\"v\":2,\"op\":\"echo\"}\n", "unknown version"}};
  for (const RawCase& c : cases)
    EXPECT_NE(raw(c.text).find(c.answer), std::string::npos) << c.title << ": " << raw(c.text);
}

TEST_F(ControlServerTest, SurvivesPeersThatSendHalfOrTooMuch) {
  EXPECT_EQ(raw("{\"v\":1"), "");
  const Fd endless = connect();
  const std::string much(1 << 16, 'x');
  for (int i = 0; i < 40; ++i)
    if (::send(endless.get(), much.data(), much.size(), MSG_NOSIGNAL) < 0) break;
  const Fd silent = connect();
  EXPECT_TRUE(endpoints::call(path_, {{"op", "echo"}, {"text", "still here"}}));
}

// Whoever holds all connections by requests that never end loses the oldest of them to those who ask.
TEST_F(ControlServerTest, IdlePeersLockNobodyOut) {
  std::vector<Fd> idle;
  for (int i = 0; i < 200; ++i) {
    idle.push_back(connect());
    ASSERT_EQ(::send(idle.back().get(), "{\"v\":1,", 7, MSG_NOSIGNAL), 7);
    if (i % 20 != 19) continue;
    const auto answer = endpoints::call(path_, {{"op", "echo"}, {"text", "still here"}});
    ASSERT_TRUE(answer) << i << ": " << answer.error().message;
  }
  std::string told(200, '\0');
  told.resize(static_cast<std::size_t>(::recv(idle[0].get(), told.data(), told.size(), 0)));
  EXPECT_NE(told.find("\"code\":\"unavailable\""), std::string::npos) << told;
  char nothing = 0;
  EXPECT_LT(::recv(idle.back().get(), &nothing, 1, MSG_DONTWAIT), 0) << "the newest still has its time";
}

TEST_F(ControlServerTest, LongAnswersArriveWholeAndStopNobodyElse) {
  const Fd lazy = connect();
  const std::string request = "{\"v\":1,\"op\":\"long\"}\n";
  ASSERT_EQ(::send(lazy.get(), request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  EXPECT_TRUE(endpoints::call(path_, {{"op", "echo"}, {"text", "meanwhile"}}));
  const auto whole = endpoints::call(path_, {{"op", "long"}});
  ASSERT_TRUE(whole) << whole.error().message;
  EXPECT_EQ((*whole)["said"].get<std::string>().size(), kLong);
}

// Driven by hand, so that the clock is ours: bytes that trickle in buy no time.
TEST(ControlServerClock, ARequestHasFiveSecondsHoweverItTrickles) {
  const auto folder = std::filesystem::temp_directory_path() / ("tierlog-clock-" + std::to_string(::getpid()));
  const std::string path = (folder / "d.sock").string();
  auto server = ControlServer::listen(path, [](const json&, Trust) -> Result<json> { return json::object(); });
  ASSERT_TRUE(server) << server.error().message;
  const Fd peer(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strcpy(address.sun_path, path.c_str());
  ASSERT_EQ(::connect(peer.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const auto closed_after = [&](std::chrono::seconds now) {
    ::send(peer.get(), "x", 1, MSG_NOSIGNAL);
    std::vector<pollfd> descriptors;
    server->add_descriptors(descriptors);
    ::poll(descriptors.data(), descriptors.size(), 0);
    server->serve(descriptors, now);
    char nothing = 0;
    return ::recv(peer.get(), &nothing, 1, MSG_DONTWAIT) >= 0 || errno == ECONNRESET;
  };
  for (int second = 0; second <= 5; ++second) EXPECT_FALSE(closed_after(std::chrono::seconds(second))) << second;
  EXPECT_TRUE(closed_after(std::chrono::seconds(6)));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace tierlog::daemon
