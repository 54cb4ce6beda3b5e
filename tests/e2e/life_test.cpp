// How a daemon begins and ends: with bad files, with pods that came and went meanwhile, beside another one,
// for the last time.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "endpoints/control.h"
#include "tests/e2e/matrix.h"

namespace tierlog::testing {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5]}
- {name: db, namespace: a, ips: [10.1.0.6], ports: [{name: sql, protocol: TCP, port: 5432}]}
)";

std::string policy(const std::string& action) {
  return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: db, namespace: a}\n"
         "spec:\n  selector: projectcalico.org/name == 'db'\n  ingress:\n  - action: " +
         action + "\n";
}

class Life : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
    folder_ = fs::temp_directory_path() / ("tierlog-life-" + std::to_string(::getpid()));
    fs::create_directories(folder_ / "policies");
    std::ofstream(folder_ / "topology.yaml") << kTopology;
    write(policy("Deny"));
    lab::LabOptions options;
    options.name = "e2e-life-" + std::to_string(::getpid());
    options.policies = {(folder_ / "policies").string()};
    options.bin_folder = std::string(TIERLOG_BINARY_DIR) + "/bin";
    options.life = lab::LabOptions::Life::WithCaller;
    auto lab = lab::Lab::up((folder_ / "topology.yaml").string(), options);
    ASSERT_TRUE(lab) << lab.error().message;
    lab_.emplace(std::move(*lab));
  }
  void TearDown() override {
    lab_.reset();
    fs::remove_all(folder_);
  }

  void write(const std::string& text) const { std::ofstream(folder_ / "policies" / "p.yaml") << text; }
  nlohmann::json status() const {
    const auto answer = endpoints::call(lab_->socket(), {{"op", "status"}});
    EXPECT_TRUE(answer) << answer.error().message;
    return answer ? (*answer)["status"] : nlohmann::json();
  }
  lab::Attempt connect(const std::string& to) const {
    const IpAddr address = *lab_->address(to, Family::V4);
    const auto result =
        lab_->run_in("a/web", [&] { return static_cast<int>(lab::try_tcp(address, 5432, 500ms)); });
    EXPECT_TRUE(result);
    return static_cast<lab::Attempt>(*result);
  }
  // A command on the node; its output's lines are in `said_`.
  int on_node(const std::string& command) {
    const std::string file = (folder_ / "said").string();
    const auto code = lab_->exec("node", {"sh", "-c", "{ " + command + "; } >" + file + " 2>&1"});
    std::ifstream text(file);
    said_.assign(std::istreambuf_iterator<char>(text), {});
    return code ? *code : -1;
  }
  std::string tierlogd(const std::string& arguments) const {
    return std::string(TIERLOG_BINARY_DIR) + "/bin/tierlogd --config " + lab_->folder() + "/tierlogd.yaml " +
           arguments;
  }
  bool warned_of(const std::string& text) const {
    const auto told = status();
    for (const auto& warning : told["warnings"])
      if (warning.get<std::string>().find(text) != std::string::npos) return true;
    return false;
  }

  fs::path folder_;
  std::string said_;
  std::optional<lab::Lab> lab_;
};

