// Pinned maps of another layout or of other sizes are taken over: connections, denied flows, counters, messages that
// wait, and what programs of before still note until the last of them is replaced.
//
// The control is a folder whose layout nobody knows: nothing of it comes, and that is counted and said.
#include <sys/mount.h>

#include <algorithm>
#include <filesystem>
#include <thread>

#include "dataplane/ebpf/older_maps.h"
#include "tests/dataplane/ebpf_pods.h"
#include "tests/dataplane/older_layout.h"

namespace tierlog::dataplane::test {
namespace {

namespace fs = std::filesystem;

// A daemon's life, as far as this is about it.
struct Life {
  std::unique_ptr<EbpfBackend> backend;
  std::unique_ptr<EbpfEvents> events;
};

class EbpfOlderMaps : public EbpfKernel {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN (run as root)";
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    root_ = fs::temp_directory_path() / ("tierlog-older-" + std::to_string(::getpid()));
    fs::create_directories(root_);
    ASSERT_EQ(::mount("bpf", root_.c_str(), "bpf", 0, "mode=0700"), 0);
  }
  void TearDown() override {
    if (root_.empty()) return;
    for (const Hook hook : {Hook::In, Hook::Out})
      for (const char* name : {"pod-p", "pod-q"})
        static_cast<void>(ebpf::Programs::detach(static_cast<int>(::if_nametoindex(name)), hook));
    ::umount2(root_.c_str(), MNT_DETACH);
    fs::remove(root_);
  }

  Life begin(const ebpf::Limits& limits) const {
    ebpf::EbpfOptions options;
    options.pins = pins();
    fs::create_directories(options.pins);
    options.limits = limits;
    Life life;
    auto opened = EbpfBackend::open(options);
    EXPECT_TRUE(opened) << opened.error().message;
    if (!opened) return life;
    life.backend = std::move(*opened);
    auto events = EbpfEvents::open(life.backend->programs().events(), life.backend->programs().losses(),
                                   life.backend->older_rings());
    EXPECT_TRUE(events) << events.error().message;
    life.events = std::move(*events);
    return life;
  }
  void enforce_by(Life& life) {
    std::swap(backend_, life.backend);
    enforce(closed_to_others());
    std::swap(backend_, life.backend);
  }
  int out_of_p_by(Life& life, const FrameSpec& frame) {
    std::swap(backend_, life.backend);
    const int verdict = out_of_p(frame);
    std::swap(backend_, life.backend);
    return verdict;
  }
  // In force; the first sweep behind its grace time.
  void sweep(Life& life) const {
    std::this_thread::sleep_for(std::chrono::milliseconds(150));
    const auto swept = life.backend->sweep_when_due();
    EXPECT_TRUE(swept) << swept.error().message;
  }

