// Policies change while connections live: what is denied now ends at once, both ways, and stays ended; what
// is still allowed goes on without a lost packet, under the rule that allows it now.
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <csignal>

#include "base/handle.h"
#include "lab/socket_address.h"
#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;

constexpr std::uint16_t kPort = 7000;
constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5, "fd01::5"], labels: {role: web}}
- {name: db, namespace: a, ips: [10.1.0.6, "fd01::6"], labels: {role: db}}
)";

std::string policy(const std::string& rules) {
  return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: a}\n"
         "spec:\n  selector: role == 'db'\n  ingress:\n" +
         rules;
}
const std::string kAllow = policy("  - {action: Allow, source: {selector: role == 'web'}}\n");
const std::string kAllowOtherwise =
    policy("  - {action: Deny, protocol: TCP, destination: {ports: [1]}}\n"
           "  - {action: Allow, source: {nets: [10.1.0.0/24, 'fd01::/64']}}\n");
const std::string kDeny = policy("  - {action: Deny, source: {selector: role == 'web'}}\n");

struct Talk {
  std::atomic<std::uint64_t> at_client{0}, at_server{0};  // received
  std::atomic<bool> ready{false};
};

struct Case {
  const char* title;
  Family family;
  int type;
};

// Both sides speak every 5 ms, whether anything comes or not.
void speak(int socket, std::atomic<std::uint64_t>& received) {
  std::array<char, 2048> buffer{};
  while (true) {
    static_cast<void>(::send(socket, "hello", 5, MSG_DONTWAIT | MSG_NOSIGNAL));
    pollfd wait{socket, POLLIN, 0};
    if (::poll(&wait, 1, 5) <= 0) continue;
    const ssize_t got = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got > 0) received += static_cast<std::uint64_t>(got);
    if (got == 0) return;
    std::this_thread::sleep_for(2ms);
  }
}

int serve(const Case& c, Talk& talk) {
  const int family = c.family == Family::V4 ? AF_INET : AF_INET6;
  const Fd socket(::socket(family, c.type, 0));
  const lab::SocketAddress any(c.family == Family::V4 ? IpAddr::v4(0) : *IpAddr::parse("::"), kPort);
  if (::bind(socket.get(), any.get(), any.size()) != 0) return 1;
  if (c.type == SOCK_STREAM) {
    if (::listen(socket.get(), 1) != 0) return 2;
    talk.ready = true;
    const Fd connection(::accept(socket.get(), nullptr, nullptr));
    speak(connection.get(), talk.at_server);
    return 0;
  }
  talk.ready = true;
  std::array<char, 64> first{};
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  if (::recvfrom(socket.get(), first.data(), first.size(), 0, reinterpret_cast<sockaddr*>(&peer), &length) < 0 ||
      ::connect(socket.get(), reinterpret_cast<sockaddr*>(&peer), length) != 0)
    return 3;
  speak(socket.get(), talk.at_server);
  return 0;
}

int call(const Case& c, const IpAddr& to, Talk& talk) {
  const Fd socket(::socket(c.family == Family::V4 ? AF_INET : AF_INET6, c.type, 0));
  const lab::SocketAddress address(to, kPort);
  if (::connect(socket.get(), address.get(), address.size()) != 0) return 1;
  speak(socket.get(), talk.at_client);
  return 0;
}

