// tests/store/sample.h - records, catalogs and a folder of their own for tests of the store.
#pragma once

#include <string>
#include <vector>

#include "store/catalog.h"
#include "store/flow_store.h"
#include "store/record.h"

namespace tierlog::store::sample {

inline constexpr RuleId kDenyRule{0x102};
inline constexpr RuleId kEndOfTier{0x103};
inline constexpr RuleId kAllowRule{0x104};
inline constexpr RuleId kPassRule{0x100};
inline constexpr RuleId kLogRule{0x101};

inline constexpr const char* kRestrict = "platform/tenant-01/tenant-01-restrict";
inline constexpr const char* kQuarantine = "security//quarantine";
inline constexpr const char* kIsolate = "platform/tenant-01/isolate";
inline constexpr const char* kTighten = "platform/tenant-01/tighten-db";

// A folder that is gone at the end of its life.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// 2026-11-21T20:14:07Z plus `seconds`.
WallTime at(int seconds);

Peer pod(const std::string& address, const std::string& pod_namespace, const std::string& name,
         const std::string& workload, policy::Labels labels = {});

// Every field set.
FlowRecord full_record();
// Every field that can be empty is.
FlowRecord sparse_record();
// web -> db 5432/tcp denied by ingress[2] of tenant-01-restrict.
FlowRecord denied();
// The same denied by the end of tier platform, which asked isolate and tenant-01-restrict.
FlowRecord denied_at_end();
// api -> db 5432/tcp allowed by ingress[1] of tenant-01-restrict.
FlowRecord allowed();
// A reserved id: nobody's policy.
FlowRecord without_policy();

// What the records above refer to.
Catalog catalog();

FlowStore open_store(const std::string& path);

}  // namespace tierlog::store::sample
