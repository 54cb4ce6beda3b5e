#include "store/flow_store.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "store/catalog_rows.h"
#include "store/damaged.h"
#include "store/files.h"
#include "store/flow_rows.h"
#include "store/history_rows.h"
#include "store/retention.h"
#include "store/rollups.h"
#include "store/schema.h"
#include "store/sqlite.h"
#include "store/tallies.h"
#include "store/told_rows.h"

namespace tierlog::store {
namespace {

// WAL and NORMAL: a batch survives the death of the process at once, that of the machine from the next
// checkpoint on.
constexpr const char* kSettings =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;"
    "PRAGMA temp_store = MEMORY;";

using Stopwatch = std::chrono::steady_clock;

// How much of the last second went into writing.
class WriteLoad {
 public:
  void add(Stopwatch::time_point from, Stopwatch::time_point to) {
    if (to - begun_ >= kSpan) {
      last_share_ = share(to - begun_);
      begun_ = from;
      spent_ = {};
    }
    spent_ += to - from;
  }
  bool is_busy(Stopwatch::time_point now) const {
    constexpr double kBusy = 0.7;
    const auto past = now - begun_;
    return past < kSpan ? last_share_ > kBusy : past < 2 * kSpan && share(past) > kBusy;
  }

 private:
  static constexpr std::chrono::seconds kSpan{1};
  double share(Stopwatch::duration of) const {
    return static_cast<double>(spent_.count()) / static_cast<double>(std::max<Stopwatch::rep>(1, of.count()));
  }
  Stopwatch::time_point begun_ = Stopwatch::now();
  Stopwatch::duration spent_{};
  double last_share_ = 0;
};

// A reader of the group cannot make -wal and -shm itself: they must stay when the last connection closes.
Result<void> keep_wal_files(sqlite::Database& database) {
  int on = 1;
  const int code = sqlite3_file_control(database.handle(), "main", SQLITE_FCNTL_PERSIST_WAL, &on);
  if (code != SQLITE_OK) return fail(sqlite::make_error(code, "keep -wal and -shm", sqlite3_errstr(code)));
  return {};
}

// Free pages can be given back only where the file was made for it: one of an older version is rewritten.
Result<void> make_shrinkable(sqlite::Database& database) {
  constexpr std::int64_t kIncremental = 2;
  TL_ASSIGN(const std::int64_t mode, database.integer("PRAGMA auto_vacuum"));
  if (mode == kIncremental) return {};
  return database.execute("PRAGMA auto_vacuum = INCREMENTAL; VACUUM;");
}

Result<sqlite::Database> open_database(const std::string& path) {
  TL_TRY(create_readable_file(path));
  TL_ASSIGN(auto database, sqlite::Database::open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  TL_TRY(refuse_foreign(database, path));
  TL_TRY(keep_wal_files(database));
  TL_TRY(database.execute("PRAGMA auto_vacuum = INCREMENTAL"));  // takes effect in an empty file
  TL_TRY(database.execute(kSettings));
  TL_TRY(migrate(database, path));
  TL_TRY(make_shrinkable(database));
  return database;
}

Result<void> write_origin(sqlite::Database& database, const Origin& origin) {
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  TL_TRY(write_meta(database, "cluster", origin.cluster));
  TL_TRY(write_meta(database, "node", origin.node));
  TL_TRY(database.execute("INSERT OR IGNORE INTO meta(key, value) VALUES ('identity', lower(hex(randomblob(16))))"));
  return transaction.commit();
}

constexpr const char* kPutNumber =
    "INSERT INTO meta(key, value) VALUES (?1, ?2) ON CONFLICT(key) DO UPDATE SET value = excluded.value";
constexpr std::int64_t kCaughtUpAtOnce = 65'536;
constexpr std::int64_t kRemovedAtOnce = 1000;
constexpr std::int64_t kPagesAtOnce = 64;
constexpr std::int64_t kEntriesCleanedAtOnce = 2000;
constexpr std::chrono::milliseconds kFoldBesideBatch{50};

}  // namespace

struct FlowStore::Impl {
  Impl(sqlite::Database opened, FlowRowWriter row_writer, FlowRowReader row_reader, Tallies sums,
       ToldRows told_rows, Rollups by_time, Retention limiter)
      : database(std::move(opened)),
        writer(std::move(row_writer)),
        reader(std::move(row_reader)),
        tallies(std::move(sums)),
        told(std::move(told_rows)),
        rollups(std::move(by_time)),
        retention(std::move(limiter)) {}
  // What is not rolled up yet is now: the next start need not look at it.
  ~Impl() {
    if (!state.damaged) static_cast<void>(roll_up());
  }

