// The daemon of a real node sends its records: plain and filtered, by TLS and a shared key, into a file; with all that
// it gave up (capabilities, system calls), and over kill -9.
#include <openssl/ssl.h>

#include <csignal>
#include <fstream>
#include <msgpack.hpp>
#include <set>

#include "exporters/fluentbit/handshake.h"
#include "tests/e2e/live_node.h"
#include "tests/exporters/ack_server.h"
#include "tests/exporters/certificates.h"

namespace tierlog::testing {
namespace {

using namespace std::chrono_literals;
namespace fluentbit = exporters::fluentbit;
using fluentbit::testing::AckServer;
using fluentbit::testing::Received;

constexpr const char* kTopology = R"(
namespaces: [{name: a}]
pods:
- {name: web, namespace: a, labels: {role: web}, ips: [10.1.0.5]}
- {name: db, namespace: a, labels: {role: db}, ips: [10.1.0.6]}
)";
constexpr const char* kPolicies = R"(
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: db, namespace: a}
spec:
  selector: role == 'db'
  ingress:
  - {action: Deny, protocol: TCP, destination: {ports: [5432]}}
  - {action: Allow}
)";

fluentbit::testing::Answer right(const Received& message) {
  return {.bytes = fluentbit::testing::ack_of(message.chunk)};
}

template <typename... Parts>
std::string message(const Parts&... parts) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_array(sizeof...(parts));
  (packer.pack(parts), ...);
  return {buffer.data(), buffer.size()};
}

std::string pong(const std::string& ping) {
  const auto handle = msgpack::unpack(ping.data(), ping.size());
  const auto* part = handle.get().via.array.ptr;
  const auto salt = part[2].as<std::string>(), host = part[1].as<std::string>();
  if (part[3].as<std::string>() != fluentbit::sha512_hex({salt, host, "nonce", "secret"})) return "";
  return message("PONG", true, "", "receiver", fluentbit::sha512_hex({salt, "receiver", "nonce", "secret"}));
}

class ExportsNode : public LiveNode {
 protected:
  void SetUp() override {
    // A receiver by TLS that writes to a daemon that was killed.
    std::signal(SIGPIPE, SIG_IGN);
    std::ofstream(certificates_.path("key")) << "secret\n";
    const auto quoted = [&](const std::string& name) { return "\"" + certificates_.path(name) + "\""; };
    const std::string exports = "[{name: plain, socket: " + quoted("plain.sock") +
                                "}, {name: denied, socket: " + quoted("tls.sock") + ", tls: {ca: " + quoted("ca.crt") +
                                ", server_name: receiver.test}, auth: {shared_key_file: " + quoted("key") +
                                "}, compress: gzip, filter: --action deny, tag: \"t.{action}.{dst_namespace}\"}, " +
                                "{type: file, name: lines, path: " + quoted("flows.jsonl") + "}]";
    start(kTopology, kPolicies, {{"deny_interval", "1s"}, {"flow_interval", "1s"}, {"exports", exports}});
  }
  std::size_t records() const {
    flush(*lab_);
    auto reader = store::FlowReader::open(lab_->database());
    store::FlowQuery query;
    query.limit = 0;
    return reader ? reader->flows(query).value().size() : 0;
  }
  void connect(std::uint16_t port) const {
    const IpAddr to = *lab_->address("a/db", Family::V4);
    ASSERT_TRUE(lab_->run_in("a/web", [&] { return static_cast<int>(lab::try_tcp(to, port, 300ms)); }));
  }
  std::set<std::string> lines() const {
    std::set<std::string> ids;
    std::ifstream file(certificates_.path("flows.jsonl"));
    for (std::string line; std::getline(file, line);)
      ids.insert(nlohmann::json::parse(line)["id"].get<std::string>());
    return ids;
  }
  fluentbit::testing::Certificates certificates_;
};

std::set<std::string> ids_of(const std::vector<Received>& messages) {
  std::set<std::string> ids;
  for (const Received& message : messages) ids.insert(message.ids.begin(), message.ids.end());
  return ids;
}

TEST_F(ExportsNode, SendsWhatItRecordsToEachOutput) {
  ASSERT_TRUE(lab_);
  SSL_CTX* tls = ::SSL_CTX_new(::TLS_server_method());
  ::SSL_CTX_use_certificate_chain_file(tls, certificates_.path("server.crt").c_str());
  ::SSL_CTX_use_PrivateKey_file(tls, certificates_.path("server.key").c_str(), SSL_FILETYPE_PEM);
  {
    AckServer denied(right, {.unix_path = certificates_.path("tls.sock"),
                             .tls = tls,
                             .helo = message("HELO", std::map<std::string, std::string>{{"nonce", "nonce"}}),
                             .pong = pong});
    for (int i = 0; i < 3; ++i) connect(8080);
    connect(5432);
    const auto delivered = [&](const char* name) {
      const auto told = status();
      for (const auto& one : told["exports"])
        if (one["name"] == name) return one["waiting"] == 0 && one["error"] == "";
      return false;
    };
    EXPECT_TRUE(becomes([&] { return delivered("denied") && delivered("lines"); }, 15s)) << status()["exports"].dump(1);
    ASSERT_FALSE(denied.received().empty());
    for (const Received& one : denied.received()) {
      EXPECT_EQ(one.tag, "t.deny.a");
      EXPECT_EQ(one.compressed, "gzip");
    }
    EXPECT_LT(ids_of(denied.received()).size(), records());
    // Nobody listened for the first; the daemon dies; what comes then gets everything all the same.
    EXPECT_FALSE(delivered("plain"));
    EXPECT_TRUE(becomes([&] {
      std::ifstream file(std::filesystem::path(lab_->database()).parent_path() / "tierlogd.log");
      const std::string log(std::istreambuf_iterator<char>(file), {});
      return log.find("level=warning export plain: forward to unix://") != std::string::npos;
    })) << "the log says what fails";
    const auto is_warned = [&] { return status()["warnings"].dump().find("export plain fails and is tried again: ") != std::string::npos; };
    EXPECT_TRUE(is_warned()) << status()["warnings"].dump();
    ASSERT_TRUE(lab_->stop_daemon(SIGKILL));
    AckServer plain(right, {.unix_path = certificates_.path("plain.sock")});
    ASSERT_TRUE(lab_->start_daemon());
    EXPECT_TRUE(becomes([&] { return delivered("plain") && delivered("denied") && delivered("lines"); }, 20s))
        << status()["exports"].dump(1);
    EXPECT_TRUE(becomes([&] { return ids_of(plain.received()) == lines() && lines().size() == records(); }, 10s));
    EXPECT_GE(lines().size(), 4u);
    EXPECT_FALSE(is_warned()) << status()["warnings"].dump();
  }
  ::SSL_CTX_free(tls);
}

}  // namespace
}  // namespace tierlog::testing
