// Two pods' interfaces in a network namespace of this process, and the programs at them, run frame by frame.
#pragma once

#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/ebpf/backend.h"
#include "dataplane/ebpf/connections.h"
#include "dataplane/ebpf/events.h"
#include "lab/frames.h"
#include "tests/dataplane/programs.h"

namespace tierlog::dataplane::test {

using ebpf::EbpfBackend;
using ebpf::EbpfEvents;
using ebpf::Hook;
using lab::FrameSpec;
using lab::Mac;

inline constexpr int kAllow = -1, kDrop = 2;
inline constexpr Mac kPodMac{2, 0, 0, 0, 0, 1}, kNodeMac{2, 0, 0, 0, 0, 2};

inline IpAddr ip(const std::string& text) {
  return *IpAddr::parse(text);
}

class EbpfKernel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (::geteuid() != 0) return;
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    ASSERT_EQ(std::system("ip link add pod-p type veth peer name pod-q"), 0);
  }
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_BPF and CAP_NET_ADMIN (run as root)";
    open({});
  }
  void open(ebpf::EbpfOptions options) {
    if (backend_) {
      EXPECT_TRUE(backend_->remove_all());
    }
    options.deny_interval = options.log_interval = std::chrono::seconds(0);
    if (options.log_rate == policy::LogRate{1000, 1}) options.log_rate = {1'000'000'000, 1};
    events_.reset();
    auto opened = EbpfBackend::open(options);
    ASSERT_TRUE(opened) << opened.error().message;
    backend_ = std::move(*opened);
    auto events = EbpfEvents::open(backend_->programs().events(), backend_->programs().losses());
    ASSERT_TRUE(events) << events.error().message;
    events_ = std::move(*events);
  }
  void TearDown() override {
    if (backend_) {
      EXPECT_TRUE(backend_->remove_all());
    }
  }

  std::shared_ptr<const policy::Program> enforce(const std::string& policies, std::uint16_t http_of_q = 8080) {
    auto p = tierlog::testing::local_pod("a", "p", {"10.1.0.1", "fd00::1"}, {{"app", "p"}});
    p.interface = "pod-p";
    p.mac = "02:00:00:00:00:01";
    auto q = tierlog::testing::local_pod("a", "q", {"10.1.0.2", "fd00::2"}, {{"app", "q"}});
    q.interface = "pod-q";
    q.ports = {{"http", protocol::kTcp, http_of_q}};
    auto program = tierlog::testing::compile(policies, {p, q}, ids_);
    const auto applied = backend_->apply(program);
    EXPECT_TRUE(applied) << applied.error().message;
    return program;
  }

  int run(Hook hook, const char* interface, const FrameSpec& frame, int came_from = 0) const {
    const auto verdict = backend_->programs().run(hook, lab::build(frame),
                                                  static_cast<int>(::if_nametoindex(interface)), came_from);
    EXPECT_TRUE(verdict) << verdict.error().message;
    return verdict.value_or(99);
  }
  int out_of_p(const FrameSpec& frame) const { return run(Hook::Out, "pod-p", frame); }
  int into_p(const FrameSpec& frame) const { return run(Hook::In, "pod-p", frame, 77); }

  static FrameSpec from_p(const std::string& to, std::uint16_t port,
                          std::uint8_t protocol_number = protocol::kTcp) {
    FrameSpec frame;
    frame.source = kPodMac;
    frame.destination = kNodeMac;
    frame.from = ip(to.find(':') != std::string::npos ? "fd00::1" : "10.1.0.1");
    frame.to = ip(to);
    frame.protocol = protocol_number;
    frame.port = port;
    frame.mark = "12345678";
    return frame;
  }
  static FrameSpec answer_to(const FrameSpec& frame) {
    FrameSpec back = frame;
    std::swap(back.from, back.to);
    std::swap(back.source, back.destination);
    std::swap(back.source_port, back.port);
    back.tcp_flags = 0x12;
    return back;
  }

  // That which began at this port.
  Connection only_connection(std::uint16_t source_port) {
    const auto flows = backend_->read_flows();
    EXPECT_TRUE(flows);
    for (const ebpf::KnownFlow& entry : *flows) {
      Connection connection = ebpf::connection_of(entry.key, entry.flow, Nanoseconds(0));
      if (connection.original.source_port == source_port) return connection;
    }
    ADD_FAILURE() << "no connection from port " << source_port;
    return {};
  }
  std::vector<VerdictEvent> events() {
    std::vector<VerdictEvent> found;
    EXPECT_TRUE(events_->drain(found, 100'000));
    return found;
  }
  std::uint64_t counted(RuleId id) {
    const auto counters = backend_->read_counters();
    EXPECT_TRUE(counters);
    for (const RuleCounter& counter : *counters)
      if (counter.id == id) return counter.packets;
    return 0;
  }

  policy::MemoryRuleIds ids_;
  std::unique_ptr<EbpfBackend> backend_;
  std::unique_ptr<EbpfEvents> events_;
};

inline constexpr const char* kOnlyPort80 = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: out, namespace: a}
spec:
  selector: app == 'p'
  types: [Egress]
  egress:
  - {action: Allow, protocol: TCP, destination: {ports: [80]}}
  - {action: Allow, protocol: UDP, destination: {ports: [53]}}
  - {action: Allow, protocol: ICMP}
)";

// Nothing may begin a connection to the pod, or its packets could be answers to one.
inline std::string closed_to_others() {
  std::string policy = kOnlyPort80;
  policy.replace(policy.find("[Egress]"), 8, "[Ingress, Egress]");
  return policy;
}

}  // namespace tierlog::dataplane::test
