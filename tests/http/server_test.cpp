// The server by what clients meet: answers and refusals, slow and silent clients, long answers, token, TLS.
#include "http/server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "http/address.h"
#include "tests/http/client.h"

namespace tierlog::http {
namespace {

using testing_client::Answer;
using testing_client::ask;
using testing_client::connect_to;
using testing_client::hear;
using testing_client::say;

// Long answers wait until the test lets them go.
class Gate {
 public:
  void wait() {
    ++waiting;
    std::unique_lock lock(mutex_);
    opened_.wait(lock, [this] { return open_; });
  }
  void open() {
    {
      const std::lock_guard lock(mutex_);
      open_ = true;
    }
    opened_.notify_all();
  }
  std::atomic<int> waiting{0};

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = false;
};

class Servers : public ::testing::Test {
 protected:
  void TearDown() override {
    gate_.open();
    server_.reset();
  }

  std::uint16_t start(Options options = {}) {
    options.listen = "127.0.0.1:0";
    auto made = Server::listen(options);
    EXPECT_TRUE(made) << made.error().message;
    server_ = std::move(*made);
    const auto echo = [](const Request& request) {
      std::string body = request.path + "|" + request.accept;
      for (const auto& [name, value] : request.parameters) body += "|" + name + "=" + value;
      return Response{200, "text/plain", body};
    };
    const auto started = server_->start({{"/echo", echo, Route::Cost::Short, false},
                                         {"/open", echo, Route::Cost::Short, true},
                                         {"/large",
                                          [](const Request&) {
                                            return Response{200, "text/plain", std::string(20'000'000, 'x')};
                                          },
                                          Route::Cost::Short, false},
                                         {"/long",
                                          [this](const Request&) {
                                            gate_.wait();
                                            return Response{200, "text/plain", "done"};
                                          },
                                          Route::Cost::Long, false}});
    EXPECT_TRUE(started) << started.error().message;
    return server_->port();
  }