TEST_F(Life, AStartWithBrokenFilesEnforcesTheLastGoodSetAndSaysSo) {
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  write(policy("Dney"));
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut);
  const auto told = status();
  EXPECT_EQ(told["source"], "last-good");
  EXPECT_EQ(told["ready"], true);
  EXPECT_NE(told["sync_error"].get<std::string>().find("p.yaml:7:13: "), std::string::npos);
  std::ifstream log(lab_->folder() + "/tierlogd.log");
  const std::string lines{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(lines.find("THE POLICY FILES ARE NOT IN FORCE"), std::string::npos);
  ASSERT_EQ(on_node(std::string(TIERLOG_BINARY_DIR) + "/bin/tierlog status --socket " + lab_->socket()), 0);
  EXPECT_NE(said_.find("NOT what the files say"), std::string::npos) << said_;
  write(policy("Allow"));
  for (int i = 0; i < 200 && status()["source"] != "files"; ++i) ::usleep(25'000);
  EXPECT_EQ(connect("a/db"), lab::Attempt::Connected);
}

TEST_F(Life, WithoutAnyGoodSetPodsAreDenied) {
  write(policy("Allow"));
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  ASSERT_EQ(on_node(tierlogd("--remove")), 0) << said_;
  fs::remove(fs::path(lab_->database()).parent_path() / "state.db");
  write("kind: [");
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(status()["source"], "nothing");
  EXPECT_EQ(status()["ready"], false);
  policy::Endpoint pod;
  pod.endpoint_namespace = "a";
  pod.name = "late";
  pod.addresses = {*IpAddr::parse("10.1.0.7")};
  pod.ports = {{"sql", protocol::kTcp, 5432}};
  ASSERT_TRUE(lab_->add_pod(pod));
  EXPECT_EQ(connect("a/late"), lab::Attempt::TimedOut);
  flush(*lab_);
  const Index index = Index::read(lab_->database());
  std::size_t denied = 0;
  for (const store::FlowRecord& record : index.records())
    if (record.reason == Reason::NotReady && record.action == store::Verdict::Deny) ++denied;
  EXPECT_GT(denied, 0u);
}

TEST_F(Life, WhileItIsAwayNoPodComesAndEveryPodMayGo) {
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  policy::Endpoint pod;
  pod.endpoint_namespace = "a";
  pod.name = "late";
  pod.addresses = {*IpAddr::parse("10.1.0.7")};
  const auto added = lab_->add_pod(pod);
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::Unavailable) << added.error().message;
  ASSERT_TRUE(lab_->remove_pod("a", "db"));
  EXPECT_TRUE(fs::exists(lab_->folder() + "/cni-spool/a_db@eth0.json"));
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(status()["programmed"], 1) << "web alone";
  EXPECT_TRUE(fs::is_empty(lab_->folder() + "/cni-spool"));
  ASSERT_TRUE(lab_->add_pod(pod)) << "the runtime tries again";
  EXPECT_EQ(status()["programmed"], 2);
}

TEST_F(Life, APodThatVanishedWithoutAWordIsDroppedAndShown) {
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  ASSERT_EQ(on_node("ip -o route get 10.1.0.6"), 0);
  const std::string::size_type at = said_.find(" dev ") + 5;
  ASSERT_EQ(on_node("ip link delete " + said_.substr(at, said_.find(' ', at) - at)), 0) << said_;
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(status()["programmed"], 1);
  EXPECT_TRUE(warned_of("a/db (10.1.0.6) is no longer enforced: its interface ")) << status()["warnings"];
}

TEST_F(Life, AfterARebootRegistrationsOfGonePodsAreDropped) {
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  const std::string state = (fs::path(lab_->database()).parent_path() / "state.db").string();
  ASSERT_EQ(on_node("sqlite3 " + state +
                    " \"UPDATE value SET value = 'another' WHERE key = 'user.boot_id';"
                    " UPDATE endpoint SET netns = '/run/netns/gone' WHERE name = 'db'\""),
            0)
      << said_;
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(status()["programmed"], 1);
  EXPECT_TRUE(warned_of("is gone since the node was booted anew")) << status()["warnings"];
}

TEST_F(Life, AnyOtherDaemonOfThisNodeExitsThreeAndNamesTheFirst) {
  const std::string pid = "(pid " + std::to_string(status()["pid"].get<int>()) + ",";
  const std::string other = " --socket /run/other.sock --store.path /run/other/flows.db";
  for (const std::string& arguments : {std::string(), std::string(" --socket /run/other.sock"), other}) {
    EXPECT_EQ(on_node(tierlogd(arguments)), 3) << said_;
    EXPECT_NE(said_.find(pid), std::string::npos) << said_;
  }
}

TEST_F(Life, RemoveTakesEveryTableOfOursAndNoOther) {
  EXPECT_EQ(on_node(tierlogd("--remove")), 3) << said_;
  EXPECT_NE(said_.find("another tierlogd runs"), std::string::npos) << said_;
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut) << "killed, the rules stay";
  ASSERT_EQ(on_node("nft 'add table ip tierlog; add table bridge tierlog; add table inet others'"), 0)
      << said_;
  EXPECT_EQ(on_node(tierlogd("--remove")), 0) << said_;
  EXPECT_NE(said_.find("removed table inet tierlog\n"), std::string::npos) << said_;
  EXPECT_NE(said_.find("removed table ip tierlog\n"), std::string::npos) << said_;
  ASSERT_EQ(on_node("nft list tables"), 0);
  EXPECT_EQ(said_, "table inet others\n");
  EXPECT_EQ(connect("a/db"), lab::Attempt::Connected);
  EXPECT_EQ(on_node(tierlogd("--remove")), 0);
  EXPECT_EQ(said_, "nothing of ours is in the kernel\n");
}

