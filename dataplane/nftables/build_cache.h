// dataplane/nftables/build_cache.h - what building one Program gave, for the next one that says the same.
//
//   build_program --[BuildCache]--> the next build_program
//
// A class whose rules and sets are as before is not built again; nor are the elements of a set whose members
// are. Copies share their memory (base/shared_vector.h), so that a comparison of old and new is one of pointers.
#pragma once

#include <iterator>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "dataplane/nftables/build.h"
#include "dataplane/nftables/content.h"

namespace tierlog::dataplane::nftables {

// A set of the Program that chains look up, by its key: numbers differ from Program to Program.
struct LookedUp {
  std::string key;
  Family family{};
  bool ports = false;  // of Program::port_sets
};

struct BuiltClass {
  std::string first;  // the chain that judges the class
  TableObjects objects;
  std::vector<RuleId> counters;
  std::vector<LookedUp> looked_up;
  // Sets whose members are part of the objects, and what they were.
  std::vector<std::string> grouped;
  Content grouped_members = 0;
  bool used = false;
};

struct BuildCache {
  struct Members {
    Content content = 0;
    SharedVector<Element> elements;
    bool used = false;
  };
  std::unordered_map<Content, BuiltClass> classes;  // by what they say, members of sets apart
  std::unordered_map<std::string, Members> sets;    // by name without version

  // Forgets what the latest build did not use.
  void end_build() {
    const auto drop_unused = [](auto& kept) {
      for (auto entry = kept.begin(); entry != kept.end();)
        entry = std::exchange(entry->second.used, false) ? std::next(entry) : kept.erase(entry);
    };
    drop_unused(classes);
    drop_unused(sets);
  }
};

}  // namespace tierlog::dataplane::nftables
