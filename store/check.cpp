#include "store/check.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <limits>
#include <map>
#include <unordered_map>

#include "store/damaged.h"
#include "store/flow_store.h"
#include "store/rollups.h"
#include "store/schema.h"
#include "store/sqlite.h"

namespace tierlog::store {
namespace {

constexpr std::int64_t kRowsBetweenProgress = 100'000;
constexpr int kMostFindings = 20;  // of one kind
constexpr std::int64_t kPagesAtOnce = 256;


class Check {
 public:
  Check(sqlite::Database& database, const CheckProgress& progress)
      : database_(database), progress_(progress) {}

  Result<CheckReport> run() {
    TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(database_, "DEFERRED"));
    TL_TRY(integrity());
    if (!report_.damage.empty()) return report_;  // nothing that is read from here on could be believed
    TL_ASSIGN(rolled_,
              database_.integer("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'rolled_sequence'"));
    TL_ASSIGN(eroded_, database_.integer("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'eroded_ns'"));
    TL_TRY(sizes());
    TL_TRY(references());
    TL_TRY(dictionary("peer", Referred::Peer, peers_, 0));
    TL_TRY(dictionary("text", Referred::Text, texts_, kEmptyText));
    for (const RollupTable& table : kRollupTables) TL_TRY(rollups(table));
    return report_;
  }

 private:
  void damage(std::string what) { report_.damage.push_back(std::move(what)); }

  Result<void> integrity() {
    progress_("structure of the file", 0);
    TL_ASSIGN(auto check, database_.prepare("PRAGMA integrity_check(" + std::to_string(kMostFindings) + ")"));
    for (;;) {
      const auto row = check.step();
      if (!row && row.error().code == ErrorCode::Corrupt) {
        damage(row.error().message);
        return {};
      }
      if (!row) return fail(row.error());
      if (!*row) return {};
      if (check.view(0) != "ok") damage(check.text(0));
    }
  }

  Result<void> sizes() {
    TL_ASSIGN(const std::int64_t page, database_.integer("PRAGMA page_size"));
    TL_ASSIGN(report_.bytes, database_.integer("PRAGMA page_count"));
    TL_ASSIGN(report_.free_bytes, database_.integer("PRAGMA freelist_count"));
    TL_ASSIGN(report_.peers, database_.integer("SELECT count(*) FROM peer"));
    TL_ASSIGN(report_.texts, database_.integer("SELECT count(*) FROM text"));
    report_.bytes *= page;
    report_.free_bytes *= page;
    return {};
  }

  Result<std::unordered_map<std::int64_t, bool>> ids_of(const std::string& table) {
    std::unordered_map<std::int64_t, bool> ids;
    TL_ASSIGN(auto select, database_.prepare("SELECT id FROM " + table));
    for (;;) {
      TL_ASSIGN(const bool row, select.step());
      if (!row) return ids;
      ids.emplace(select.integer(0), true);
    }
  }

  // One pass over all records: what they refer to must be there, and is counted on the way.
  Result<void> references() {
    TL_ASSIGN(const auto rules, ids_of("rule_revision"));
    TL_ASSIGN(const auto peers, ids_of("peer"));
    TL_ASSIGN(const auto texts, ids_of("text"));
    TL_ASSIGN(const std::int64_t first, database_.integer("SELECT min(seq) FROM flow"));
    TL_ASSIGN(const std::int64_t last, database_.integer("SELECT max(seq) FROM flow"));
    TL_ASSIGN(auto select, database_.prepare(std::string("SELECT f.seq, ") + kRolledColumns +
                                             " FROM flow AS f ORDER BY f.seq"));
    std::int64_t dangling = 0;
    const auto require = [&](const auto& known, const char* table, std::int64_t id, std::int64_t sequence) {
      if (known.count(id) > 0) return;
      if (++dangling <= kMostFindings)
        damage("record " + std::to_string(sequence) + " refers to row " + std::to_string(id) + " of " +
               table + ", which is not there");
    };
    for (;;) {
      TL_ASSIGN(const bool more, select.step());
      if (!more) break;
      const std::int64_t sequence = select.integer(0);
      const RolledRow row = read_rolled_row(select, 1);
      require(rules, "rule_revision", row.rule, sequence);
      for (const std::int64_t peer : {row.src, row.dst}) require(peers, "peer", peer, sequence);
      for (const std::int64_t text : row.texts) require(texts, "text", text, sequence);
      if (report_.records++ % kRowsBetweenProgress == 0)
        progress_("references of records", static_cast<double>(sequence - first) /
                                               static_cast<double>(std::max<std::int64_t>(1, last - first)));
      if (sequence > rolled_) continue;
      ++report_.rolled_records;
      for (const std::int64_t peer : {row.src, row.dst}) ++peers_.at(peer);
      for (const std::int64_t text : row.texts) ++texts_.at(text);
    }
    if (dangling > kMostFindings)
      damage(std::to_string(dangling - kMostFindings) + " more references find no row");
    return {};
  }

