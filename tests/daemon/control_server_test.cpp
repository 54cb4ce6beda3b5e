// The daemon's socket: right requests, wrong ones, and peers that do not behave.
#include "daemon/control_server.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "endpoints/control.h"

namespace tierlog::daemon {
namespace {

using nlohmann::json;

class ControlServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("tierlog-control-" + std::to_string(::getpid()));
    path_ = (folder_ / "deep" / "d.sock").string();
    auto server = ControlServer::listen(path_, [](const json& request, Trust) -> Result<json> {
      if (request["op"] == "echo") return json{{"said", request["text"]}};
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

TEST_F(ControlServerTest, IsForTheGroupOnly) {
  struct stat about {};
  ASSERT_EQ(::stat(path_.c_str(), &about), 0);
  EXPECT_EQ(about.st_mode & 0777, 0660u);
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

}  // namespace
}  // namespace tierlog::daemon
