// Programs are replaced at a pod's interface by one loader after the other, most of them killed somewhere on the way,
// under packets of the pod: none that is denied comes through, none that is allowed is lost.
//
// The control takes the filters away to attach them again. That must leak, or this test could not see a leak.
#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <functional>
#include <thread>

#include "base/handle.h"
#include "tests/dataplane/ebpf_pods.h"

namespace tierlog::dataplane::test {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::uint16_t kAllowed = 7001, kDenied = 7002;
constexpr const char* kPolicy = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: out, namespace: a}
spec: {selector: app == 'p', types: [Egress], egress: [{action: Allow, protocol: UDP, destination: {ports: [7001]}}]}
)";

struct Shared {
  std::atomic<bool> ready{false}, stop{false};
  std::atomic<std::uint64_t> allowed_sent{0}, denied_sent{0}, replacements{0};
};

int udp_socket() {
  return ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}
sockaddr_in node(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  ::inet_pton(AF_INET, "10.1.0.254", &address.sin_addr);
  return address;
}

class EbpfReplacement : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN (run as root)";
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    shared_ = new (memory) Shared;
    ASSERT_EQ(::unshare(CLONE_NEWNET | CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    root_ = fs::temp_directory_path() / ("tierlog-replacement-" + std::to_string(::getpid()));
    fs::create_directories(root_);
    ASSERT_EQ(::mount("bpf", root_.c_str(), "bpf", 0, "mode=0700"), 0);
    fs::create_directories(root_ / "tierlog" / "v");
    sender_ = ::fork();
    if (sender_ == 0) ::_exit(::unshare(CLONE_NEWNET) == 0 ? send() : 1);
    ASSERT_GT(sender_, 0);
    while (fs::read_symlink("/proc/" + std::to_string(sender_) + "/ns/net") == fs::read_symlink("/proc/self/ns/net"))
      std::this_thread::sleep_for(5ms);
    ASSERT_EQ(std::system(("ip link add pod-p type veth peer name eth0 netns " + std::to_string(sender_) +
                           " && ip link set pod-p up && ip address add 10.1.0.254/24 dev pod-p && ip link set lo up")
                              .c_str()),
              0);
    for (const std::uint16_t port : {kAllowed, kDenied}) {
      Fd socket(udp_socket());
      const sockaddr_in address = node(port);
      constexpr int kRoom = 32 << 20;
      ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kRoom, sizeof kRoom);
      ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
      sockets_.push_back(std::move(socket));
    }
  }
  void TearDown() override {
    if (shared_ == nullptr) return;
    shared_->stop = true;
    if (sender_ > 0) {
      ::kill(sender_, SIGKILL);
      ::waitpid(sender_, nullptr, 0);
    }
    if (!root_.empty()) {
      ::umount2(root_.c_str(), MNT_DETACH);
      fs::remove(root_);
    }
    ::munmap(shared_, sizeof(Shared));
  }

  // In the pod's network namespace, where eth0 comes when it comes.
  int send() const {
    while (std::system("ip link set eth0 up 2>/dev/null && ip address add 10.1.0.1/24 dev eth0") != 0)
      std::this_thread::sleep_for(10ms);
    const Fd socket(udp_socket());
    while (!shared_->ready) std::this_thread::sleep_for(1ms);
    // Whoever asks for the node's link address has room for few packets meanwhile.
    const sockaddr_in first = node(9);
    static_cast<void>(::sendto(socket.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&first), sizeof first));
    std::this_thread::sleep_for(200ms);
    const sockaddr_in to[] = {node(kAllowed), node(kDenied)};
    std::atomic<std::uint64_t>* sent[] = {&shared_->allowed_sent, &shared_->denied_sent};
    while (!shared_->stop) {
      for (std::size_t i = 0; i < 2; ++i)
        if (::sendto(socket.get(), "x", 1, 0, reinterpret_cast<const sockaddr*>(&to[i]), sizeof to[i]) == 1) ++*sent[i];
      std::this_thread::sleep_for(20us);  // sockets hold what comes between two readings
    }
    return 0;
  }
  std::uint64_t received(std::size_t which) const {
    char byte;
    std::uint64_t count = 0;
    while (::recv(sockets_[which].get(), &byte, 1, MSG_DONTWAIT) >= 0) ++count;
    return count;
  }

  // What a daemon does at its start.
  std::unique_ptr<EbpfBackend> load() {
    ebpf::EbpfOptions options;
    options.pins = (root_ / "tierlog" / "v").string();
    options.host_to_pod_by_policy = true;
    auto backend = EbpfBackend::open(options);
    if (!backend) return nullptr;
    auto pod = tierlog::testing::local_pod("a", "p", {"10.1.0.1"}, {{"app", "p"}});
    pod.interface = "pod-p";
    policy::MemoryRuleIds ids;
    if (!(*backend)->apply(tierlog::testing::compile(kPolicy, {pod}, ids))) return nullptr;
    ++shared_->replacements;
    return std::move(*backend);
  }
  void begin_sending() {
    ASSERT_TRUE(load());
    shared_->replacements = 0;
    shared_->ready = true;
    while (shared_->denied_sent < 1000) std::this_thread::sleep_for(10ms);
  }
  // A loader that goes on until it is killed; its death.
  void run_killed(const std::function<void()>& work, std::chrono::milliseconds life) const {
    const pid_t loader = ::fork();
    if (loader == 0) {
      for (;;) work();
    }
    std::this_thread::sleep_for(life);
    ::kill(loader, SIGKILL);
    int status = 0;
    ::waitpid(loader, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the loader failed by itself: " << status;
  }

  Shared* shared_ = nullptr;
  fs::path root_;
  pid_t sender_ = 0;
  std::vector<Fd> sockets_;
};

