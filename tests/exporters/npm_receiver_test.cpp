// An independent implementation of the protocol (from the npm registry) receives what the sink sends.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "base/handle.h"
#include "exporters/fluentbit/forward_sink.h"
#include "store/record_json.h"
#include "tests/exporters/sample_records.h"

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
  explicit Receiver(int count) {
    std::array<int, 2> out{}, err{};
    if (::pipe2(out.data(), O_CLOEXEC) != 0 || ::pipe2(err.data(), O_CLOEXEC) != 0) std::abort();
    const std::string script = kFolder + "/receiver.mjs", number = std::to_string(count);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      ::dup2(out[1], 1);
      ::dup2(err[1], 2);
      ::execlp("node", "node", script.c_str(), "--port", "0", "--seconds", "60", "--count", number.c_str(),
               nullptr);
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
  std::uint16_t port() {
    const std::string said = read_line(err_);
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

TEST(NpmReceiver, ReadsEveryRecordAndAcknowledges) {
  int code = 0;
  const std::string said = install_receiver(code);
  if (code == 77) GTEST_SKIP() << said;
  ASSERT_EQ(code, 0) << said;

  const auto records = testing::denied_records(50);
  Receiver receiver(static_cast<int>(records.size()));
  ForwardSink sink({.port = receiver.port(), .max_chunk_bytes = 20'000}, testing::kOrigin);
  std::size_t delivered = 0;
  while (delivered < records.size()) {
    const auto sent = sink.send(std::span(records).subspan(delivered));
    ASSERT_TRUE(sent) << sent.error().message;
    delivered += *sent;
  }
  for (const store::StoredRecord& stored : records) {
    const auto line = nlohmann::ordered_json::parse(receiver.line(), nullptr, false);
    ASSERT_FALSE(line.is_discarded());
    EXPECT_EQ(line["tag"], "tierlog.flows");
    EXPECT_EQ(line["time"], format_rfc3339(stored.record.start));
    EXPECT_EQ(line["record"].dump(), store::to_json(stored.record, testing::kOrigin).dump());
  }
}

}  // namespace
}  // namespace tierlog::exporters::fluentbit
