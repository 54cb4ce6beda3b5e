// Frames that mean to get around the policies of the pod that sends or gets them: by what they seem to belong to, by how
// they are cut, by whose address they use.
#include "dataplane/ebpf/connections.h"
#include "tests/dataplane/ebpf_pods.h"

namespace tierlog::dataplane::test {
namespace {

constexpr RuleId kFragmentEgress{32};
constexpr const char* kNotSsh = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: out, namespace: a}
spec:
  selector: app == 'p'
  types: [Egress]
  egress:
  - {action: Deny, protocol: TCP, destination: {ports: [22]}}
  - {action: Allow}
)";

class EbpfEvasion : public EbpfKernel {
 protected:
  int leaves_p(const lab::Bytes& frame) const {
    const auto verdict = backend_->programs().run(Hook::Out, frame, static_cast<int>(::if_nametoindex("pod-p")), 0);
    EXPECT_TRUE(verdict) << verdict.error().message;
    return verdict.value_or(99);
  }
  // An ICMP error of p to `to`, about a packet that came.
  static FrameSpec error_about(const FrameSpec& came, const std::string& to) {
    const bool v6 = came.to.family == Family::V6;
    FrameSpec error = from_p(to, 0, v6 ? protocol::kIcmpV6 : protocol::kIcmp);
    error.icmp_type = v6 ? 1 : 3;
    error.icmp_code = 1;
    const lab::Bytes whole = lab::build(came);
    error.mark.assign(whole.begin() + 14, whole.end());
    return error;
  }
};

// An error about a living connection belongs to it only where it goes to who sent what it is about. Else a pod that may
// speak to somebody could tell everybody everything in errors.
TEST_F(EbpfEvasion, AnErrorGoesToWhoSentWhatItIsAbout) {
  std::string policy = kOnlyPort80;
  policy.erase(policy.find("  - {action: Allow, protocol: ICMP}"));
  enforce(policy);
  struct Case {
    const char *peer, *other;
  };
  for (const Case& one : {Case{"203.0.113.9", "203.0.113.66"}, Case{"2001:db8::9", "2001:db8::66"}}) {
    SCOPED_TRACE(one.peer);
    const FrameSpec syn = from_p(one.peer, 80);
    EXPECT_EQ(out_of_p(syn), kAllow);
    EXPECT_EQ(into_p(answer_to(syn)), kAllow);
    EXPECT_EQ(out_of_p(error_about(answer_to(syn), one.peer)), kAllow);
    EXPECT_EQ(out_of_p(error_about(answer_to(syn), one.other)), kDrop);
    FrameSpec unknown = answer_to(syn);
    unknown.source_port = 81;
    EXPECT_EQ(out_of_p(error_about(unknown, one.peer)), kDrop) << "about no connection";
  }
}

// Ports behind a header that follows the fragment header are ports all the same.
TEST_F(EbpfEvasion, AFirstFragmentShowsItsPorts) {
  enforce(kNotSsh);
  FrameSpec first = from_p("2001:db8::9", 22);
  EXPECT_EQ(out_of_p(first), kDrop);
  first.more_fragments = true;
  EXPECT_EQ(out_of_p(first), kDrop);
  FrameSpec allowed = first;
  allowed.port = 80;
  allowed.fragment_id = 2;
  EXPECT_EQ(out_of_p(allowed), kAllow);
  constexpr std::size_t kFragmentHeader = 14 + 40;
  // Hop by hop, routing, fragment, authentication, destination options.
  for (const std::uint8_t extension : std::initializer_list<std::uint8_t>{0, 43, 44, 51, 60}) {
    SCOPED_TRACE(int{extension});
    lab::Bytes hidden = lab::build(first);
    hidden[kFragmentHeader] = extension;
    hidden.insert(hidden.begin() + kFragmentHeader + 8, {protocol::kTcp, 0, 1, 4, 0, 0, 0, 0});
    hidden[14 + 5] = static_cast<std::uint8_t>(hidden[14 + 5] + 8);
    hidden[kFragmentHeader + 7] = extension;  // an id of its own
    const std::uint64_t before = counted(kFragmentEgress);
    EXPECT_EQ(leaves_p(hidden), kDrop);
    EXPECT_EQ(counted(kFragmentEgress), before + 1);
    FrameSpec rest = first;
    rest.fragment_offset = 8;
    lab::Bytes later = lab::build(rest);
    later[kFragmentHeader] = extension;
    later[kFragmentHeader + 7] = extension;
    EXPECT_EQ(leaves_p(later), kDrop);
    EXPECT_EQ(counted(kFragmentEgress), before + 2);
  }
}

// What has no addresses is no flow's: counted as a frame, told to nobody.
TEST_F(EbpfEvasion, AFrameWithoutAnIpHeaderIsNoFlow) {
  enforce(kNotSsh);
  static_cast<void>(events());
  lab::Bytes frame = lab::build(from_p("203.0.113.9", 80)), other = frame;
  frame[14] = 0x44;  // a header of 16 bytes
  other[14] = 0x65;  // of another version
  const std::uint64_t before = counted(reserved::kInvalidEgress);
  EXPECT_EQ(leaves_p(frame), kDrop);
  EXPECT_EQ(leaves_p(other), kDrop);
  EXPECT_EQ(counted(reserved::kInvalidEgress), before + 2);
  EXPECT_TRUE(events().empty());
  const auto denied = backend_->read_denied();
  ASSERT_TRUE(denied);
  EXPECT_TRUE(denied->empty());
}

// Who gets an address has none of the connections of who had it before.
TEST_F(EbpfEvasion, ANewPodHasNoneOfTheOldOnesConnections) {
  const auto enforced_as = [&](const char* name) {
    auto pod = tierlog::testing::local_pod("a", name, {"10.1.0.1", "fd00::1"}, {{"app", "p"}});
    pod.interface = "pod-p";
    pod.mac = "02:00:00:00:00:01";
    const auto applied = backend_->apply(tierlog::testing::compile(closed_to_others(), {pod}, ids_));
    EXPECT_TRUE(applied) << applied.error().message;
  };
  enforced_as("first");
  for (const char* peer : {"203.0.113.9", "2001:db8::9"}) {
    const FrameSpec syn = from_p(peer, 80), question = from_p(peer, 53, protocol::kUdp);
    EXPECT_EQ(out_of_p(syn), kAllow);
    EXPECT_EQ(into_p(answer_to(syn)), kAllow);
    EXPECT_EQ(out_of_p(question), kAllow);
  }
  enforced_as("first");
  EXPECT_EQ(backend_->read_flows()->size(), 4u) << "nothing has changed";
  static_cast<void>(backend_->take_ended());
  enforced_as("second");
  EXPECT_EQ(backend_->read_flows()->size(), 0u);
  EXPECT_EQ(backend_->take_ended().size(), 4u) << "their ends are told";
  for (const char* peer : {"203.0.113.9", "2001:db8::9"}) {
    EXPECT_EQ(into_p(answer_to(from_p(peer, 80))), kDrop);
    EXPECT_EQ(into_p(answer_to(from_p(peer, 53, protocol::kUdp))), kDrop);
    EXPECT_EQ(out_of_p(from_p(peer, 80)), kAllow) << "its own";
  }
}

}  // namespace
}  // namespace tierlog::dataplane::test