  std::string pins() const { return folder("v" + std::to_string(TL_LAYOUT)); }
  std::string folder(const std::string& name) const { return (root_ / "tierlog" / name).string(); }
  std::vector<std::string> folders() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(root_ / "tierlog")) found.push_back(entry.path().filename().string());
    std::sort(found.begin(), found.end());
    return found;
  }

  // What was noted, in one text.
  static std::string books(const Life& life) {
    std::string text;
    const auto counters = life.backend->read_counters();
    const auto denied = life.backend->read_denied();
    const auto flows = life.backend->read_flows();
    EXPECT_TRUE(counters && denied && flows);
    for (const RuleCounter& counter : *counters)
      if (counter.packets > 0)
        text += "rule " + std::to_string(number(counter.id)) + ": " + std::to_string(counter.packets) + " of " +
                std::to_string(counter.bytes) + "\n";
    for (const DeniedCount& count : *denied)
      text += "denied to " + std::to_string(count.port_or_icmp) + ": " + std::to_string(count.packets) + "\n";
    std::vector<std::string> lines;
    for (const ebpf::KnownFlow& entry : *flows)
      lines.push_back("flow " + std::to_string(entry.key.low_port) + " " + std::to_string(entry.key.high_port) + ": " +
                      std::to_string(entry.flow.packets[0]) + "\n");
    std::sort(lines.begin(), lines.end());
    for (const std::string& line : lines) text += line;
    return text;
  }
  static std::size_t told(const Life& life) {
    std::vector<VerdictEvent> events;
    EXPECT_TRUE(life.events->drain(events, 10'000));
    return events.size();
  }

  static FrameSpec syn(std::uint16_t from = 40'000) {
    FrameSpec frame = from_p("203.0.113.9", 80);
    frame.source_port = from;
    frame.tcp_flags = 2;
    return frame;
  }
  static FrameSpec ack(std::uint16_t from = 40'000) {
    FrameSpec frame = syn(from);
    frame.tcp_flags = 0x10;
    return frame;
  }
  static FrameSpec refused() { return from_p("203.0.113.9", 81); }

  void send_some(Life& life) {
    EXPECT_EQ(out_of_p_by(life, syn()), kAllow);
    EXPECT_EQ(out_of_p_by(life, ack()), kAllow);
    for (int i = 0; i < 5; ++i) EXPECT_EQ(out_of_p_by(life, refused()), kDrop);
  }

  fs::path root_;
};

ebpf::Limits other_sizes() {
  ebpf::Limits limits;
  limits.flows = 1000;
  limits.denied = 500;
  limits.rules = 2000;
  return limits;
}

// The programs of before run on until the new ones are attached; what they note then comes with the first sweep.
TEST_F(EbpfOlderMaps, NothingIsLostWhileProgramsAreReplaced) {
  for (const bool older_layout : {false, true}) {
    SCOPED_TRACE(older_layout ? "another layout" : "other sizes");
    Life before = begin({});
    enforce_by(before);
    send_some(before);
    if (older_layout) {
      ASSERT_EQ(make_layout_2((root_ / "tierlog").string()), 0);
    }
    const std::string noted = books(before);
    EXPECT_NE(noted.find("denied to 81: 5\n"), std::string::npos) << noted;

    Life after = begin(other_sizes());
    EXPECT_EQ(after.backend->adopted(), true);
    EXPECT_NE(after.backend->taken_over().find("1 connections, 1 denied flows, 2 counters"), std::string::npos)
        << after.backend->taken_over();
    EXPECT_EQ(after.backend->taken_over().find("LEFT BEHIND"), std::string::npos);
    EXPECT_EQ(books(after), noted);
    EXPECT_EQ(told(after), 2u) << "the first of the connection, the first of the denied flow, by the ring of before";

    // Known ones, and new ones.
    send_some(before);
    EXPECT_EQ(out_of_p_by(before, syn(40'001)), kAllow);
    enforce_by(after);
    sweep(after);
    EXPECT_EQ(books(after), books(before));
    EXPECT_EQ(folders(), std::vector<std::string>{"v" + std::to_string(TL_LAYOUT)});
    EXPECT_EQ(told(after), 1u);
    // A connection of before is judged by the rules, and goes on.
    EXPECT_EQ(out_of_p_by(after, ack()), kAllow);
    EXPECT_EQ(out_of_p_by(after, ack(40'001)), kAllow);
    EXPECT_EQ(out_of_p_by(after, ack(40'002)), kAllow) << "it may have begun in between";
    FrameSpec never = ack(40'003);
    never.port = 81;
    EXPECT_EQ(out_of_p_by(after, never), kDrop);

    const std::string last = books(after);
    before = {};
    after = {};
    const Life next = begin(other_sizes());
    EXPECT_EQ(next.backend->taken_over(), "");
    EXPECT_EQ(books(next), last) << "the same maps";
    fs::remove_all(root_ / "tierlog");
  }
}

TEST_F(EbpfOlderMaps, AStartThatIsBrokenOffGoesOnAtTheNext) {
  Life before = begin({});
  enforce_by(before);
  send_some(before);
  static_cast<void>(begin(other_sizes()));
  EXPECT_EQ(folders().size(), 2u);
  EXPECT_EQ(out_of_p_by(before, refused()), kDrop);
  Life after = begin(other_sizes());
  enforce_by(after);
  sweep(after);
  EXPECT_EQ(folders().size(), 1u);
  std::string noted = books(before);
  // What came between two starts is not told apart for a single denied flow; its rule's counter has it.
  noted.replace(noted.find("denied to 81: 6"), 15, "denied to 81: 5");
  EXPECT_EQ(books(after), noted);
}

TEST_F(EbpfOlderMaps, WhatFindsNoRoomIsCountedAndSaid) {
  Life before = begin({});
  enforce_by(before);
  for (std::uint16_t port = 40'000; port < 40'010; ++port) EXPECT_EQ(out_of_p_by(before, syn(port)), kAllow);
  ebpf::Limits limits;
  limits.flows = 4;
  Life after = begin(limits);
  EXPECT_NE(after.backend->taken_over().find("LEFT BEHIND: 6 connections"), std::string::npos)
      << after.backend->taken_over();
  EXPECT_EQ(after.events->loss().left_behind, 6u);
  EXPECT_EQ(after.backend->read_flows()->size(), 4u);
  enforce_by(after);
  for (std::uint16_t port = 40'000; port < 40'010; ++port) EXPECT_EQ(out_of_p_by(after, ack(port)), kAllow);
}

TEST_F(EbpfOlderMaps, OfALayoutThatNobodyKnowsNothingComes) {
  Life before = begin({});
  enforce_by(before);
  send_some(before);
  ASSERT_EQ(::rename(pins().c_str(), folder("v99").c_str()), 0);
  Life after = begin({});
  EXPECT_FALSE(after.backend->adopted());
  EXPECT_NE(books(after), books(before));
  EXPECT_EQ(books(after), "");
  EXPECT_NE(after.backend->taken_over().find("what v99 holds in a form that this version does not know"),
            std::string::npos)
      << after.backend->taken_over();
  EXPECT_GE(after.events->loss().left_behind, 3u) << "a connection, a denied flow, counters";
  enforce_by(after);
  sweep(after);
  EXPECT_EQ(folders().size(), 1u);
  EXPECT_GE(after.events->loss().left_behind, 3u) << "said until the maps go";
}

TEST_F(EbpfOlderMaps, MapsAreAsLargeAsTheLimits) {
  const ebpf::Limits limits = other_sizes();
  const Life life = begin(limits);
  const auto size = [](int map) {
    bpf_map_info info{};
    std::uint32_t length = sizeof info;
    EXPECT_EQ(::bpf_obj_get_info_by_fd(map, &info, &length), 0);
    return info.max_entries;
  };
  const ebpf::Programs& programs = life.backend->programs();
  EXPECT_EQ(size(programs.flows()), limits.flows);
  EXPECT_EQ(size(programs.denied()), limits.denied);
  EXPECT_EQ(size(programs.counters()), limits.rules + TL_FIRST_SLOT);
  EXPECT_EQ(size(programs.slots()), limits.rules + TL_FIRST_SLOT);
  EXPECT_EQ(size(programs.log_limits()), limits.rules + TL_FIRST_SLOT);
  EXPECT_EQ(size(programs.services()), limits.services);
  EXPECT_EQ(size(programs.segments()), limits.segments);
}

}  // namespace
}  // namespace tierlog::dataplane::test