// Whoever wants to stop enforcing has trouble enough.
TEST_F(Life, RemoveNeedsNoGoodSettings) {
  std::ofstream(lab_->folder() + "/tierlogd.yaml", std::ios::app) << "nosuch: 1\n";
  EXPECT_EQ(on_node(tierlogd("--remove")), 3) << said_;
  EXPECT_NE(said_.find("another tierlogd runs"), std::string::npos) << said_;
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  EXPECT_EQ(on_node(tierlogd("--check")), 2) << said_;
  EXPECT_EQ(on_node(tierlogd("--remove")), 0) << said_;
  EXPECT_NE(said_.find("unknown key"), std::string::npos) << said_;
  EXPECT_NE(said_.find("goes on without them"), std::string::npos) << said_;
  EXPECT_NE(said_.find("removed "), std::string::npos) << said_;
}

// As on kernels before 6.9.
TEST_F(Life, WithoutAnOwnerAFlushedRulesetIsMadeAnewAtOnceAndTold) {
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  ASSERT_EQ(on_node(tierlogd("--remove")), 0) << said_;
  std::ofstream(lab_->folder() + "/tierlogd.yaml", std::ios::app) << "nftables: {without: [owner, egress-hook]}\n";
  const auto started = lab_->start_daemon();
  ASSERT_TRUE(started) << started.error().message;
  EXPECT_TRUE(warned_of("cannot protect the table"));
  ASSERT_EQ(connect("a/db"), lab::Attempt::TimedOut);
  int repairs = 0;
  for (const char* foreign : {"nft flush ruleset", "nft insert rule inet tierlog forward accept",
                              "nft add rule inet tierlog eval_i accept"}) {
    SCOPED_TRACE(foreign);
    ASSERT_EQ(on_node(foreign), 0) << said_;
    ++repairs;
    for (int i = 0; i < 200 && status()["kernel"]["table_repairs"] < repairs; ++i) ::usleep(25'000);
    EXPECT_EQ(status()["kernel"]["table_repairs"], repairs);
    EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut);
  }
  std::ifstream log(lab_->folder() + "/tierlogd.log");
  const std::string lines{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(lines.find("the rules were changed by somebody else"), std::string::npos);
  // Its successor finds tables without an owner and goes on; killed, they stay.
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut);
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut);
}

TEST_F(Life, ALostRegistryOpensNoPodAndGivesNoIdASecondMeaning) {
  write(policy("Allow"));
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  ASSERT_TRUE(lab_->start_daemon());
  ASSERT_EQ(connect("a/db"), lab::Attempt::Connected);
  const auto highest = [&] {
    EXPECT_EQ(on_node("sqlite3 " + lab_->folder() + "/flows.db 'SELECT max(rule_id) FROM rules'"), 0) << said_;
    return std::stoul(said_);
  };
  const auto before = highest();
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  ASSERT_EQ(on_node("rm " + lab_->folder() + "/state.db"), 0) << said_;
  write(policy("Deny"));
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_TRUE(warned_of("is in state.db no longer"));
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut) << "nobody knows whose interface it is";
  write(policy("Allow"));
  ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut) << "not even after another restart";
  std::ifstream log(lab_->folder() + "/tierlogd.log");
  const std::string lines{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(lines.find("new ids begin at " + std::to_string(before + 1)), std::string::npos);
}

