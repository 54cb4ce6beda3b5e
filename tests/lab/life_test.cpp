// How labs begin and end: with their maker, by `down`, by a crash; and that nothing stays behind.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/lab/scratch.h"

namespace tierlog::lab {
namespace {

const endpoints::Topology& small() {
  static const auto topology = topology_of({pod("a", {"10.1.0.5", "fd01::5"})});
  return topology;
}

LabOptions lasting(const Scratch& scratch) {
  auto options = quiet(scratch);
  options.life = LabOptions::Life::UntilDown;
  return options;
}

// Runs `work` in a child process of its own; its pid.
template <typename Work>
pid_t in_child(const Work& work) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  return child;
}

int result_of(pid_t child) {
  return wait_for(child).value_or(-1);
}

TEST(Life, DownLeavesNothing) {
  const Scratch scratch;
  const std::string before = machine();
  auto lab = Lab::up(small(), "", quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  EXPECT_EQ(machine(), before);
  const ino_t inside = pid_namespace(first_process(lab->folder()));
  EXPECT_GE(processes_in(inside), 3) << "first process and the listeners of two hosts";
  ASSERT_TRUE(lab->down());
  EXPECT_EQ(processes_in(inside), 0);
  EXPECT_FALSE(std::filesystem::exists(scratch / "lab"));
  EXPECT_EQ(machine(), before);
  EXPECT_TRUE(lab->down()) << "a second time there is nothing to do";
}

TEST(Life, ALabEndsWithItsObject) {
  const Scratch scratch;
  ino_t inside = 0;
  {
    auto lab = Lab::up(small(), "", quiet(scratch));
    ASSERT_TRUE(lab) << lab.error().message;
    inside = pid_namespace(first_process(lab->folder()));
    EXPECT_GT(processes_in(inside), 0);
  }
  EXPECT_EQ(processes_in(inside), 0);
}

TEST(Life, WithCallerDiesWithIt) {
  const Scratch scratch;
  const pid_t maker = in_child([&] {
    auto lab = Lab::up(small(), "", quiet(scratch));
    if (!lab) return 1;
    ::pause();
    return 0;
  });
  ASSERT_TRUE(eventually([&] { return Lab::find(scratch / "lab").has_value(); }));
  const ino_t inside = pid_namespace(first_process(scratch / "lab"));
  EXPECT_GT(processes_in(inside), 0);
  ::kill(maker, SIGKILL);
  EXPECT_EQ(result_of(maker), 128 + SIGKILL);
  EXPECT_TRUE(eventually([&] { return processes_in(inside) == 0; }));
  EXPECT_FALSE(Lab::find(scratch / "lab"));
}

TEST(Life, UntilDownOutlivesItsMaker) {
  const Scratch scratch;
  ASSERT_EQ(result_of(in_child([&] { return Lab::up(small(), "", lasting(scratch)) ? 0 : 1; })), 0);
  auto lab = Lab::find(scratch / "lab");
  ASSERT_TRUE(lab) << lab.error().message;
  EXPECT_EQ(lab->hosts().size(), 3u);
  EXPECT_EQ(lab->exec("blue/a", {"ping", "-c1", "-W5", "-q", "outside"}), 0);
  const ino_t inside = pid_namespace(first_process(lab->folder()));
  ASSERT_TRUE(lab->down());
  EXPECT_TRUE(eventually([&] { return processes_in(inside) == 0; }))
      << "the machine's first process reaps it";
  EXPECT_FALSE(std::filesystem::exists(scratch / "lab"));
}

TEST(Life, AMakerKilledHalfwayLeavesNoLab) {
  const Scratch scratch;
  const pid_t maker = in_child([&] {
    const auto die_late = [](const std::string& step) {
      if (step.starts_with("pod ")) ::kill(::getpid(), SIGKILL);
    };
    return Lab::up(small(), "", lasting(scratch), die_late) ? 0 : 1;
  });
  EXPECT_EQ(result_of(maker), 128 + SIGKILL);
  const pid_t first = first_process(scratch / "lab");
  ASSERT_GT(first, 0);
  EXPECT_TRUE(eventually([&] { return !Lab::find(scratch / "lab"); }));
  auto lab = Lab::up(small(), "", quiet(scratch));
  EXPECT_TRUE(lab) << lab.error().message;
}

enum class Next : std::uint8_t { Up, Find };
class Crash : public testing::TestWithParam<Next> {};

TEST_P(Crash, IsCleanedUpByTheNextCommand) {
  const Scratch scratch;
  const std::string before = machine();
  {
    auto lab = Lab::up(small(), "", quiet(scratch));
    ASSERT_TRUE(lab) << lab.error().message;
    const pid_t first = first_process(lab->folder());
    const ino_t inside = pid_namespace(first);
    ASSERT_EQ(::kill(first, SIGKILL), 0);
    EXPECT_TRUE(eventually([&] { return processes_in(inside) == 0; }));
    EXPECT_EQ(machine(), before);
    const auto attempt = lab->run_in("node", [] { return 0; });
    ASSERT_FALSE(attempt);
    EXPECT_EQ(attempt.error().code, ErrorCode::NotFound) << attempt.error().message;
    EXPECT_TRUE(std::filesystem::exists(scratch / "lab/lab.json")) << "what a crash leaves";
    if (GetParam() == Next::Find) {
      EXPECT_FALSE(Lab::find(lab->folder()));
      EXPECT_FALSE(std::filesystem::exists(scratch / "lab"));
    }
    auto again = Lab::up(small(), "", quiet(scratch));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ(again->exec("blue/a", {"true"}), 0);
  }
  EXPECT_FALSE(std::filesystem::exists(scratch / "lab"));
}

INSTANTIATE_TEST_SUITE_P(Life, Crash, testing::Values(Next::Up, Next::Find),
                         [](const auto& param) { return param.param == Next::Up ? "up" : "find"; });

TEST(Life, ALivingLabIsNotReplaced) {
  const Scratch scratch;
  auto lab = Lab::up(small(), "", quiet(scratch));
  ASSERT_TRUE(lab) << lab.error().message;
  const auto second = Lab::up(small(), "", quiet(scratch));
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().message.find("\"lab\" is up already"), std::string::npos)
      << second.error().message;
  EXPECT_EQ(lab->exec("blue/a", {"true"}), 0) << "and it lives on";
}

TEST(Life, ForeignFilesAreNotTouched) {
  const Scratch scratch;
  std::filesystem::create_directories(scratch / "lab");
  std::ofstream(scratch / "lab/letter") << "dear reader";
  const auto lab = Lab::up(small(), "", quiet(scratch));
  ASSERT_FALSE(lab);
  EXPECT_EQ(lab.error().code, ErrorCode::Refused);
  EXPECT_TRUE(std::filesystem::exists(scratch / "lab/letter"));
}

TEST(Life, TwoLabsDoNotMeet) {
  const Scratch scratch;
  auto first = Lab::up(small(), "", quiet(scratch, "one"));
  auto second =
      Lab::up(topology_of({pod("a", {"10.1.0.5"}), pod("b", {"10.1.0.6"})}), "", quiet(scratch, "two"));
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->folder(), second->folder());
  const auto counts_links = [](const Lab& lab, int wanted) {
    return lab.exec("node", {"sh", "-c", "test $(ls /sys/class/net | wc -l) = " + std::to_string(wanted)});
  };
  EXPECT_EQ(counts_links(*first, 3), 0) << "lo, uplink, one pod";
  EXPECT_EQ(counts_links(*second, 4), 0) << "lo, uplink, two pods";
  ASSERT_TRUE(first->down());
  EXPECT_EQ(second->exec("blue/a", {"ping", "-c1", "-W5", "-q", "b.blue"}), 0);
}

