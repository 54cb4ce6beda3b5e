#include "store/retention.h"

#include <sys/stat.h>

#include <algorithm>
#include <vector>

namespace tierlog::store {
namespace {

constexpr std::int64_t kLogPages = 4000;
constexpr std::int64_t kLeastLogPages = 64;
// Beside the -wal of its usual length: a batch that is longer, and what comes until the next look. An eighth
// of the limit, but for small ones, where a batch is a large part, up to a half.
constexpr std::int64_t kMostReserve = 192LL << 20;
constexpr std::int64_t kLeastReserve = 16LL << 20;
constexpr std::int64_t kReserveShare = 8;
constexpr std::int64_t kPageBytes = 4096;
// Free pages are used again before the file grows; only many of them are worth moving others for.
constexpr std::int64_t kFreeShare = 8;
constexpr std::int64_t kFewFreePages = 256;

std::int64_t bytes_of(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? status.st_size : 0;
}

Result<std::int64_t> number_of(sqlite::Statement& pragma) {
  pragma.reset();
  TL_ASSIGN(const bool row, pragma.step());
  const std::int64_t value = row ? pragma.integer(0) : 0;
  pragma.reset();
  return value;
}

}  // namespace

Result<Retention> Retention::open(sqlite::Database& database, const std::string& path,
                                  const StoreLimits& limits) {
  Retention made;
  made.path_ = path;
  made.limits_ = limits;
  TL_ASSIGN(made.removed_, Rollups::open(database));
  TL_ASSIGN(made.page_count_, database.prepare("PRAGMA page_count"));
  TL_ASSIGN(made.free_count_, database.prepare("PRAGMA freelist_count"));
  TL_ASSIGN(made.page_size_, database.prepare("PRAGMA page_size"));
  TL_ASSIGN(made.oldest_, database.prepare("SELECT min(end_ns) FROM flow"));
  const std::string select = std::string("SELECT f.seq, ") + kRolledColumns + " FROM flow AS f ";
  TL_ASSIGN(made.first_, database.prepare(select + "WHERE f.seq <= ?1 ORDER BY f.seq LIMIT ?2"));
  TL_ASSIGN(made.older_, database.prepare(select + "INDEXED BY flow_end WHERE f.end_ns < ?3 AND +f.seq <= ?1"
                                                   " ORDER BY f.end_ns LIMIT ?2"));
  TL_ASSIGN(made.remove_row_, database.prepare("DELETE FROM flow WHERE seq = ?1"));
  TL_ASSIGN(made.erode_,
            database.prepare("UPDATE meta SET value = CAST(?1 AS TEXT) WHERE key = 'eroded_ns' AND"
                             " CAST(value AS INTEGER) < ?1"));
  TL_ASSIGN(made.drop_peer_, database.prepare("DELETE FROM peer WHERE id = ?1"));
  TL_ASSIGN(made.drop_text_, database.prepare("DELETE FROM text WHERE id = ?1"));
  TL_ASSIGN(made.uses_, ReferenceUses::open(database));
  return made;
}

Result<FileSize> Retention::size(sqlite::Database&) {
  FileSize size;
  TL_ASSIGN(size.page_bytes, number_of(page_size_));
  TL_ASSIGN(size.pages, number_of(page_count_));
  TL_ASSIGN(size.free_pages, number_of(free_count_));
  size.log_bytes = bytes_of(path_ + "-wal") + bytes_of(path_ + "-shm");
  return size;
}

std::int64_t Retention::allowed_bytes() const {
  const auto most = static_cast<std::int64_t>(limits_.max_bytes);
  if (most == 0) return 0;
  return most - std::max(std::min(most / kReserveShare, kMostReserve), std::min(most / 2, kLeastReserve));
}

std::int64_t Retention::log_pages() const {
  const auto most = static_cast<std::int64_t>(limits_.max_bytes);
  if (most == 0) return kLogPages;
  return std::clamp(most / (4 * kReserveShare) / kPageBytes, kLeastLogPages, kLogPages);
}

bool Retention::log_is_held(sqlite::Database& database, const FileSize& file) const {
  const std::int64_t long_log = 4 * log_pages();
  if (file.log_bytes <= long_log * file.page_bytes) return false;
  int in_log = 0;
  int written_back = 0;
  static_cast<void>(sqlite3_wal_checkpoint_v2(database.handle(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &in_log,
                                              &written_back));
  return in_log > long_log && written_back < in_log;
}

Result<std::optional<WallTime>> Retention::oldest() {
  oldest_.reset();
  TL_ASSIGN(const bool row, oldest_.step());
  std::optional<WallTime> found;
  if (row && !oldest_.is_null(0)) found = from_ns(oldest_.integer(0));
  oldest_.reset();
  return found;
}

Result<bool> Retention::is_over(sqlite::Database& database, std::int64_t records,
                                std::optional<WallTime> now) {
  if (limits_.max_rows > 0 && records > static_cast<std::int64_t>(limits_.max_rows)) return true;
  if (limits_.max_bytes > 0 && records > 0) {
    TL_ASSIGN(const FileSize file, size(database));
    if (file.used_bytes() > allowed_bytes()) return true;
  }
  if (!limits_.max_age || !now) return false;
  TL_ASSIGN(const auto first, oldest());
  return first && *first < *now - *limits_.max_age;
}

Result<std::int64_t> Retention::remove(sqlite::Database& database, std::int64_t records,
                                       std::optional<WallTime> now, std::int64_t rolled_sequence,
                                       std::int64_t most) {
  std::int64_t wanted = 0;
  if (limits_.max_rows > 0)
    wanted = std::max<std::int64_t>(0, records - static_cast<std::int64_t>(limits_.max_rows));
  if (limits_.max_bytes > 0) {
    TL_ASSIGN(const FileSize file, size(database));
    if (file.used_bytes() > allowed_bytes()) wanted = most;
  }
  if (wanted > 0) {
    first_.bind(rolled_sequence, std::min(wanted, most));
    return remove_rows(database, first_);
  }
  if (!limits_.max_age || !now) return 0;
  older_.bind(rolled_sequence, most, to_ns(*now - *limits_.max_age));
  return remove_rows(database, older_);
}

Result<std::int64_t> Retention::remove_rows(sqlite::Database& database, sqlite::Statement& select) {
  removed_.clear();
  std::vector<std::int64_t> sequences;
  std::int64_t newest = -1;
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) break;
    sequences.push_back(select.integer(0));
    const RolledRow gone = read_rolled_row(select, 1);
    newest = std::max(newest, gone.end_ns);
    removed_.take_away(gone);
  }
  select.reset();
  for (const std::int64_t sequence : sequences) TL_TRY(remove_row_.bind(sequence).run());
  TL_TRY(removed_.write());
  TL_TRY(erode_.bind(newest).run());
  TL_TRY(transaction.commit());
  removed_.clear();
  return static_cast<std::int64_t>(sequences.size());
}

