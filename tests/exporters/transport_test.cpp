// Ways to a receiver: Unix socket, TLS, the handshake; with receivers that are not who they should be.
#include <gtest/gtest.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <atomic>
#include <fstream>
#include <msgpack.hpp>
#include <thread>

#include "exporters/fluentbit/handshake.h"
#include "tests/exporters/ack_server.h"
#include "tests/exporters/certificates.h"
#include "tests/exporters/sample_records.h"
#include "tests/exporters/sender.h"

namespace tierlog::exporters::fluentbit {
namespace {

using namespace std::chrono_literals;
using testing::AckServer;
using testing::Answer;
using testing::Certificates;
using testing::denied_records;
using testing::Received;
using testing::Sender;
using testing::ServerOptions;

Answer right(const Received& message) {
  return {.bytes = testing::ack_of(message.chunk)};
}

void expect_failure(const Outcome<std::size_t>& sent, FailureCause cause, const std::string& says) {
  ASSERT_FALSE(sent);
  EXPECT_EQ(name(sent.error().cause), name(cause)) << sent.error().error.message;
  EXPECT_NE(sent.error().error.message.find(says), std::string::npos) << sent.error().error.message;
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tierlog-way-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string file(const std::string& name, const std::string& text) const {
    std::ofstream(path_ + "/" + name) << text;
    return path_ + "/" + name;
  }
  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

TEST(UnixSocket, TakesRecordsAndComesBack) {
  const TemporaryFolder folder;
  const std::string path = folder.path("fluent.sock");
  Sender sink({.socket = path, .timeout = 5s});
  expect_failure(sink.send(denied_records(2)), FailureCause::Connect, "connect " + path + ": ENOENT");
  AckServer server(right, ServerOptions{.unix_path = path});
  const auto sent = sink.send(denied_records(2));
  ASSERT_TRUE(sent) << sent.error().error.message;
  ASSERT_EQ(server.received().size(), 1u);
  EXPECT_EQ(server.received()[0].ids.size(), 2u);
  Sender wrong({.socket = std::string(200, 'x')});
  expect_failure(wrong.send(denied_records(1)), FailureCause::Connect, "longer than");
}

// --- compression

TEST(Compression, SaysWhatItIsAndLosesNothing) {
  AckServer server(right);
  Sender sink({.port = server.port(), .compression = Compression::Gzip, .max_chunk_bytes = 50'000});
  const auto records = denied_records(200);
  ASSERT_TRUE(sink.send(records));
  std::vector<std::string> ids;
  std::size_t plain = 0, wire = 0;
  for (const Received& message : server.received()) {
    EXPECT_EQ(message.compressed, "gzip");
    EXPECT_EQ(message.count, message.ids.size());
    ids.insert(ids.end(), message.ids.begin(), message.ids.end());
    const std::size_t unpacked = testing::gunzip(message.entries).size();
    EXPECT_LE(unpacked, 50'000u) << "the limit is of what the receiver unpacks";
    plain += unpacked;
    wire += message.message.size();
  }
  ASSERT_EQ(ids.size(), records.size());
  for (std::size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], records[i].record.id);
  EXPECT_LT(wire * 5, plain);
}

// --- TLS

struct FreeContext {
  void operator()(SSL_CTX* context) const { ::SSL_CTX_free(context); }
};
using Context = std::unique_ptr<SSL_CTX, FreeContext>;

class Tls : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { files_ = new Certificates; }
  static void TearDownTestSuite() {
    delete files_;
    files_ = nullptr;
  }
  static Context context(bool wants_certificate = false, int version = 0) {
    Context made(::SSL_CTX_new(::TLS_server_method()));
    ::SSL_CTX_use_certificate_chain_file(made.get(), files_->path("server.crt").c_str());
    ::SSL_CTX_use_PrivateKey_file(made.get(), files_->path("server.key").c_str(), SSL_FILETYPE_PEM);
    if (version != 0) ::SSL_CTX_set_max_proto_version(made.get(), version);
    if (wants_certificate) {
      ::SSL_CTX_load_verify_locations(made.get(), files_->path("ca.crt").c_str(), nullptr);
      ::SSL_CTX_set_verify(made.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    }
    return made;
  }
  static ForwardOptions to(const AckServer& server) {
    ForwardOptions options{.port = server.port(), .timeout = 5s};
    options.tls = {.on = true, .ca = files_->path("ca.crt")};
    return options;
  }
  static Certificates* files_;
};
Certificates* Tls::files_ = nullptr;

TEST_F(Tls, BothVersionsTakeManyChunksOnOneConnection) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const Context server_context = context(false, version);
    AckServer server(right, ServerOptions{.tls = server_context.get()});
    ForwardOptions options = to(server);
    options.max_chunk_bytes = 100'000;
    Sender sink(options);
    for (int i = 0; i < 3; ++i) {
      const auto sent = sink.send(denied_records(500));
      ASSERT_TRUE(sent) << sent.error().error.message;
    }
    EXPECT_EQ(server.connections(), 1);
    std::size_t count = 0;
    for (const Received& message : server.received()) count += message.ids.size();
    EXPECT_EQ(count, 1500u);
  }
}

TEST_F(Tls, TrustsOnlyTheOneThatIsExpected) {
  const Context server_context = context();
  AckServer server(right, ServerOptions{.tls = server_context.get()});
  struct Case {
    const char* name;
    TlsOptions tls;
    const char* says;  // nullptr: accepted
  };
  const std::string ca = files_->path("ca.crt");
  const Case cases[] = {
      {"address", {.on = true, .ca = ca}, nullptr},
      {"server_name", {.on = true, .ca = ca, .server_name = "receiver.test"}, nullptr},
      {"another_name", {.on = true, .ca = ca, .server_name = "receiver.example"}, "hostname mismatch"},
      {"another_address", {.on = true, .ca = ca, .server_name = "127.0.0.2"}, "IP address mismatch"},
      {"another_authority", {.on = true, .ca = files_->path("other-ca.crt")}, "unable to get local issuer"},
      {"system_authorities", {.on = true}, "unable to get local issuer"},
      {"unverified", {.on = true, .server_name = "any", .verify = false}, nullptr},
      {"no_file", {.on = true, .ca = "/nowhere/ca.crt"}, "authorities in /nowhere/ca.crt: open: ENOENT"},
      {"no_certificate", {.on = true, .ca = ca, .cert = "/nowhere/c", .key = "/nowhere/k"}, "certificate /nowhere/c"},
      {"another_key",
       {.on = true, .ca = ca, .cert = files_->path("client.crt"), .key = files_->path("ca.key")}, "key values mismatch"},
  };
  for (const Case& c : cases) {
    ForwardOptions options = to(server);
    options.tls = c.tls;
    Sender sink(options);
    const auto sent = sink.send(denied_records(1));
    if (c.says != nullptr)
      expect_failure(sent, FailureCause::Tls, c.says);
    else
      EXPECT_TRUE(sent) << c.name << ": " << sent.error().error.message;
  }
}

TEST_F(Tls, ShowsItsCertificateWhereOneIsAskedFor) {
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    const Context server_context = context(true, version);
    AckServer server(right, ServerOptions{.tls = server_context.get()});
    Sender without(to(server));
    EXPECT_FALSE(without.send(denied_records(1)));
    EXPECT_TRUE(server.received().empty());
    ForwardOptions options = to(server);
    options.tls.cert = files_->path("client.crt");
    options.tls.key = files_->path("client.key");
    Sender with(options);
    const auto sent = with.send(denied_records(1));
    EXPECT_TRUE(sent) << sent.error().error.message;
  }
}

TEST_F(Tls, IsNotSpokenByEverybody) {
  AckServer plain(right);
  ForwardOptions options = to(plain);
  options.timeout = 300ms;
  Sender to_plain(options);
  EXPECT_FALSE(to_plain.send(denied_records(1)));
  const Context server_context = context();
  AckServer server(right, ServerOptions{.tls = server_context.get()});
  Sender without({.port = server.port(), .timeout = 3s});
  EXPECT_FALSE(without.send(denied_records(1)));
  EXPECT_TRUE(plain.received().empty());
  EXPECT_TRUE(server.received().empty());
}

// --- the handshake

template <typename... Parts>
std::string message(const Parts&... parts) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_array(sizeof...(parts));
  (packer.pack(parts), ...);
  return {buffer.data(), buffer.size()};
}

// A receiver that knows `key` and ann's password; whatever the client says wrong it refuses.
std::string judge_ping(const std::string& ping, const std::string& key, bool asks_for_user) {
  const auto handle = msgpack::unpack(ping.data(), ping.size());
  std::vector<std::string> part;
  for (const auto& one : handle.get().via.array)
    part.push_back(one.type == msgpack::type::STR ? one.as<std::string>() : "");
  const std::string nonce = "0123456789abcdef";
  const bool knows = part.size() == 6 && part[3] == sha512_hex({part[2], part[1], nonce, key});
  if (!knows) return "";  // as Fluent Bit does it: closes without a word
  if (asks_for_user && (part[4] != "ann" || part[5] != sha512_hex({"salt", "ann", "word"})))
    return message("PONG", false, "username/password mismatch", "receiver", "");
  return message("PONG", true, "", "receiver", sha512_hex({part[2], "receiver", nonce, key}));
}

ServerOptions asking(const std::string& key, bool for_user) {
  using Options = std::map<std::string, std::string>;
  return {.helo = message("HELO", Options{{"nonce", "0123456789abcdef"}, {"auth", for_user ? "salt" : ""}}),
          .pong = [key, for_user](const std::string& ping) { return judge_ping(ping, key, for_user); }};
}

TEST(Handshake, LetsInWhoKnowsTheKey) {
  const TemporaryFolder folder;
  struct Case {
    const char* name;
    const char* key;        // the receiver's
    bool asks_for_user;
    const char* our_key;
    const char* password;   // nullptr: no user
    FailureCause cause;
    const char* says;       // nullptr: accepted
  };
  const FailureCause cause = FailureCause::Handshake;
  const Case cases[] = {
      {"key", "secret", false, "secret", nullptr, cause, nullptr},
      {"user", "secret", true, "secret", "word", cause, nullptr},
      {"user_not_asked_for", "secret", false, "secret", "word", cause, nullptr},
      {"empty_key", "", true, "", "word", cause, nullptr},
      {"wrong_key", "secret", false, "Secret", nullptr, cause, "closed the connection"},
      {"wrong_password", "secret", true, "secret", "wort", cause, "username/password mismatch"},
      {"no_user", "secret", true, "secret", nullptr, cause, "asks for a user"},
  };
  for (const Case& c : cases) {
    AckServer server(right, asking(c.key, c.asks_for_user));
    ForwardOptions options{.port = server.port(), .timeout = 5s};
    options.auth.on = true;
    if (*c.our_key != 0) options.auth.shared_key_file = folder.file("key", std::string(c.our_key) + "\n");
    if (c.password != nullptr) {
      options.auth.user = "ann";
      options.auth.password_file = folder.file("password", c.password);
    }
    Sender sink(options);
    const auto sent = sink.send(denied_records(2));
    if (c.says != nullptr)
      expect_failure(sent, c.cause, c.says);
    else
      EXPECT_TRUE(sent) << c.name << ": " << sent.error().error.message;
    EXPECT_EQ(server.received().size(), c.says == nullptr ? 1u : 0u) << c.name;
  }
}

TEST(Handshake, BelievesNoReceiverThatDoesNotKnowTheKey) {
  const TemporaryFolder folder;
  ServerOptions liar = asking("secret", false);
  liar.pong = [](const std::string&) { return message("PONG", true, "", "receiver", std::string(128, '0')); };
  ServerOptions mirror = asking("secret", false);
  mirror.pong = [](const std::string& ping) {
    const auto handle = msgpack::unpack(ping.data(), ping.size());
    const auto* part = handle.get().via.array.ptr;
    return message("PONG", true, "", part[1].as<std::string>(), part[3].as<std::string>());
  };
  ServerOptions garbage = asking("secret", false);
  garbage.helo = "HTTP/1.1 400 Bad Request\r\n";
  ServerOptions excess = asking("secret", false);
  excess.helo += "\xc0";
  for (const auto& [options, says] : {std::pair{liar, "does not know the shared key"}, std::pair{mirror, "another name"},
                                      std::pair{garbage, "is no HELO"}, std::pair{excess, "is no HELO"}}) {
    AckServer server(right, options);
    ForwardOptions ours{.port = server.port(), .timeout = 5s};
    ours.auth = {.on = true, .shared_key_file = folder.file("key", "secret")};
    Sender sink(ours);
    expect_failure(sink.send(denied_records(1)), FailureCause::Handshake, says);
    EXPECT_TRUE(server.received().empty());
  }
}

TEST(Handshake, IsNamedWhereItIsMissing) {
  const TemporaryFolder folder;
  AckServer asks(right, asking("secret", false));
  Sender without({.port = asks.port(), .timeout = 3s});
  expect_failure(without.send(denied_records(1)), FailureCause::WrongAnswer, "asks for a shared key");
  AckServer silent(right);
  ForwardOptions options{.port = silent.port(), .timeout = 300ms};
  options.auth = {.on = true, .shared_key_file = folder.file("key", "secret")};
  Sender with(options);
  expect_failure(with.send(denied_records(1)), FailureCause::NoAnswer, "wait for HELO: no answer in time");
  options.auth.shared_key_file = folder.path("none");
  AckServer other(right, asking("secret", false));
  options.port = other.port();
  Sender no_file(options);
  expect_failure(no_file.send(denied_records(1)), FailureCause::Handshake, "ENOENT");
}

TEST(Handshake, ClosesBehindEachChunkWhereTheReceiverWantsThat) {
  const TemporaryFolder folder;
  ServerOptions server_options = asking("", false);
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_array(2);
  packer.pack("HELO");
  packer.pack_map(2);
  packer.pack("nonce");
  packer.pack("0123456789abcdef");
  packer.pack("keepalive");
  packer.pack(false);
  server_options.helo.assign(buffer.data(), buffer.size());
  AckServer server(right, server_options);
  ForwardOptions options{.port = server.port(), .max_chunk_bytes = 5000, .timeout = 5s};
  options.auth.on = true;
  Sender sink(options);
  ASSERT_TRUE(sink.send(denied_records(12)));
  EXPECT_GT(server.received().size(), 2u);
  EXPECT_EQ(static_cast<std::size_t>(server.connections()), server.received().size());
}

// --- waiting

// Slower than the timeout, at any number of bytes: it gets longer, until it is done.
TEST(Waiting, ASlowReceiverIsNotOneThatIsGone) {
  AckServer server(right, ServerOptions{.read_pause = 5ms});
  Sender sink({.port = server.port(), .max_chunk_bytes = 8'000'000, .timeout = 100ms});
  auto records = denied_records(100);
  for (auto& stored : records) stored.record.src.labels["note"] = std::string(30'000, 'x');
  int attempts = 1;
  for (auto sent = sink.send(records); !sent; sent = sink.send(records)) {
    ASSERT_EQ(name(sent.error().cause), name(FailureCause::NoAnswer)) << sent.error().error.message;
    ASSERT_LT(++attempts, 12);
  }
  EXPECT_GT(attempts, 1);
}

TEST(Waiting, EndsWhenTheExportIsStopped) {
  std::atomic<bool> stop = false;
  AckServer black_hole([](const Received&) { return Answer{}; });
  auto sink = ForwardSink::make({.port = black_hole.port(), .timeout = 60s}, testing::kOrigin, &stop).value();
  sink->take(denied_records(1));
  std::thread stopper([&] {
    std::this_thread::sleep_for(200ms);
    stop = true;
  });
  const auto began = std::chrono::steady_clock::now();
  EXPECT_FALSE(sink->deliver());
  stopper.join();
  EXPECT_LT(std::chrono::steady_clock::now() - began, 30s);
}

TEST(Waiting, WhatWasAcknowledgedIsNotSentAgain) {
  int messages = 0;
  // The third chunk is acknowledged wrongly: everything but the first two comes again, with the same ids.
  AckServer server([&](const Received& message) {
    return ++messages == 3 ? Answer{.bytes = "\xc0", .close = true} : right(message);
  });
  Sender sink({.port = server.port(), .max_chunk_bytes = 5000, .in_flight = 1, .timeout = 5s});
  const auto records = denied_records(20);
  EXPECT_FALSE(sink.send(records));
  ASSERT_TRUE(sink.send(records));
  std::map<std::string, int> times;
  for (const Received& message : server.received()) ++times[message.chunk];
  EXPECT_EQ(times[server.received()[0].chunk], 1);
  EXPECT_EQ(times[server.received()[2].chunk], 2);
  std::set<std::string> ids;
  for (const Received& message : server.received()) ids.insert(message.ids.begin(), message.ids.end());
  EXPECT_EQ(ids.size(), records.size());
}

}  // namespace
}  // namespace tierlog::exporters::fluentbit