// The id stands in the mark while the kernel makes the message: what others wrote there must come out again.
TEST_F(Life, AFirstPacketKeepsTheMarkThatOthersGaveIt) {
  write(policy("Allow"));
  ASSERT_TRUE(endpoints::call(lab_->socket(), {{"op", "reload"}}));
  const std::string web = lab_->address("a/web", Family::V4)->to_string();
  std::ofstream(folder_ / "others.nft")
      << "table inet others {\n counter kept {}\n counter changed {}\n"
         " chain before { type filter hook prerouting priority -200; ip saddr " + web + " meta mark set 0x4000; }\n"
         " chain after { type filter hook postrouting priority 200;\n"
         "  ip saddr " + web + " meta mark 0x4000 counter name kept\n"
         "  ip saddr " + web + " meta mark != 0x4000 counter name changed\n }\n}\n";
  ASSERT_EQ(on_node("nft -f " + (folder_ / "others.nft").string()), 0) << said_;
  ASSERT_EQ(connect("a/db"), lab::Attempt::Connected);
  ASSERT_EQ(on_node("nft list counter inet others changed"), 0) << said_;
  EXPECT_NE(said_.find("packets 0 "), std::string::npos) << said_;
  ASSERT_EQ(on_node("nft list counter inet others kept"), 0) << said_;
  EXPECT_EQ(said_.find("packets 0 "), std::string::npos) << said_;
  flush(*lab_);
  std::size_t told = 0;
  const Index index = Index::read(lab_->database());
  for (const store::FlowRecord& record : index.records())
    told += record.src.name == "web" && record.action == store::Verdict::Allow ? 1 : 0;
  EXPECT_GT(told, 0u) << "nothing was told, so nothing was proven";
}

TEST_F(Life, WhoElseWritesConnectionLabelsIsNamedLaterAndKeepsADaemonFromStarting) {
  const std::string writer = "connection labels are written by others too (table other chain c)";
  const auto soon = [&](bool wanted) {
    for (int i = 0; i < 200 && warned_of(writer) != wanted; ++i) ::usleep(25'000);
    return warned_of(writer) == wanted;
  };
  const auto pid = status()["pid"];
  ASSERT_EQ(on_node("nft 'table inet other { chain c { ct label 3 counter; }; }'"), 0) << said_;
  EXPECT_FALSE(warned_of("connection labels")) << "who only reads them does no harm";
  ASSERT_EQ(on_node("nft 'add rule inet other c ct label set 3'"), 0) << said_;
  EXPECT_TRUE(soon(true));
  EXPECT_EQ(status()["pid"], pid) << "stopping would open more than it closes";
  std::ifstream log(lab_->folder() + "/tierlogd.log");
  const std::string lines{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(lines.find("CONNECTION LABELS ARE WRITTEN BY OTHERS TOO (table other chain c)"), std::string::npos);
  ASSERT_EQ(on_node("nft delete table inet other"), 0) << said_;
  EXPECT_TRUE(soon(false));

  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  ASSERT_EQ(on_node("nft 'table inet other { chain c { ct label set 3; }; }'"), 0) << said_;
  EXPECT_EQ(on_node("timeout 30 " + tierlogd("")), 3) << said_;
  EXPECT_NE(said_.find(writer), std::string::npos) << said_;
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut) << "the rules of before stay in force";
  ASSERT_EQ(on_node("nft delete table inet other"), 0) << said_;
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_FALSE(warned_of("connection labels"));
}

TEST_F(Life, CheckReadsAndChangesNothing) {
  const auto revision = status()["revision"];
  EXPECT_EQ(on_node(tierlogd("--check")), 0) << said_;
  write(policy("Dney"));
  EXPECT_EQ(on_node(tierlogd("--check")), 2);
  EXPECT_NE(said_.find("p.yaml:7:13: "), std::string::npos) << said_;
  EXPECT_EQ(on_node(tierlogd("--check --dataplane nft")), 2);
  EXPECT_NE(said_.find("--dataplane:1:1: "), std::string::npos) << said_;
  EXPECT_EQ(status()["revision"], revision);
}

TEST_F(Life, ATermCommitsWhatWasCounted) {
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut);
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  const Index index = Index::read(lab_->database());
  std::uint64_t packets = 0;
  for (const store::FlowRecord& record : index.records())
    if (record.action == store::Verdict::Deny) packets += record.verdict_packets;
  EXPECT_GT(packets, 0u);
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut) << "the rules stay in force";
}

TEST_F(Life, EveryThreadKeepsFewCapabilitiesOnly) {
  const auto told = status();
  const bool programs = told["dataplane"] == "ebpf";
  EXPECT_EQ(told["capabilities"], programs ? "dac_read_search, net_admin, bpf" : "dac_read_search, net_admin");
  const std::string tasks = "/proc/" + std::to_string(told["pid"].get<int>()) + "/task/*/status";
  // 1 << 2 and 1 << 12: CAP_DAC_READ_SEARCH and CAP_NET_ADMIN; 1 << 39: CAP_BPF.
  const std::string few = programs ? "0000008000001004" : "0000000000001004";
  ASSERT_EQ(on_node("grep -hE '^(Cap(Eff|Prm|Bnd)|NoNewPrivs)' " + tasks + " | sort -u"), 0);
  EXPECT_EQ(said_, "CapBnd:\t0000000000000000\nCapEff:\t" + few + "\nCapPrm:\t" + few + "\nNoNewPrivs:\t1\n");
}

