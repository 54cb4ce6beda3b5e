// An independent implementation of the protocol (from the npm registry) receives what the sink sends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/handle.h"
#include "exporters/fluentbit/forward_sink.h"
#include "store/record_json.h"
#include "tests/exporters/certificates.h"
#include "tests/exporters/sample_records.h"
#include "tests/exporters/sender.h"

namespace tierlog::exporters::fluentbit {
namespace {

const std::string kFolder = TIERLOG_BINARY_DIR "/forward-receiver";

// Empty when the receiver is there, else why not.
std::string install_receiver(int& exit_code) {
  std::string said;
  FILE* pipe = ::popen((TIERLOG_SOURCE_DIR "/scripts/install-receiver '" + kFolder + "' 2>&1").c_str(), "r");
  std::array<char, 512> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) said += buffer.data();
  exit_code = WEXITSTATUS(::pclose(pipe));
  return said;
}

// The receiver as a child process that ends with this one.
class Receiver {
 public:
  explicit Receiver(int count, const std::vector<std::string>& options = {}) {
    std::array<int, 2> out{}, err{};
    if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) std::abort();
    const std::string script = kFolder + "/receiver.mjs", number = std::to_string(count);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(out[1], 1);
      ::dup2(err[1], 2);
      std::vector<std::string> words{"node", script, "--port", "0", "--seconds", "60", "--count", number};
      words.insert(words.end(), options.begin(), options.end());
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execvp("node", arguments.data());
      ::_exit(127);
    }
    ::close(out[1]);
    ::close(err[1]);
    out_ = ::fdopen(out[0], "r");
    err_ = ::fdopen(err[0], "r");
  }
  ~Receiver() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    std::fclose(out_);
    std::fclose(err_);
  }

  std::string line() { return read_line(out_); }
  // 0 with --socket. Waits until it listens.
  std::uint16_t port() {
    const std::string said = read_line(err_);
    if (said.find(" port ") == std::string::npos) return 0;
    return static_cast<std::uint16_t>(std::stoi("0" + said.substr(said.find_last_of(' ') + 1)));
  }

 private:
  static std::string read_line(FILE* file) {
    std::string text(65536, '\0');
    return std::fgets(text.data(), static_cast<int>(text.size()), file) != nullptr ? text.c_str() : "";
  }
  pid_t pid_ = -1;
  FILE* out_ = nullptr;
  FILE* err_ = nullptr;
};

// What the receiver is told and what the sink is told.
struct Way {
  const char* name;
  std::vector<std::string> receiver;
  ForwardOptions ours;
  bool accepted = true;
};

class NpmReceiver : public ::testing::Test {
 protected:
  void SetUp() override {
    int code = 0;
    const std::string said = install_receiver(code);
    if (code == 77) GTEST_SKIP() << said;
    ASSERT_EQ(code, 0) << said;
  }
  std::vector<Way> ways() const;
  std::string file(const std::string& name) const { return certificates_.path(name); }
  std::string secret(const std::string& name, const std::string& text) const {
    std::ofstream(file(name)) << text << "\n";
    return file(name);
  }

 private:
  testing::Certificates certificates_;
};

std::vector<Way> NpmReceiver::ways() const {
  const ForwardOptions plain{.max_chunk_bytes = 20'000, .timeout = std::chrono::seconds(20)};
  std::vector<Way> all{{"plain", {}, plain}};
  Way& gzip = all.emplace_back(all[0]);
  gzip.name = "gzip";
  gzip.ours.compression = Compression::Gzip;
  Way socket{"unix socket", {"--socket", file("receiver.sock")}, plain};
  socket.ours.socket = file("receiver.sock");
  all.push_back(socket);
  Way key{"shared key", {"--shared-key", "secret"}, plain};
  key.ours.auth = {.on = true, .shared_key_file = secret("key", "secret")};
  all.push_back(key);
  Way wrong = key;
  wrong.name = "wrong key";
  wrong.ours.auth.shared_key_file = secret("wrong", "Secret");
  wrong.accepted = false;
  all.push_back(wrong);
  Way user = key;
  user.name = "user";
  user.receiver.insert(user.receiver.end(), {"--user", "ann", "--password", "word"});
  user.ours.auth.user = "ann";
  user.ours.auth.password_file = secret("word", "word");
  all.push_back(user);
  Way stranger = user;
  stranger.name = "wrong password";
  stranger.ours.auth.password_file = secret("wort", "wort");
  stranger.accepted = false;
  all.push_back(stranger);
  Way everything = user;
  everything.name = "TLS with certificates, user, gzip";
  everything.receiver.insert(everything.receiver.end(), {"--tls-cert", file("server.crt"), "--tls-key", file("server.key"),
                                                         "--tls-ca", file("ca.crt")});
  everything.ours.tls = {.on = true, .ca = file("ca.crt"), .cert = file("client.crt"), .key = file("client.key"),
                         .server_name = "receiver.test"};
  everything.ours.compression = Compression::Gzip;
  all.push_back(everything);
  Way bare = everything;
  bare.name = "TLS without our certificate";
  bare.ours.tls.cert = bare.ours.tls.key = "";
  bare.accepted = false;
  all.push_back(bare);
  return all;
}

TEST_F(NpmReceiver, ReadsEveryRecordOnEveryWay) {
  const auto records = testing::denied_records(50);
  for (const Way& way : ways()) {
    SCOPED_TRACE(way.name);
    Receiver receiver(static_cast<int>(records.size()), way.receiver);
    ForwardOptions options = way.ours;
    options.port = receiver.port();
    testing::Sender sink(options);
    const auto sent = sink.send(records);
    EXPECT_EQ(sent.has_value(), way.accepted) << (sent ? "" : sent.error().error.message);
    if (!sent || !way.accepted) continue;
    for (const store::StoredRecord& stored : records) {
      const auto line = nlohmann::ordered_json::parse(receiver.line(), nullptr, false);
      ASSERT_FALSE(line.is_discarded());
      EXPECT_EQ(line["tag"], "tierlog.flows");
      EXPECT_EQ(line["time"], format_rfc3339(stored.record.start));
      EXPECT_EQ(line["record"].dump(), store::to_json(stored.record, testing::kOrigin).dump());
    }
  }
}

}  // namespace
}  // namespace tierlog::exporters::fluentbit
