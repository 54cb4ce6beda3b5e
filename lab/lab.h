// lab/lab.h - throwaway nodes: network namespaces, pods made by real CNI plugins, a running tierlogd each.
//
//   topology.yaml --> [Lab] --ptp/bridge + host-local/static, then tierlog-cni--> pods
//                       |--> Services and masquerade by nftables, as kube-proxy does them
//                       `--> tierlogd in each node's namespace, its own /run, rules and database
//
// A lab is one process tree in its own network, mount and pid namespaces: whoever kills its first
// process ends all of it, and nothing outside (no named namespace, link, mount or rule) is touched.
// What outsiders need is in its folder: /run/tierlog-lab/NAME/{lab.json, tierlogd.sock, flows.db, …}; what
// belongs to a second node is in a folder of that node's name below it.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/net_types.h"
#include "base/result.h"
#include "endpoints/topology.h"

namespace tierlog::lab {

struct LabOptions {
  std::string name = "default";
  std::string folder;                 // default /run/tierlog-lab/NAME
  std::vector<std::string> policies;  // paths, may be empty
  std::string dataplane;              // default: $TIERLOG_DATAPLANE, else the topology's
  std::string bin_folder;             // where tierlogd and tierlog-cni are; default: beside this program
  std::string cni_folder = "/usr/lib/cni";
  // The lab ends with this process (tests), or lives until `down` (the command).
  enum class Life : std::uint8_t { WithCaller, UntilDown } life = Life::UntilDown;
  std::map<std::string, std::string> daemon_config;  // extra tierlogd.yaml keys, e.g. {"deny_interval","1s"}
  bool start_daemon = true;
};

// Where something is in a running lab.
struct LabHost {
  std::string name;  // "ns/pod", "node" (the first), the name of another node, or "outside"
  std::vector<IpAddr> addresses;
};

struct LabNode {
  std::string name;  // as the topology names it
  std::vector<IpAddr> addresses;
  std::string folder, socket, database;  // of its tierlogd
};

class Lab {
 public:
  // Builds the lab and returns when every pod is there and tierlogd enforces. `progress` gets one line a
  // step. On an error nothing is left. A dead lab of the same name is cleaned up first; a living one is
  // an error that names it.
  static Result<Lab> up(const std::string& topology_path, const LabOptions& options,
                        const std::function<void(const std::string&)>& progress = {});
  // The same of a topology that is loaded already; `topology_path` is the file that tierlogd reads.
  static Result<Lab> up(const endpoints::Topology& topology, const std::string& topology_path,
                        const LabOptions& options,
                        const std::function<void(const std::string&)>& progress = {});
  // A running lab by name, or by its folder (anything with a slash). What a dead one left is removed.
  // Errors: NotFound.
  static Result<Lab> find(const std::string& name);
  // Names of labs that are up.
  static std::vector<std::string> running();

  Lab(Lab&&) noexcept;
  Lab& operator=(Lab&&) noexcept;
  ~Lab();  // ends a lab made with Life::WithCaller

  Result<void> down();

  const std::string& name() const;
  std::string database() const;  // flows.db of the first node, reachable from outside the lab
  std::string socket() const;    // of the first node's tierlogd
  std::string folder() const;
  std::vector<LabNode> nodes() const;  // at least one
  std::vector<LabHost> hosts() const;
  // Also by a name that hosts() does not have: the first node's own.
  bool has_host(const std::string& host) const;
  // Services as they are in force: clusterIPs and nodePorts are assigned.
  const std::vector<endpoints::Service>& services() const;
  std::optional<IpAddr> address(const std::string& host, Family family) const;

  // Runs a command in a host (a hostNetwork pod's is its node), with this process's standard streams; its
  // exit code, 128 + signal if it was killed. Errors: NotFound (no such host).
  Result<int> exec(const std::string& host, const std::vector<std::string>& command) const;
  // Calls `work` in a child process inside the host; its return value is the exit code.
  Result<int> run_in(const std::string& host, const std::function<int()>& work) const;
  // The same, in the background; the caller waits for the pid. The child ends with its parent.
  Result<pid_t> start_in(const std::string& host, const std::function<int()>& work) const;

  // Makes or removes one more pod while the lab runs.
  Result<void> add_pod(const policy::Endpoint& pod);
  Result<void> remove_pod(const std::string& endpoint_namespace, const std::string& name);
  // tierlogd of a node (empty: the first): stop with a signal, start again.
  Result<void> stop_daemon(int signal, const std::string& node = {});
  Result<void> start_daemon(const std::string& node = {});

 private:
  struct Impl;
  explicit Lab(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Real traffic, from inside a host (call it in run_in). The outside host may send from any address.
struct Sender {
  std::optional<IpAddr> address;  // default: as the host's routes say
  std::uint16_t port = 0;         // default: the kernel chooses
  std::uint8_t icmp_code = 0;     // of a ping; hosts answer whatever it is
};
enum class Attempt : std::uint8_t { Connected, Refused, TimedOut, Unreachable };
std::string_view name(Attempt attempt);
// One new connection: TCP connect, a UDP datagram answered by an echo, an ICMP echo.
Attempt try_tcp(const IpAddr& to, std::uint16_t port, std::chrono::milliseconds timeout,
                const Sender& from = {});
Attempt try_udp(const IpAddr& to, std::uint16_t port, std::chrono::milliseconds timeout,
                const Sender& from = {});
Attempt try_ping(const IpAddr& to, std::chrono::milliseconds timeout, const Sender& from = {});

}  // namespace tierlog::lab