  Result<void> dictionary(const std::string& table, Referred of, Uses& counted, std::int64_t except) {
    TL_ASSIGN(auto uses, ReferenceUses::open(database_));
    TL_ASSIGN(const auto said_uses, uses.read(of));
    TL_ASSIGN(auto select, database_.prepare("SELECT id FROM " + table));
    int wrong = 0;
    for (;;) {
      TL_ASSIGN(const bool row, select.step());
      if (!row) return {};
      const std::int64_t id = select.integer(0);
      const std::int64_t* const found = counted.find(id);
      const auto said = said_uses.find(id);
      const std::int64_t are = found == nullptr ? 0 : *found;
      const std::int64_t told = said == said_uses.end() ? 0 : said->second;
      if (id == except || are == told || ++wrong > kMostFindings) continue;
      damage("row " + std::to_string(id) + " of " + table + " is said to be used " + std::to_string(told) + " times; " +
             std::to_string(are) + " references of records are there");
    }
  }

  Result<void> rollups(const RollupTable& table) {
    TL_ASSIGN(const RollupReach reach, read_rollup_reach(database_, table));
    const std::string name = table.name;
    TL_ASSIGN(auto minutes, prepare_rollup_scan(database_, table));
    std::int64_t sum = 0;
    for (const int action : {0, 1})
      for (int view = 0; view < kRollupViews; ++view) {
        minutes.bind(kMinuteNs / kRollupSecondNs, action, view, std::numeric_limits<std::int64_t>::min(),
                     std::numeric_limits<std::int64_t>::max());
        TL_TRY(scan_rollups(minutes, kMinuteNs, [&sum](std::int64_t, const KeySums& entry) { sum += entry.sums[0]; }));
      }
    if (sum != report_.rolled_records)
      damage(name + " counts " + std::to_string(sum) + " records; " + std::to_string(report_.rolled_records) +
             " are there");
    for (std::size_t level = 0; level < kRollupLevels; ++level) TL_TRY(rollup(table, kRollupWidths[level], reach[level]));
    return {};
  }

  using SumsByKey = std::map<std::array<std::int64_t, 4>, KeySums>;  // action, view, peer, rule

  static Result<SumsByKey> sums_of_rows(sqlite::Statement& rows) {
    SumsByKey sums;
    for (;;) {
      TL_ASSIGN(const bool more, rows.step());
      if (!more) return sums;
      KeySums& sum = sums[{rows.integer(0), rows.integer(1), rows.integer(2), rows.integer(3)}];
      sum.first_ns = rows.integer(4);
      sum.last_ns = rows.integer(5);
      for (std::size_t i = 0; i < kRollupSums; ++i) sum.sums[i] = rows.integer(static_cast<int>(i) + 6);
    }
  }

  static Result<SumsByKey> sums_kept(sqlite::Statement& kept, std::int64_t width_ns, std::int64_t bucket) {
    SumsByKey sums;
    for (const int action : {0, 1})
      for (int view = 0; view < kRollupViews; ++view) {
        kept.bind(width_ns / kRollupSecondNs, action, view, bucket, bucket + 1);
        TL_TRY(scan_rollups(kept, width_ns, [&](std::int64_t, const KeySums& entry) {
          sums[{action, view, entry.peer, entry.rule}] = entry;
        }));
      }
    return sums;
  }

  // Bucket by bucket, so that neither side needs memory for more; wide ones count what ended before `until`.
  Result<void> rollup(const RollupTable& table, std::int64_t width_ns, std::int64_t until) {
    const std::string width = std::to_string(width_ns), seconds = std::to_string(width_ns / kRollupSecondNs);
    const std::string name = std::string(table.name) + " of width " + seconds;
    const char* peer = table.peer == RollupPeer::Source ? "f.src" : table.peer == RollupPeer::Target ? "f.dst" : "0";
    TL_ASSIGN(auto rows, database_.prepare(
        std::string("SELECT action, iif(action = 0 AND reporter = 0 AND (SELECT local FROM peer WHERE peer.id = f.dst), 2,"
                    " reporter) AS view, ") + peer + " AS peer, rule, min(f.end_ns - f.span_ns), max(f.end_ns),"
        " count(*), sum(coalesce(connections, 0)), sum(verdict_packets),"
        " sum(coalesce(f.packets_out, iif(f.action = 1, f.verdict_packets, 0))),"
        " sum(coalesce(packets_in, 0)), sum(coalesce(bytes_out, 0)), sum(coalesce(bytes_in, 0))"
        " FROM flow AS f INDEXED BY flow_end WHERE f.end_ns >= ?1 * " +
        width + " AND f.end_ns < min((?1 + 1) * " + width + ", " + std::to_string(until) + ") AND +f.seq <= " +
        std::to_string(rolled_) + " GROUP BY action, view, peer, rule"));
    TL_ASSIGN(auto kept, prepare_rollup_scan(database_, table));
    // Of the minutes before `until`, and those that are there: a bucket that is missing is found, too.
    const std::string wanted = "SELECT DISTINCT bucket FROM (SELECT bucket FROM " + std::string(table.name) +
                               " WHERE width = " + seconds + " UNION ALL SELECT bucket / " +
                               std::to_string(width_ns / kMinuteNs) + " FROM " + table.name +
                               " WHERE width = 60 AND bucket < " + std::to_string(until / kMinuteNs) + ")";
    TL_ASSIGN(auto buckets, database_.prepare(wanted));
    TL_ASSIGN(const std::int64_t count, database_.integer("SELECT count(*) FROM (" + wanted + ")"));
    std::int64_t done = 0;
    int wrong = 0;
    for (;;) {
      TL_ASSIGN(const bool more, buckets.step());
      if (!more) return {};
      progress_("sums in " + name,
                static_cast<double>(done++) / static_cast<double>(std::max<std::int64_t>(1, count)));
      TL_ASSIGN(const auto of_rows, sums_of_rows(rows.bind(buckets.integer(0))));
      TL_ASSIGN(const auto of_kept, sums_kept(kept, width_ns, buckets.integer(0)));
      // Times of records that are gone are no fault.
      const bool with_times = buckets.integer(0) * width_ns > eroded_;
      const bool same = std::equal(of_rows.begin(), of_rows.end(), of_kept.begin(), of_kept.end(),
                                   [with_times](const auto& a, const auto& b) {
                                     return a.first == b.first && a.second.sums == b.second.sums &&
                                            (!with_times || (a.second.first_ns == b.second.first_ns &&
                                                             a.second.last_ns == b.second.last_ns));
                                   });
      if (!same && ++wrong <= kMostFindings)
        damage(name + " is not the sum of the records that ended in the bucket of " +
               format_rfc3339(from_ns(buckets.integer(0) * width_ns)));
    }
  }