TEST_F(Life, OddFilesAndStraySignalsDoNotEndIt) {
  const auto pid = status()["pid"];
  const std::string spool = lab_->folder() + "/cni-spool", policies = (folder_ / "policies").string();
  ASSERT_EQ(on_node("mkdir -p " + spool + "/x@eth0.json && mkfifo " + spool + "/y@eth0.json && cd " + policies +
                    " && ln -s l.yaml l.yaml && mkfifo f.yaml && kill -USR1 " + pid.dump() + " && kill -USR2 " +
                    pid.dump()),
            0)
      << said_;
  const auto complains = [&] {
    const std::string error = status()["sync_error"];
    return error.find("f.yaml: is a named pipe; expected a regular file") != std::string::npos &&
           error.find("l.yaml: cannot be read: Too many levels of symbolic links") != std::string::npos;
  };
  for (int i = 0; i < 200 && !complains(); ++i) ::usleep(25'000);
  EXPECT_TRUE(complains()) << status()["sync_error"];
  EXPECT_EQ(status()["pid"], pid);
  EXPECT_EQ(connect("a/db"), lab::Attempt::TimedOut) << "the old set stays in force";
  EXPECT_EQ(on_node(tierlogd("--check")), 2) << said_;
  EXPECT_NE(said_.find("f.yaml: is a named pipe"), std::string::npos) << said_;
  ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
  EXPECT_EQ(on_node("ls /run/tierlog | grep netns-"), 1) << "the node's lock goes with a daemon that ends: " << said_;
  ASSERT_TRUE(lab_->start_daemon());
  EXPECT_TRUE(complains()) << status()["sync_error"];
  std::ifstream log(lab_->folder() + "/tierlogd.log");
  const std::string lines{std::istreambuf_iterator<char>(log), {}};
  EXPECT_NE(lines.find("y@eth0.json is passed over: is a named pipe"), std::string::npos);
  EXPECT_NE(lines.find("x@eth0.json is passed over: is a folder"), std::string::npos);
}

TEST_F(Life, ADelThatGotNoAnswerIsCarriedOutByTheDaemonThatLives) {
  ASSERT_EQ(status()["programmed"], 2);
  const std::string file = lab_->folder() + "/cni-spool/a_db@eth0.json";
  ASSERT_EQ(on_node("mkdir -p " + lab_->folder() + "/cni-spool"), 0);
  std::ofstream(file + ".1") << R"({"v":1,"op":"cni-del","container_id":"a_db","ifname":"eth0"})" << "\n";
  fs::rename(file + ".1", file);
  for (int i = 0; i < 200 && status()["programmed"] != 1; ++i) ::usleep(25'000);
  EXPECT_EQ(status()["programmed"], 1);
  EXPECT_FALSE(fs::exists(file));
}

TEST_F(Life, APodThatCannotBeEnforcedIsRefusedAndNothingChanges) {
  ASSERT_EQ(on_node("ip link add spare type veth peer name spare-p"), 0) << said_;
  const auto revision = status()["revision"];
  struct Case {
    const char* interface;
    const char* address;
    const char* said;
  };
  for (const Case& c : {Case{"nowhere", "10.1.0.9", "interface \"nowhere\" is not in the network namespace"},
                        {"spare", "10.1.0.6", "address 10.1.0.6 is that of a/db"},
                        {"spare", "127.0.0.1", "a loopback address"}}) {
    const auto answer = endpoints::call(lab_->socket(), {{"op", "cni-add"},
                                                         {"container_id", "c9"},
                                                         {"ifname", "eth0"},
                                                         {"netns", "/run/netns/c9"},
                                                         {"namespace", "a"},
                                                         {"name", "strange"},
                                                         {"interface", c.interface},
                                                         {"addresses", {c.address}}});
    ASSERT_FALSE(answer) << c.said;
    EXPECT_NE(answer.error().message.find(c.said), std::string::npos) << answer.error().message;
  }
  EXPECT_EQ(status()["revision"], revision);
}

}  // namespace
}  // namespace tierlog::testing
