// The flow index of a running tierlogd: read by another user of the group, on a full disk, damaged; and the
// first record of a connection through a Service.
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "base/handle.h"
#include "tests/e2e/live_node.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;
namespace fs = std::filesystem;

constexpr const char* kTopology = R"(
nodes: [{name: node-1, ips: [198.51.100.1]}]
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, ips: [10.1.0.5]}
- {name: db, namespace: a, ips: [10.1.0.7], labels: {app: db}, ports: [{name: sql, protocol: TCP, port: 5432}]}
services:
- {name: sql, namespace: a, clusterIP: 10.96.0.20, selector: {app: db}, type: NodePort, externalTrafficPolicy: Local, ports: [{port: 443, protocol: TCP, targetPort: 5432, nodePort: 30443}]}
)";
constexpr const char* kPolicies = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  selector: app == 'db'
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, destination: {ports: [5432]}}
  - {action: Deny}
)";

constexpr uid_t kStranger = 65'534;
constexpr gid_t kReaders = 54'321;

class Store : public LiveNode {
 protected:
  int connect(const IpAddr& to, std::uint16_t port, int times = 1) const {
    return lab_
        ->run_in("a/web",
                 [&] {
                   int connected = 0;
                   for (int i = 0; i < times; ++i)
                     connected += lab::try_tcp(to, port, 1s) == lab::Attempt::Connected;
                   return connected;
                 })
        .value_or(-1);
  }
  IpAddr db() const { return *lab_->address("a/db", Family::V4); }
  std::string index() const { return index_.empty() ? lab_->database() : index_; }
  std::uint64_t told() const {
    auto reader = store::FlowReader::open(index());
    if (!reader) return 0;
    std::uint64_t packets = 0;
    for (const store::RuleActivity& rule :
         reader->rules({}, true).value_or(std::vector<store::RuleActivity>{}))
      if (rule.rule.policy == "default/a/db") packets += rule.recorded_packets;
    return packets;
  }
  std::vector<store::FlowRecord> records() const {
    auto reader = store::FlowReader::open(index());
    std::vector<store::FlowRecord> found;
    if (!reader) return found;
    store::FlowQuery query;
    query.limit = 0;
    query.oldest_first = true;
    for (store::StoredRecord& stored : reader->flows(query).value_or(std::vector<store::StoredRecord>{}))
      found.push_back(std::move(stored.record));
    return found;
  }

  std::string index_;  // empty: the lab's own
};

TEST_F(Store, TheFirstRecordNamesTheServiceThatAConnectionWentThrough) {
  start(kTopology, kPolicies);
  if (!lab_) return;
  ASSERT_EQ(connect(*IpAddr::parse("10.96.0.20"), 443), 1);
  ASSERT_EQ(connect(*IpAddr::parse("198.51.100.1"), 30443), 1);
  ASSERT_EQ(connect(db(), 5432), 1);
  ASSERT_TRUE(becomes([&] { return told() == 3; }, 10s));
  int through = 0, at_node = 0, directly = 0;
  for (const store::FlowRecord& record : records()) {
    if (record.connections != 1u) continue;  // a first one
    EXPECT_EQ(record.dst.ip, db());
    EXPECT_EQ(record.dst_port, 5432);
    if (!record.translation) {
      EXPECT_TRUE(record.dst_service.empty());
      ++directly;
      continue;
    }
    ++through;
    EXPECT_EQ(record.dst_service, "a/sql");
    const bool by_node = record.translation->destination_port == 30443;
    EXPECT_EQ(record.translation->destination, IpAddr::parse(by_node ? "198.51.100.1" : "10.96.0.20"));
    if (!by_node) {
      EXPECT_EQ(record.translation->destination_port, 443);
    }
    at_node += by_node ? 1 : 0;
  }
  EXPECT_EQ(through, 4) << "one a direction";
  EXPECT_EQ(at_node, 2);
  EXPECT_EQ(directly, 2);
}

// The exit code of sqlite3 as another user; what it prints goes to `out`.
int sqlite_as(gid_t group, const std::string& path, const std::string& sql, std::string& out) {
  int ends[2];
  if (::pipe(ends) != 0) return -1;
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], 1);
    ::dup2(ends[1], 2);
    ::close(ends[0]);
    if (::setgroups(1, &group) != 0 || ::setgid(kStranger) != 0 || ::setuid(kStranger) != 0) ::_exit(99);
    ::execlp("sqlite3", "sqlite3", "-batch", path.c_str(), sql.c_str(), static_cast<char*>(nullptr));
    ::_exit(98);
  }
  ::close(ends[1]);
  out.clear();
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(ends[0], buffer, sizeof buffer)) > 0;)
    out.append(buffer, static_cast<std::size_t>(got));
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(Store, AUserOfTheGroupReadsWithPlainSqliteWhateverTheDaemonDoes) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
  const fs::path folder = fs::temp_directory_path() / ("tierlog-group-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  ASSERT_EQ(::chown(folder.c_str(), 0, kReaders), 0);
  ASSERT_EQ(::chmod(folder.c_str(), 02750), 0);
  index_ = (folder / "flows.db").string();
  start(kTopology, kPolicies, {{"store.path", index_}});
  if (lab_) {
    std::string out;
    const auto reads = [&](const char* when) {
      EXPECT_EQ(sqlite_as(kReaders, index_, "SELECT count(*) > 0 FROM flows", out), 0) << when << ": " << out;
      EXPECT_EQ(out, "1\n") << when;
      EXPECT_NE(sqlite_as(kReaders, index_, "DELETE FROM flow", out), 0) << when << ": a reader wrote";
      EXPECT_NE(out.find("readonly"), std::string::npos) << when << ": " << out;
      EXPECT_NE(sqlite_as(kStranger, index_, "SELECT count(*) FROM flows", out), 0)
          << when << ": a stranger read";
    };
    ASSERT_EQ(connect(db(), 5432), 1);
    ASSERT_TRUE(becomes([&] { return told() == 1; }, 10s));
    reads("running");
    ASSERT_EQ(connect(db(), 5432), 1);
    EXPECT_TRUE(becomes([&] { return told() == 2; }, 10s)) << "readers do not stop the writer";
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    reads("killed");
    ASSERT_TRUE(lab_->start_daemon());
    ASSERT_TRUE(lab_->stop_daemon(SIGTERM));
    reads("stopped");
  }
  lab_.reset();
  fs::remove_all(folder);
}