  std::string path;
  Origin origin;
  StoreOptions options;
  sqlite::Database database;  // before the statements below: they must be gone before it closes
  FlowRowWriter writer;
  FlowRowReader reader;
  Tallies tallies;
  ToldRows told;
  HistoryRows history;
  Rollups rollups;
  Retention retention;
  // Who asks for sums waits for no batch: a connection of its own, with SQLite's own lock.
  std::optional<sqlite::Database> reading;
  sqlite::Statement read_after, put_number;
  std::int64_t sequence = 0;         // of the newest row
  std::int64_t rolled_sequence = 0;  // up to which the roll-ups count
  std::int64_t records = 0;
  std::int64_t longest_span = 0;  // of all records ever written, ns
  StoreState state;
  WriteLoad load;
  Stopwatch::time_point rolled_at = Stopwatch::now(), cleaned_at = Stopwatch::now();

  static Result<std::unique_ptr<Impl>> open(const std::string& path, const Origin& origin,
                                            const StoreOptions& options);
  Result<void> prepare();
  Result<void> catch_up();
  template <typename Record>
  Result<void> write_batch(std::span<const Record> batch, const ToldChanges& changes);
  Result<void> roll_up();
  // Wide buckets of narrow ones, until that is done or the time is up; true when there is more to do.
  Result<bool> fold(Stopwatch::time_point end);
  // Removal that may not wait: a batch made the file larger than it may be.
  Result<void> make_room(std::int64_t rows);
  Result<void> require_room();
  // The -wal back to nothing where no reader is in the way; never waits.
  void shorten_log();
  Result<bool> maintain(WallTime now, Nanoseconds budget);
  Result<std::int64_t> remove(std::optional<WallTime> now, std::int64_t most);
  // Every result of writing goes through here.
  Result<void> note(Result<void> written);
  // `write` in a transaction of its own.
  template <typename Write>
  Result<void> write_by(const Write& write) {
    const auto attempt = [&]() -> Result<void> {
      TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
      TL_TRY(write());
      return transaction.commit();
    };
    return note(attempt());
  }
};

Result<std::unique_ptr<FlowStore::Impl>> FlowStore::Impl::open(const std::string& path, const Origin& origin,
                                                               const StoreOptions& options) {
  TL_ASSIGN(auto database, open_database(path));
  TL_TRY(write_origin(database, origin));
  TL_ASSIGN(auto writer, FlowRowWriter::open(database));
  TL_ASSIGN(auto reader, FlowRowReader::open(database));
  TL_ASSIGN(auto tallies, Tallies::open(database));
  TL_ASSIGN(auto told, ToldRows::open(database));
  TL_ASSIGN(auto rollups, Rollups::open(database));
  TL_ASSIGN(auto retention, Retention::open(database, path, options.limits));
  auto impl =
      std::make_unique<Impl>(std::move(database), std::move(writer), std::move(reader), std::move(tallies),
                             std::move(told), std::move(rollups), std::move(retention));
  impl->path = path;
  impl->origin = origin;
  impl->options = options;
  TL_TRY(impl->prepare());
  TL_ASSIGN(impl->reading, sqlite::Database::open(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_FULLMUTEX));
  return impl;
}

Result<void> FlowStore::Impl::prepare() {
  const std::int64_t log_pages = retention.log_pages();
  TL_ASSIGN(const std::int64_t page_bytes, database.integer("PRAGMA page_size"));
  // The second keeps the -wal file from staying as large as its largest burst.
  TL_TRY(database.execute("PRAGMA wal_autocheckpoint = " + std::to_string(log_pages) +
                          "; PRAGMA journal_size_limit = " + std::to_string(log_pages * page_bytes)));
  TL_ASSIGN(put_number, database.prepare(kPutNumber));
  TL_ASSIGN(read_after, database.prepare(std::string("SELECT ") + kFlowColumns +
                                         " FROM flow AS f WHERE f.seq > ?1 ORDER BY f.seq LIMIT ?2"));
  // From meta, not from the rows: sequences must ascend even after retention took the newest row.
  const std::string number = "SELECT CAST(value AS INTEGER) FROM meta WHERE key = ";
  TL_ASSIGN(sequence, database.integer(number + "'last_sequence'"));
  sequence = std::max(sequence, options.first_sequence);
  TL_ASSIGN(rolled_sequence, database.integer(number + "'rolled_sequence'"));
  TL_ASSIGN(longest_span, database.integer(number + "'longest_span_ns'"));
  TL_ASSIGN(records, count_rolled_records(database));
  return catch_up();
}

// Rows whose sums died with an earlier writer, or that an older version wrote.
Result<void> FlowStore::Impl::catch_up() {
  TL_ASSIGN(auto later, database.prepare(std::string("SELECT f.seq, ") + kRolledColumns +
                                         " FROM flow AS f WHERE f.seq > ?1 ORDER BY f.seq LIMIT ?2"));
  const std::int64_t newest = sequence;
  for (;;) {
    later.bind(rolled_sequence, kCaughtUpAtOnce);
    for (;;) {
      TL_ASSIGN(const bool row, later.step());
      if (!row) break;
      rollups.add(read_rolled_row(later, 1));
      sequence = later.integer(0);
    }
    later.reset();
    if (rollups.rows() == 0) break;
    records += rollups.rows();
    TL_TRY(roll_up());
  }
  sequence = std::max(sequence, newest);
  return {};
}

template <typename Record>
Result<void> FlowStore::Impl::write_batch(std::span<const Record> batch, const ToldChanges& changes) {
  std::vector<RolledRow> rows;
  rows.reserve(batch.size());
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  TL_TRY(writer.write(sequence, batch, rows));
  const std::int64_t next = sequence + static_cast<std::int64_t>(batch.size());
  std::int64_t span = longest_span;
  for (const RolledRow& row : rows) span = std::max(span, row.span_ns);
  for (const Record& record : batch) tallies.count(record);
  TL_TRY(tallies.flush());
  TL_TRY(told.write(changes));
  TL_TRY(put_number.bind(std::string_view("last_sequence"), std::to_string(next)).run());
  if (span > longest_span)
    TL_TRY(put_number.bind(std::string_view("longest_span_ns"), std::to_string(span)).run());
  TL_TRY(transaction.commit());
  sequence = next;
  longest_span = span;
  records += static_cast<std::int64_t>(batch.size());
  for (const RolledRow& row : rows) rollups.add(row);
  return {};
}

Result<void> FlowStore::Impl::roll_up() {
  if (rollups.rows() == 0) return {};
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  TL_TRY(rollups.write());
  TL_TRY(put_number.bind(std::string_view("rolled_sequence"), std::to_string(sequence)).run());
  TL_TRY(transaction.commit());
  rollups.clear();
  rolled_sequence = sequence;
  rolled_at = Stopwatch::now();
  return {};
}

Result<bool> FlowStore::Impl::fold(Stopwatch::time_point end) {
  for (;;) {
    TL_ASSIGN(const bool more, rollups.fold(database));
    if (!more || Stopwatch::now() >= end) return more;
  }
}

Result<std::int64_t> FlowStore::Impl::remove(std::optional<WallTime> now, std::int64_t most) {
  TL_ASSIGN(const std::int64_t gone, retention.remove(database, records, now, rolled_sequence, most));
  records -= gone;
  state.removed_records += static_cast<std::uint64_t>(gone);
  return gone;
}

void FlowStore::Impl::shorten_log() {
  sqlite3_busy_timeout(database.handle(), 0);
  static_cast<void>(
      sqlite3_wal_checkpoint_v2(database.handle(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr));
  sqlite3_busy_timeout(database.handle(), sqlite::kBusyTimeoutMs);
}

Result<void> FlowStore::Impl::make_room(std::int64_t rows) {
  if (options.limits.max_bytes == 0) return {};
  TL_ASSIGN(const FileSize file, retention.size(database));
  if (file.total_bytes() <= static_cast<std::int64_t>(options.limits.max_bytes)) return {};
  shorten_log();
  TL_TRY(roll_up());
  while (rows > 0) {
    TL_ASSIGN(const std::int64_t gone, remove(std::nullopt, std::min(rows, kRemovedAtOnce)));
    if (gone == 0) break;
    rows -= gone;
  }
  shorten_log();
  return {};
}

// The -wal cannot be written back while a reader needs it; then nothing makes the file smaller.
Result<void> FlowStore::Impl::require_room() {
  const auto most = static_cast<std::int64_t>(options.limits.max_bytes);
  if (most == 0) return {};
  TL_ASSIGN(const FileSize file, retention.size(database));
  if (file.total_bytes() <= most) return {};
  shorten_log();
  TL_ASSIGN(const FileSize then, retention.size(database));
  if (then.total_bytes() <= most || !retention.log_is_held(database, then)) return {};
  return fail(ErrorCode::Unavailable,
              path + " is as large as store.max_bytes allows, and a reader that does not end keeps " +
                  std::to_string(then.log_bytes >> 20) + " MiB of its -wal from being written back");
}

Result<void> FlowStore::Impl::note(Result<void> written) {
  if (written) {
    state.problem.clear();
    return written;
  }
  state.problem = written.error().message;
  state.damaged = state.damaged || written.error().code == ErrorCode::Corrupt;
  return written;
}

Result<bool> FlowStore::Impl::maintain(WallTime now, Nanoseconds budget) {
  const auto end = Stopwatch::now() + budget;
  const auto time_is_up = [end] { return Stopwatch::now() >= end; };
  if (Stopwatch::now() - rolled_at >= options.roll_up_within) TL_TRY(roll_up());
  // Whatever is taken away then makes the -wal longer first.
  TL_ASSIGN(const FileSize file, retention.size(database));
  if (options.limits.max_bytes > 0 && retention.log_is_held(database, file)) return false;
  for (;;) {
    TL_ASSIGN(const bool over, retention.is_over(database, records, now));
    if (!over) break;
    TL_TRY(roll_up());
    TL_ASSIGN(const std::int64_t gone, remove(now, kRemovedAtOnce));
    if (gone == 0) break;
    if (time_is_up()) return true;
  }
  bool more = false;
  if (Stopwatch::now() - cleaned_at >= options.clean_every) {
    TL_TRY(roll_up());
    TL_ASSIGN(const std::int64_t cleaned, retention.clean_dictionaries(database, kEntriesCleanedAtOnce));
    if (cleaned > 0) writer.forget();
    more = cleaned >= kEntriesCleanedAtOnce;
    TL_TRY(retention.clean_history(database, Nanoseconds(longest_span), now));
    if (!more) cleaned_at = Stopwatch::now();
    if (time_is_up()) return more;
  }
  for (;;) {
    TL_ASSIGN(const std::int64_t pages, retention.shrink(database, kPagesAtOnce));
    if (pages == 0) break;
    if (time_is_up()) return true;
  }
  TL_ASSIGN(const FileSize then, retention.size(database));
  if (options.limits.max_bytes > 0 &&
      then.total_bytes() > static_cast<std::int64_t>(options.limits.max_bytes))
    shorten_log();
  TL_ASSIGN(const bool folds, fold(end));
  return more || folds;
}

Result<FlowStore> FlowStore::open_writer(const std::string& path, const Origin& origin,
                                         const StoreOptions& options) {
  auto impl = Impl::open(path, origin, options);
  if (impl) return FlowStore(std::move(*impl));
  if (impl.error().code != ErrorCode::Corrupt || !options.replace_damaged || belongs_to_others(path))
    return fail(impl.error());
  TL_ASSIGN(std::string aside, keep_aside(path));
  TL_ASSIGN(auto fresh, Impl::open(path, origin, options));
  fresh->state.kept_aside = std::move(aside);
  return FlowStore(std::move(fresh));
}

Result<std::string> FlowStore::replace_damaged() {
  const std::lock_guard lock(*mutex_);
  StoreOptions options = impl_->options;
  options.first_sequence = std::max(options.first_sequence, impl_->sequence);
  const std::string path = impl_->path;
  const Origin origin = impl_->origin;
  StoreState before = impl_->state;
  TL_ASSIGN(const std::string aside, keep_aside(path));
  TL_ASSIGN(auto fresh, Impl::open(path, origin, options));
  impl_ = std::move(fresh);
  impl_->state.refused_batches = before.refused_batches;
  impl_->state.removed_records = before.removed_records;
  impl_->state.kept_aside = aside;
  return aside;
}

FlowStore::FlowStore(std::unique_ptr<Impl> impl)
    : mutex_(std::make_unique<std::mutex>()), impl_(std::move(impl)) {}
FlowStore::FlowStore(FlowStore&&) noexcept = default;
FlowStore& FlowStore::operator=(FlowStore&&) noexcept = default;
FlowStore::~FlowStore() = default;

template <typename Record>
Result<void> FlowStore::insert_batch(std::span<const Record> records, const ToldChanges& told) {
  const std::lock_guard lock(*mutex_);
  if (records.empty() && told.empty()) return {};
  const auto begun = Stopwatch::now();
  auto written = impl_->require_room();
  if (written) written = impl_->write_batch(records, told);
  if (!written) {
    impl_->writer.forget();
    impl_->tallies.forget();
    ++impl_->state.refused_batches;
    return impl_->note(std::move(written));
  }
  static_cast<void>(impl_->note({}));
  // The batch is in; what follows is done again later when it fails.
  if (impl_->rollups.rows() >= kMostUnrolled) {
    auto rolled = impl_->roll_up();
    if (const auto more = impl_->fold(Stopwatch::now() + kFoldBesideBatch); rolled && !more)
      rolled = tl::unexpected<Error>(more.error());
    static_cast<void>(impl_->note(std::move(rolled)));
  }
  static_cast<void>(impl_->note(impl_->make_room(2 * static_cast<std::int64_t>(records.size()))));
  impl_->load.add(begun, Stopwatch::now());
  return {};
}

Result<bool> FlowStore::maintain(WallTime now, Nanoseconds budget) {
  const std::lock_guard lock(*mutex_);
  auto more = impl_->maintain(now, budget);
  if (!more) static_cast<void>(impl_->note(tl::unexpected<Error>(more.error())));
  return more;
}

StoreState FlowStore::state() const {
  const std::lock_guard lock(*mutex_);
  StoreState state = impl_->state;
  if (!state.problem.empty())
    state.level = StoreState::Level::Refusing;
  else if (impl_->load.is_busy(Stopwatch::now()))
    state.level = StoreState::Level::Busy;
  state.records = static_cast<std::uint64_t>(impl_->records);
  state.max_bytes = impl_->options.limits.max_bytes;
  if (const auto size = impl_->retention.size(impl_->database))
    state.bytes = static_cast<std::uint64_t>(size->total_bytes());
  if (const auto oldest = impl_->retention.oldest()) state.oldest = *oldest;
  return state;
}

Result<void> FlowStore::insert(std::span<const FlowRecord> records, const ToldChanges& told) {
  return insert_batch(records, told);
}

Result<void> FlowStore::append(std::span<const FlowEntry> entries, const ToldChanges& told) {
  return insert_batch(entries, told);
}

Result<void> FlowStore::put_catalog(const Catalog& catalog) {
  const std::lock_guard lock(*mutex_);
  return impl_->write_by([&] { return write_catalog(impl_->database, catalog); });
}

Result<void> FlowStore::put_moment(const Moment& moment, const policy::Cluster& cluster,
                                   std::span<const KnownRule> rules) {
  const std::lock_guard lock(*mutex_);
  auto written = impl_->write_by([&] { return impl_->history.write(impl_->database, moment, cluster, rules); });
  if (!written) {
    impl_->history.forget();
    return written;
  }
  std::vector<std::string> local;
  for (const policy::Endpoint& endpoint : cluster.endpoints)
    if (endpoint.local && !endpoint.host_network)
      for (const IpAddr& address : endpoint.addresses) local.push_back(address.to_string());
  impl_->writer.add_local(local);
  return written;
}

Result<void> FlowStore::put_rules(std::span<const RuleRow> rules) {
  const std::lock_guard lock(*mutex_);
  return impl_->write_by([&] { return write_rules(impl_->database, rules); });
}

Result<void> FlowStore::put_counts(std::span<const RuleCount> counts, std::span<const LossCount> losses,
                                   WallTime at) {
  const std::lock_guard lock(*mutex_);
  return impl_->write_by([&] { return write_counts(impl_->database, counts, losses, at); });
}

Result<Told> FlowStore::told() {
  const std::lock_guard lock(*mutex_);
  TL_ASSIGN(auto told, impl_->told.read());
  TL_ASSIGN(const std::int64_t until, impl_->database.integer("SELECT coalesce(max(end_ns), 0) FROM flow"));
  told.until = from_ns(until);
  return told;
}

// Readers come upon damage that the writer's own cache hides.
template <typename T>
Result<T> FlowStore::note_read(Result<T> read) {
  if (!read && read.error().code == ErrorCode::Corrupt) {
    const std::lock_guard lock(*mutex_);
    static_cast<void>(impl_->note(tl::unexpected<Error>(read.error())));
  }
  return read;
}

Result<std::vector<RuleCount>> FlowStore::counted() {
  return note_read(read_counts(*impl_->reading));
}

Result<std::vector<RuleCount>> FlowStore::recorded() {
  return note_read(read_recorded(*impl_->reading));
}

Result<std::vector<StoredRecord>> FlowStore::read_after(std::int64_t sequence, std::size_t limit) {
  const std::lock_guard lock(*mutex_);
  return impl_->reader.read_all(impl_->read_after.bind(sequence, limit));
}

Result<RuleId> FlowStore::highest_rule_id() {
  const std::lock_guard lock(*mutex_);
  TL_ASSIGN(const std::int64_t highest,
            impl_->database.integer("SELECT max((SELECT coalesce(max(rule_id), 0) FROM rule_revision),"
                                    " (SELECT coalesce(max(rule_id), 0) FROM rule),"
                                    " (SELECT coalesce(max(rule_id), 0) FROM rule_key))"));
  return RuleId{static_cast<std::uint32_t>(highest)};
}

Result<std::int64_t> FlowStore::last_sequence() {
  const std::lock_guard lock(*mutex_);
  return impl_->sequence;
}

}  // namespace tierlog::store