  Gate gate_;
  std::unique_ptr<Server> server_;
};

struct Case {
  const char* title;
  const char* target;
  const char* method;
  const char* host;
  int status;
  const char* body;  // part of it
};

class Requests : public Servers, public ::testing::WithParamInterface<Case> {};

TEST_P(Requests, AreAnsweredOrRefused) {
  const std::uint16_t port = start();
  const Answer answer = ask(port, GetParam().target, "Accept: a/b\r\n", GetParam().method, GetParam().host);
  EXPECT_EQ(answer.status, GetParam().status) << answer.head;
  EXPECT_NE(answer.body.find(GetParam().body), std::string::npos) << answer.body;
  EXPECT_NE(answer.head.find("X-Content-Type-Options: nosniff"), std::string::npos) << answer.head;
}
INSTANTIATE_TEST_SUITE_P(
    Server, Requests,
    ::testing::Values(Case{"Plain", "/echo", "GET", "localhost:1", 200, "/echo|a/b"},
                      Case{"Below", "/echo/x%2Fy/z", "GET", "127.0.0.1", 200, "/echo/x/y/z|"},
                      Case{"Parameters", "/echo?a=1&b=x%26y+z&a=2&c", "GET", "[::1]:9", 200,
                           "|a=1|b=x&y z|a=2|c="},
                      Case{"Head", "/echo", "HEAD", "localhost", 200, ""},
                      Case{"NotBelow", "/echoes", "GET", "localhost", 404, "expected one of /echo, /open"},
                      Case{"Post", "/echo", "POST", "localhost", 405, "expected GET or HEAD"},
                      Case{"Delete", "/echo", "DELETE", "localhost", 405, "expected GET or HEAD"},
                      Case{"AnotherName", "/echo", "GET", "rebound.example", 403, "Host names another"}),
    [](const auto& param_info) { return std::string(param_info.param.title); });

TEST_F(Servers, HeadHasNoBody) {
  const std::uint16_t port = start();
  EXPECT_EQ(ask(port, "/echo", "", "HEAD").body, "");
}

TEST_F(Servers, AskForTheTokenButNotForProbes) {
  Options options;
  options.token = "s3cret";
  const std::uint16_t port = start(options);
  EXPECT_EQ(ask(port, "/echo").status, 401);
  EXPECT_EQ(ask(port, "/nothing").status, 401) << "what there is is nobody's business";
  for (const char* wrong : {"Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret"})
    EXPECT_EQ(ask(port, "/echo", std::string("Authorization: ") + wrong + "\r\n").status, 401) << wrong;
  EXPECT_EQ(ask(port, "/echo", "Authorization: Bearer s3cret\r\n").status, 200);
  EXPECT_EQ(ask(port, "/open").status, 200);
  EXPECT_EQ(ask(port, "/echo", "Authorization: Bearer s3cret\r\n", "GET", "any.name").status, 200)
      << "who has the token is no page that was pointed here";
}

TEST_F(Servers, ClientsThatNeverFinishHoldNobodyUp) {
  const std::uint16_t port = start();
  std::vector<Fd> slow;
  for (int i = 0; i < 100; ++i) {
    slow.push_back(connect_to(port));
    ASSERT_TRUE(slow.back());
    ASSERT_TRUE(say(slow.back(), "GET /echo HTTP/1.1\r\nHost: loc"));
  }
  std::vector<Fd> deaf;  // ask for much and read nothing
  for (int i = 0; i < 5; ++i) {
    deaf.push_back(connect_to(port));
    ASSERT_TRUE(say(deaf.back(), "GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"));
  }
  EXPECT_EQ(ask(port, "/echo").status, 200);
  for (const Fd& one : slow) ASSERT_TRUE(say(one, "alhost\r\nConnection: close\r\n\r\n"));
  for (const Fd& one : slow) EXPECT_EQ(testing_client::parse(hear(one)).status, 200);
}

TEST_F(Servers, SilentOnesAreCutOff) {
  Options options;
  options.idle_seconds = 1;
  const std::uint16_t port = start(options);
  const Fd silent = connect_to(port);
  ASSERT_TRUE(say(silent, "GET /echo HTTP/1.1\r\n"));
  EXPECT_EQ(hear(silent, 8'000).find("200 OK"), std::string::npos);
  char byte = 0;
  EXPECT_EQ(::recv(silent.get(), &byte, 1, MSG_DONTWAIT), 0) << "closed by the server";
}

TEST_F(Servers, LongAnswersLeaveRoomForShortOnes) {
  const std::uint16_t port = start();
  std::vector<std::future<Answer>> waiting;
  for (int i = 0; i < 6; ++i)
    waiting.push_back(std::async(std::launch::async, [port] { return ask(port, "/long"); }));
  while (gate_.waiting < 2) std::this_thread::yield();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ask(port, "/echo").status, 200);
  EXPECT_EQ(gate_.waiting, 2) << "the last worker is for short ones";
  gate_.open();
  for (auto& one : waiting) EXPECT_EQ(one.get().body, "done");
}

TEST_F(Servers, MoreThanTheLimitWaitTheirTurn) {
  Options options;
  options.connections = 4;
  const std::uint16_t port = start(options);
  std::vector<Fd> idle;
  for (int i = 0; i < 4; ++i) idle.push_back(connect_to(port));
  auto fifth = std::async(std::launch::async, [port] { return ask(port, "/echo"); });
  idle.clear();
  EXPECT_EQ(fifth.get().status, 200);
}

TEST_F(Servers, TooMuchHeaderIsRefused) {
  const std::uint16_t port = start();
  EXPECT_GE(ask(port, "/echo", "X: " + std::string(40'000, 'x') + "\r\n").status, 400);
  EXPECT_GE(ask(port, "/echo?" + std::string(40'000, 'x')).status, 400);
  EXPECT_EQ(ask(port, "/echo").status, 200);
}

TEST_F(Servers, GarbageEndsTheConnectionOnly) {
  Options options;
  options.idle_seconds = 1;
  const std::uint16_t port = start(options);
  for (const std::string& text : {std::string("\0\x01\x02\xff\r\n\r\n", 8), std::string("GET\r\n\r\n"),
                                  std::string("GET /echo HTTP/9.9\r\n\r\n"), std::string("\r\n\r\n\r\n")}) {
    const Fd socket = connect_to(port);
    say(socket, text);
    ::shutdown(socket.get(), SHUT_WR);
    EXPECT_EQ(hear(socket).find("200 OK"), std::string::npos);
  }
  EXPECT_EQ(ask(port, "/echo").status, 200);
}

TEST_F(Servers, RequestsUnderWayAreAnsweredBeforeTheEnd) {
  const std::uint16_t port = start();
  auto waiting = std::async(std::launch::async, [port] { return ask(port, "/long"); });
  while (gate_.waiting < 1) std::this_thread::yield();
  auto end = std::async(std::launch::async, [this] { server_.reset(); });
  gate_.open();
  end.get();
  const Answer answer = waiting.get();
  EXPECT_TRUE(answer.status == 200 || answer.status == 0) << answer.head;
}

TEST_F(Servers, AnAddressInUseIsNamed) {
  const std::uint16_t port = start();
  Options options;
  options.listen = "127.0.0.1:" + std::to_string(port);
  const auto second = Server::listen(options);
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find(options.listen + ": EADDRINUSE"), std::string::npos)
      << second.error().message;
}

TEST_F(Servers, SpeakTls) {
  const std::string base =
      (std::filesystem::temp_directory_path() / ("tierlog-tls-" + std::to_string(::getpid()))).string();
  const std::string make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout " +
                           base + ".key -out " + base + ".crt 2>/dev/null";
  ASSERT_EQ(std::system(make.c_str()), 0) << "openssl (scripts/install-deps --test) made no certificate";
  const auto text = [](const std::string& path) {
    std::ifstream file(path);
    std::stringstream all;
    all << file.rdbuf();
    return all.str();
  };
  Options options;
  options.certificate = text(base + ".crt");
  options.key = text(base + ".key");
  const std::uint16_t port = start(options);
  EXPECT_TRUE(server_->url().starts_with("https://"));
  EXPECT_NE(ask(port, "/echo").status, 200) << "in clear";
  const std::string get =
      "printf 'GET /echo HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | timeout 20 "
      "openssl s_client -quiet -CAfile " +
      base + ".crt -verify_return_error -connect 127.0.0.1:" + std::to_string(port) + " 2>/dev/null >" +
      base + ".out";
  static_cast<void>(std::system(get.c_str()));
  EXPECT_NE(text(base + ".out").find("200 OK"), std::string::npos) << text(base + ".out");
  Options broken;
  broken.listen = "127.0.0.1:0";
  broken.certificate = options.certificate;
  broken.key = "no key";
  auto bad = Server::listen(broken);
  ASSERT_TRUE(bad);
  const auto refused = (*bad)->start({});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::InvalidArgument);
  for (const char* end : {".crt", ".key", ".out"}) std::filesystem::remove(base + end);
}

struct AddressCase {
  const char* text;
  const char* expected;  // nullptr: none
};
class Addresses : public ::testing::TestWithParam<AddressCase> {};
TEST_P(Addresses, AreReadOrRefused) {
  const auto address = parse_address(GetParam().text);
  if (GetParam().expected == nullptr) {
    EXPECT_FALSE(address) << GetParam().text;
    return;
  }
  ASSERT_TRUE(address) << address.error().message;
  EXPECT_EQ(to_string(*address), GetParam().expected);
}
INSTANTIATE_TEST_SUITE_P(
    Http, Addresses,
    ::testing::Values(AddressCase{"127.0.0.1:9477", "127.0.0.1:9477"},
                      AddressCase{"localhost:1", "127.0.0.1:1"}, AddressCase{"[::1]:9477", "[::1]:9477"},
                      AddressCase{"0.0.0.0:0", "0.0.0.0:0"}, AddressCase{"127.0.0.1", nullptr},
                      AddressCase{":9477", nullptr}, AddressCase{"::1:9477", nullptr},
                      AddressCase{"127.0.0.1:65536", nullptr}, AddressCase{"127.0.0.1:9477x", nullptr},
                      AddressCase{"node-1:80", nullptr}, AddressCase{"", nullptr}));

}  // namespace
}  // namespace tierlog::http