TEST_F(Store, AFullDiskIsSaidAndNothingIsLostWhenItHasRoomAgain) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN and CAP_NET_ADMIN (run as root)";
  const fs::path folder = fs::temp_directory_path() / ("tierlog-full-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  ASSERT_EQ(::mount("tierlog-test", folder.c_str(), "tmpfs", 0, "size=8m,mode=0755"), 0);
  index_ = (folder / "flows.db").string();
  start(kTopology, kPolicies, {{"store.path", index_}});
  if (lab_) {
    {
      const Fd filler(::open((folder / "filler").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
      const std::string block(4096, 'x');
      while (::write(filler.get(), block.data(), block.size()) > 0) {
      }
    }
    std::uint64_t made = 60;
    ASSERT_EQ(connect(db(), 5432, 60), 60) << "packets do not wait for a disk";
    // What the file and its log have room for already is written all the same.
    const auto refuses = [&] {
      if (status()["store"]["state"] == "refusing") return true;
      EXPECT_EQ(connect(db(), 5432, 20), 20);
      made += 20;
      return false;
    };
    EXPECT_TRUE(becomes(refuses, 20s)) << status()["store"].dump();
    const nlohmann::json said = status();
    EXPECT_NE(said["store"]["problem"].get<std::string>().find("full"), std::string::npos)
        << said["store"].dump();
    EXPECT_NE(said["warnings"].dump().find("NOT WRITTEN"), std::string::npos) << said["warnings"].dump();
    fs::remove(folder / "filler");
    EXPECT_TRUE(becomes([&] { return told() == made; }, 20s)) << told() << " of " << made;
    EXPECT_TRUE(becomes([&] { return status()["store"]["state"] == "well"; })) << status()["store"].dump();
  }
  lab_.reset();
  EXPECT_EQ(::umount2(folder.c_str(), MNT_DETACH), 0);
  fs::remove_all(folder);
}

TEST_F(Store, ADamagedFileIsKeptAsideWhileTheDaemonRuns) {
  start(kTopology, kPolicies);
  if (!lab_) return;
  ASSERT_EQ(connect(db(), 5432), 1);
  ASSERT_TRUE(becomes([&] { return told() == 1; }, 10s));
  {
    // Its pages, as a bad disk leaves them; a checkpoint may not bring them back from the log.
    const Fd file(::open(index().c_str(), O_WRONLY | O_CLOEXEC));
    const std::string rubbish(64 << 10, '\xa5');
    for (const char* suffix : {"", "-wal"}) {
      const Fd part(::open((index() + suffix).c_str(), O_WRONLY | O_CLOEXEC));
      ASSERT_EQ(::pwrite(part.get(), rubbish.data(), rubbish.size(), 0),
                static_cast<ssize_t>(rubbish.size()));
    }
  }
  ASSERT_EQ(connect(db(), 5432, 5), 5) << "the rules stay";
  EXPECT_TRUE(becomes([&] { return !status()["store"]["kept_aside"].get<std::string>().empty(); }, 20s));
  const nlohmann::json said = status();
  EXPECT_TRUE(fs::exists(said["store"]["kept_aside"].get<std::string>())) << said["store"].dump();
  EXPECT_NE(said["warnings"].dump().find("damaged"), std::string::npos) << said["warnings"].dump();
  const std::uint64_t before = told();
  ASSERT_EQ(connect(db(), 5432, 5), 5);
  EXPECT_TRUE(becomes([&] { return told() >= before + 5; }, 20s)) << "the new file takes records";
  EXPECT_EQ(status()["seccomp"], true);
}

TEST_F(Store, AStrangerMayNotAskTheDaemon) {
  start(kTopology, kPolicies);
  if (!lab_) return;
  const auto ask_as = [&](uid_t user) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (user != 0 && (::setgroups(0, nullptr) != 0 || ::setgid(user) != 0 || ::setuid(user) != 0))
        ::_exit(99);
      ::_exit(endpoints::call(lab_->socket(), {{"op", "status"}}, 5s) ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  };
  EXPECT_EQ(ask_as(0), 0);
  EXPECT_EQ(ask_as(kStranger), 1);
}

}  // namespace
}  // namespace tierlog::testing
