// What the lab's tests share: a folder that goes away, pods, options, and a look at the machine.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "lab/lab.h"
#include "lab/process.h"

namespace tierlog::lab {

inline constexpr std::uint16_t kPodPort = 8000;

class Scratch {
 public:
  Scratch() {
    std::string pattern = testing::TempDir() + "labXXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline policy::Endpoint pod(const std::string& name, const std::vector<const char*>& addresses) {
  policy::Endpoint one;
  one.endpoint_namespace = "blue";
  one.name = name;
  for (const char* text : addresses) one.addresses.push_back(*IpAddr::parse(text));
  one.ports = {{"http", protocol::kTcp, kPodPort}};
  return one;
}

inline endpoints::Topology topology_of(std::vector<policy::Endpoint> pods) {
  endpoints::Topology topology;
  topology.cluster.endpoints = std::move(pods);
  return topology;
}

// A lab without tierlogd that ends with the test.
inline LabOptions quiet(const Scratch& scratch, const std::string& name = "lab") {
  LabOptions options;
  options.name = name;
  options.folder = scratch / name;
  options.life = LabOptions::Life::WithCaller;
  options.start_daemon = false;
  return options;
}

// All of the machine that a lab must not touch: mounts, links, named namespaces of this process.
inline std::string machine() {
  std::string text;
  std::ifstream mounts("/proc/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) text += line + "\n";
  std::error_code absent;
  for (const char* folder : {"/sys/class/net", "/run/netns", "/sys/fs/bpf"}) {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder, absent)) names.insert(entry.path());
    for (const auto& name : names) text += name + "\n";
  }
  return text;
}

// The pid namespace of a process, as a number.
inline ino_t pid_namespace(pid_t pid) {
  struct stat status {};
  return ::stat(("/proc/" + std::to_string(pid) + "/ns/pid").c_str(), &status) == 0 ? status.st_ino : 0;
}

// How many processes live in it (zombies have left their namespaces).
inline int processes_in(ino_t wanted) {
  int count = 0;
  std::error_code gone;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", gone)) {
    const int pid = std::atoi(entry.path().filename().c_str());
    if (pid > 0 && wanted != 0 && pid_namespace(pid) == wanted) ++count;
  }
  return count;
}

template <typename Condition>
bool eventually(const Condition& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return condition();
}

// The first process of the lab in this folder.
inline pid_t first_process(const std::string& folder) {
  std::ifstream file(folder + "/lab.json");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto at = text.find("\"pid\": ");
  return at == std::string::npos ? 0 : std::atoi(text.c_str() + at + 7);
}

}  // namespace tierlog::lab