Result<std::int64_t> Retention::clean_dictionaries(sqlite::Database& database, std::int64_t most) {
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  TL_ASSIGN(const auto peers, uses_.take_unused(Referred::Peer, most));
  for (const std::int64_t peer : peers) TL_TRY(drop_peer_.bind(peer).run());
  TL_ASSIGN(const auto texts, uses_.take_unused(Referred::Text, most));
  for (const std::int64_t text : texts) TL_TRY(drop_text_.bind(text).run());
  TL_TRY(transaction.commit());
  return static_cast<std::int64_t>(peers.size() + texts.size());
}

Result<void> Retention::clean_history(sqlite::Database& database, Nanoseconds longest_span, WallTime now) {
  TL_ASSIGN(const auto first, oldest());
  if (!first && !limits_.max_age) return {};
  const std::int64_t needed_from = to_ns(first ? *first - longest_span : now - *limits_.max_age);
  if (needed_from <= cleaned_to_) return {};
  const std::int64_t before = sqlite3_total_changes64(database.handle());
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  // A set is in force until the next one.
  for (const char* sql :
       {"DELETE FROM policy_set WHERE since_ns <= ?1 AND id <"
        " (SELECT max(later.id) FROM policy_set AS later WHERE later.since_ns <= ?1)",
        "DELETE FROM object_history WHERE until_ns <= ?1",
        "DELETE FROM rule_key WHERE rule_id IN (SELECT rule.rule_id FROM rule WHERE rule.gone_ns <= ?1)"}) {
    TL_ASSIGN(auto remove, database.prepare(sql));
    TL_TRY(remove.bind(needed_from).run());
  }
  if (sqlite3_total_changes64(database.handle()) > before)
    TL_TRY(
        database.execute("DELETE FROM policy_text WHERE id NOT IN"
                         " (SELECT file.value ->> 1 FROM policy_set, json_each(policy_set.files) AS file)"));
  TL_TRY(transaction.commit());
  cleaned_to_ = needed_from;
  return {};
}

Result<std::int64_t> Retention::shrink(sqlite::Database& database, std::int64_t most) {
  TL_ASSIGN(const FileSize file, size(database));
  const bool many = file.free_pages > std::max(kFewFreePages, file.pages / kFreeShare);
  const bool too_large = allowed_bytes() > 0 && file.pages * file.page_bytes > allowed_bytes();
  if (file.free_pages == 0 || (!many && !too_large)) return 0;
  const std::int64_t pages = std::min(most, file.free_pages);
  TL_TRY(database.execute("PRAGMA incremental_vacuum(" + std::to_string(pages) + ")"));
  return pages;
}

}  // namespace tierlog::store
