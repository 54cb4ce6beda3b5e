// store/dictionary.h - values that many records share, as small integers: what the writer looks up.
//
//   FlowRecord --[Dictionary]--> references of a row in table flow --[DictionaryReader]--> FlowRecord
//
// Both remember what they saw in memory (bounded), so that a usual record costs no look-up in the file.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/result.h"
#include "store/record.h"
#include "store/sqlite.h"

namespace tierlog::store {

// The deciding rule with the names of its time: one row of rule_revision.
struct RuleRevision {
  RuleId rule{};
  std::string tier, policy, policy_kind, policy_namespace, policy_name;
  std::optional<int> rule_index;
  std::uint32_t policy_revision = 0;

  bool operator==(const RuleRevision&) const = default;
};

// Not noexcept: libstdc++'s tables then keep each hash beside its key and compare it before the key.
struct DictionaryHash {
  std::size_t operator()(const RuleRevision& value) const;
  std::size_t operator()(const Peer& value) const;
  std::size_t operator()(const std::vector<LoggedBy>& value) const;
  std::size_t operator()(const std::vector<TraceEntry>& value) const;
  std::size_t operator()(const std::vector<StagedVerdict>& value) const;
};

template <typename T>
using ReferenceCache = std::unordered_map<T, std::int64_t, DictionaryHash>;

// Gives references, adding rows where needed; the caller holds the transaction.
class Dictionary {
 public:
  static Result<Dictionary> open(sqlite::Database& database);

  Result<std::int64_t> reference(const RuleRevision& value);
  Result<std::int64_t> reference(const Peer& value);
  // Of a reference that was given: it is a pod of this node, so that what is sent to it is told by its own
  // view, too.
  bool is_local(std::int64_t peer) const { return local_peers_.contains(peer); }
  Result<std::int64_t> reference(const std::vector<LoggedBy>& value);
  Result<std::int64_t> reference(const std::vector<TraceEntry>& value);
  Result<std::int64_t> reference(const std::vector<StagedVerdict>& value);
  // After a rollback: rows that were remembered may not be there.
  void forget();
  // Of pods of this node, beside those in the history of endpoints. A peer is what it was when it was first
  // written: one that comes to this node later is another peer. True: some were not known, and all is
  // forgotten.
  bool add_local(const std::vector<std::string>& addresses);

 private:
  Result<std::int64_t> text_reference(const std::string& value);
  Result<std::int64_t> find_or_insert(sqlite::Statement& find, sqlite::Statement& insert);
  Result<bool> has_local(const std::string& address);

  sqlite3* handle_ = nullptr;  // borrowed
  sqlite::Statement local_addresses_of_history_;
  std::optional<std::unordered_set<std::string>> local_addresses_;  // read when first needed
  std::unordered_set<std::int64_t> local_peers_;                    // among those that are remembered
  sqlite::Statement find_text_, insert_text_, find_peer_, insert_peer_, find_rule_, insert_rule_;
  ReferenceCache<RuleRevision> rules_;
  ReferenceCache<Peer> peers_;
  ReferenceCache<std::vector<LoggedBy>> logged_by_;
  ReferenceCache<std::vector<TraceEntry>> traces_;
  ReferenceCache<std::vector<StagedVerdict>> staged_;
};

// Resolves references. What it hands out by pointer holds until the next call of the same function.
class DictionaryReader {
 public:
  static Result<DictionaryReader> open(sqlite::Database& database);

  Result<const RuleRevision*> rule(std::int64_t reference);
  Result<const Peer*> peer(std::int64_t reference);
  Result<const std::vector<LoggedBy>*> logged_by(std::int64_t reference);
  Result<const std::vector<TraceEntry>*> trace(std::int64_t reference);
  Result<const std::vector<StagedVerdict>*> staged(std::int64_t reference);

 private:
  Result<std::string> text(std::int64_t reference);
  template <typename T>
  Result<const std::vector<T>*> list(std::unordered_map<std::int64_t, std::vector<T>>& cache,
                                     std::int64_t reference,
                                     Result<std::vector<T>> (*parse)(std::string_view));

  sqlite::Statement text_, peer_, rule_;
  std::unordered_map<std::int64_t, RuleRevision> rules_;
  std::unordered_map<std::int64_t, Peer> peers_;
  std::unordered_map<std::int64_t, std::vector<LoggedBy>> logged_by_;
  std::unordered_map<std::int64_t, std::vector<TraceEntry>> traces_;
  std::unordered_map<std::int64_t, std::vector<StagedVerdict>> staged_;
};

}  // namespace tierlog::store