TEST(Life, AFailureAfterTheStartLeavesNothing) {
  const Scratch scratch;
  const std::string before = machine();
  pid_t first = 0;
  ino_t inside = 0;
  auto options = quiet(scratch);
  options.cni_folder = scratch / "no-plugins";
  const auto lab = Lab::up(small(), "", options, [&](const std::string& step) {
    if (!step.starts_with("pod ")) return;
    first = first_process(scratch / "lab");
    inside = pid_namespace(first);
  });
  ASSERT_FALSE(lab);
  EXPECT_NE(lab.error().message.find("no-plugins/ptp"), std::string::npos) << lab.error().message;
  EXPECT_GT(first, 0);
  EXPECT_EQ(processes_in(inside), 0);
  EXPECT_FALSE(std::filesystem::exists(scratch / "lab"));
  EXPECT_EQ(machine(), before);
}

TEST(Life, NamesAreChecked) {
  const Scratch scratch;
  for (const char* name : {"", ".hidden", "a b", "../up"}) {
    auto options = quiet(scratch);
    options.name = name;
    const auto lab = Lab::up(small(), "", options);
    ASSERT_FALSE(lab) << name;
    EXPECT_EQ(lab.error().code, ErrorCode::InvalidArgument) << name;
  }
}

}  // namespace
}  // namespace tierlog::lab