class Living : public LiveNode, public ::testing::WithParamInterface<Case> {
 protected:
  void SetUp() override {
    start(kTopology, kAllow);
    if (!lab_) return;
    const Case c = GetParam();
    const IpAddr to = *lab_->address("a/db", c.family);
    auto server = lab_->start_in("a/db", [&, c] { return serve(c, *talk_); });
    ASSERT_TRUE(server) << server.error().message;
    ASSERT_TRUE(becomes([&] { return talk_->ready.load(); }));
    auto client = lab_->start_in("a/web", [&, c] { return call(c, to, *talk_); });
    ASSERT_TRUE(client) << client.error().message;
    pids_ = {*server, *client};
    ASSERT_TRUE(goes_on()) << "the conversation must begin";
  }
  void TearDown() override {
    for (const pid_t pid : pids_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    LiveNode::TearDown();
  }

  // Both sides hear something new.
  bool goes_on(std::chrono::milliseconds within = 5s) const {
    const std::uint64_t client = talk_->at_client, server = talk_->at_server;
    return becomes([&] { return talk_->at_client > client && talk_->at_server > server; }, within);
  }
  bool anybody_hears() const {
    const auto hears = [&] {
      const std::uint64_t client = talk_->at_client, server = talk_->at_server;
      std::this_thread::sleep_for(300ms);
      return talk_->at_client > client || talk_->at_server > server;
    };
    // What had arrived before the change is still to be read.
    becomes([&] { return !hears(); });
    return hears();
  }
  void expect_cut_is_told() const {
    std::uint64_t cut_packets = 0, denied_packets = 0;
    for (const store::RuleActivity& rule : rules()) {
      if (rule.rule.reason == "cut") cut_packets += rule.recorded_packets;
      if (rule.rule.policy == "default/a/db" && rule.rule.action == "Deny") denied_packets += rule.kernel_packets;
    }
    EXPECT_GT(cut_packets, 0u) << "with a reason of its own";
    EXPECT_LE(denied_packets, 100u) << "until the cut, the kernel asked the new rules itself";
  }
  // A packet of a living connection was counted at its egress rule when the connection began, and not again.
  void expect_nothing_is_told_twice() const {
    std::string told_twice;
    becomes([&] {
      told_twice.clear();
      for (const store::RuleActivity& rule : rules())
        if (rule.recorded_packets > rule.kernel_packets)
          told_twice += to_hex(rule.rule.id) + " " + rule.rule.policy + " " + rule.rule.reason + ": kernel " +
                        std::to_string(rule.kernel_packets) + ", recorded " + std::to_string(rule.recorded_packets) + "\n";
      return told_twice.empty();
    });
    EXPECT_EQ(told_twice, "");
  }
  // What nftables does to a connection's label; programs judge it at its next packet and count nothing.
  bool labels_say(const char* what, int number) const {
    if (status()["dataplane"] == "ebpf") return true;
    return becomes([&] { return connections()[what] == number; });
  }
  nlohmann::json connections() const { return status()["kernel"]["connections"]; }

  Shared<Talk> talk_;
  std::vector<pid_t> pids_;
};

TEST_P(Living, FollowsThePoliciesAndOutlivesTheDaemon) {
  {
    SCOPED_TRACE("still allowed: goes on, under the rule that allows it now");
    for (int i = 1; i <= 2; ++i) {
      apply(i % 2 == 1 ? kAllowOtherwise : kAllow);
      EXPECT_TRUE(goes_on());
      EXPECT_TRUE(labels_say("relabelled", i)) << connections();
    }
    EXPECT_EQ(connections()["cut"], 0);
  }
  {
    SCOPED_TRACE("denied now: ends both ways, and stays ended whatever else changes");
    apply(kDeny);
    ASSERT_TRUE(labels_say("cut_now", 1)) << connections();
    EXPECT_FALSE(anybody_hears());
    expect_cut_is_told();
    expect_nothing_is_told_twice();
    apply(kDeny + "  - {action: Deny, protocol: UDP, destination: {ports: [9]}}\n");
    EXPECT_FALSE(anybody_hears());
  }
  {
    SCOPED_TRACE("allowed again");
    apply(kAllow);
    EXPECT_TRUE(goes_on(20s)) << connections();
    EXPECT_TRUE(labels_say("cut_now", 0)) << connections();
    EXPECT_TRUE(labels_say("resumed", 1)) << connections();
  }
  {
    SCOPED_TRACE("the daemon dies: nothing changes; the next one judges");
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    std::ofstream(folder_ / "policies" / "p.yaml") << kDeny;
    EXPECT_TRUE(goes_on()) << "nobody has read the files";
    ASSERT_TRUE(lab_->start_daemon());
    ASSERT_TRUE(labels_say("cut_now", 1)) << connections();
    EXPECT_FALSE(anybody_hears());
  }
  {
    SCOPED_TRACE("one more knows of the cut from the kernel alone");
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    EXPECT_FALSE(anybody_hears());
    ASSERT_TRUE(lab_->start_daemon());
    EXPECT_FALSE(anybody_hears());
    EXPECT_TRUE(labels_say("cut_now", 1)) << connections();
  }
}

INSTANTIATE_TEST_SUITE_P(Table, Living,
                         ::testing::Values(Case{"tcp4", Family::V4, SOCK_STREAM},
                                           Case{"tcp6", Family::V6, SOCK_STREAM},
                                           Case{"udp4", Family::V4, SOCK_DGRAM},
                                           Case{"udp6", Family::V6, SOCK_DGRAM}),
                         [](const auto& param_info) { return std::string(param_info.param.title); });

}  // namespace
}  // namespace tierlog::testing