TEST_F(EbpfReplacement, LetsNothingThroughHoweverLoadersDie) {
  const bool whole = std::getenv("TIERLOG_REPLACEMENTS") != nullptr;
  const std::uint64_t replacements = whole ? 200 : 4;
  const int deaths = whole ? 60 : 6;
  ASSERT_NO_FATAL_FAILURE(begin_sending());
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(load());
  // From the first moment of a replacement to the second one.
  const auto longest = 2 * std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin);
  std::uint64_t allowed = 0, denied = 0;
  for (int i = 0; i < deaths || shared_->replacements < replacements; ++i) {
    ASSERT_NO_FATAL_FAILURE(run_killed([&] { static_cast<void>(load()); }, 5ms + longest * (37 * i % 100) / 100));
    allowed += received(0);
    denied += received(1);
  }
  shared_->stop = true;
  ::waitpid(std::exchange(sender_, 0), nullptr, 0);
  std::this_thread::sleep_for(100ms);
  allowed += received(0);
  denied += received(1);
  std::printf("%llu replacements, %llu denied packets, %llu allowed ones\n",
              static_cast<unsigned long long>(shared_->replacements), static_cast<unsigned long long>(shared_->denied_sent),
              static_cast<unsigned long long>(shared_->allowed_sent));
  EXPECT_EQ(denied, 0u);
  EXPECT_EQ(allowed, shared_->allowed_sent);
  EXPECT_GE(shared_->denied_sent, 10'000u);
}

TEST_F(EbpfReplacement, TakenAwayFirstLeaks) {
  ASSERT_NO_FATAL_FAILURE(begin_sending());
  const int interface = static_cast<int>(::if_nametoindex("pod-p"));
  std::uint64_t denied = 0;
  for (int i = 0; i < 20 && denied == 0; ++i) {
    static_cast<void>(ebpf::Programs::detach(interface, Hook::Out));
    ASSERT_TRUE(load());
    denied += received(1);
  }
  EXPECT_GT(denied, 0u);
}

}  // namespace
}  // namespace tierlog::dataplane::test