  sqlite::Database& database_;
  const CheckProgress& progress_;
  CheckReport report_;
  std::int64_t rolled_ = 0, eroded_ = 0;
  Uses peers_, texts_;
};

std::int64_t file_bytes(const std::string& path) {
  std::int64_t bytes = 0;
  for (const char* suffix : {"", "-wal"}) {
    struct stat status {};
    if (::stat((path + suffix).c_str(), &status) == 0) bytes += status.st_size;
  }
  return bytes;
}

bool begins_as_sqlite(const std::string& path) {
  constexpr std::string_view kMagic("SQLite format 3\0", 16);
  char head[kMagic.size()] = {};
  std::ifstream(path, std::ios::binary).read(head, sizeof head);
  return std::string_view(head, sizeof head) == kMagic;
}

Result<void> require_file(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) return {};
  if (errno == ENOENT) return fail(ErrorCode::NotFound, "no flow index at " + path);
  return fail(Error::from_errno(errno, "open", path));
}

}  // namespace

Result<CheckReport> check_flow_index(const std::string& path, const CheckProgress& progress) {
  TL_TRY(require_file(path));
  TL_ASSIGN(auto database, sqlite::Database::open(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX));
  if (auto ours = refuse_foreign(database, path); !ours) {
    // Its head says SQLite, and nobody else's: ours, and not whole.
    if (ours.error().code != ErrorCode::Corrupt || !begins_as_sqlite(path) || belongs_to_others(path))
      return fail(ours.error());
    CheckReport damaged;
    damaged.damage.push_back(ours.error().message);
    return damaged;
  }
  TL_TRY(check_schema(database, path));
  TL_TRY(database.execute("PRAGMA query_only = ON; PRAGMA cache_size = -65536"));
  auto report = Check(database, progress).run();
  // What SQLite finds while reading is a finding too.
  if (!report && report.error().code == ErrorCode::Corrupt) {
    CheckReport damaged;
    damaged.damage.push_back(report.error().message);
    return damaged;
  }
  return report;
}

Result<Compacted> compact_flow_index(const std::string& path, bool rewrite, const CheckProgress& progress) {
  TL_TRY(require_file(path));
  Compacted compacted;
  compacted.bytes_before = file_bytes(path);
  TL_ASSIGN(auto database, sqlite::Database::open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  TL_TRY(check_schema(database, path));
  int on = 1;
  sqlite3_file_control(database.handle(), "main", SQLITE_FCNTL_PERSIST_WAL, &on);
  if (rewrite) {
    progress("the file anew", 0);
    TL_TRY(database.execute("VACUUM"));
  } else {
    TL_ASSIGN(const std::int64_t all, database.integer("PRAGMA freelist_count"));
    for (std::int64_t free = all; free > 0;) {
      progress("free pages", 1 - static_cast<double>(free) / static_cast<double>(all));
      TL_TRY(database.execute("PRAGMA incremental_vacuum(" + std::to_string(kPagesAtOnce) + ")"));
      TL_ASSIGN(const std::int64_t left, database.integer("PRAGMA freelist_count"));
      if (left >= free) break;  // a writer makes new ones as fast
      free = left;
    }
  }
  // Fails beside readers; the daemon does it later then.
  static_cast<void>(
      sqlite3_wal_checkpoint_v2(database.handle(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr));
  compacted.bytes_after = file_bytes(path);
  return compacted;
}

}  // namespace tierlog::store
