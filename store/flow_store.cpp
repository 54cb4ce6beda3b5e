#include "store/flow_store.h"

#include <mutex>
#include <utility>

#include "store/catalog_rows.h"
#include "store/files.h"
#include "store/flow_rows.h"
#include "store/history_rows.h"
#include "store/schema.h"
#include "store/sqlite.h"
#include "store/tallies.h"
#include "store/told_rows.h"

namespace tierlog::store {
namespace {

// WAL and NORMAL: a batch survives the death of the process at once, that of the machine from the next
// checkpoint on. The limits keep the -wal file from staying as large as its largest burst.
constexpr const char* kSettings =
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA cache_size = -16384;"
    "PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY;";

// A reader of the group cannot make -wal and -shm itself: they must stay when the last connection closes.
Result<void> keep_wal_files(sqlite::Database& database) {
  int on = 1;
  const int code = sqlite3_file_control(database.handle(), "main", SQLITE_FCNTL_PERSIST_WAL, &on);
  if (code != SQLITE_OK) return fail(sqlite::make_error(code, "keep -wal and -shm", sqlite3_errstr(code)));
  return {};
}

Result<sqlite::Database> open_database(const std::string& path) {
  TL_TRY(create_readable_file(path));
  TL_ASSIGN(auto database, sqlite::Database::open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX));
  TL_TRY(refuse_foreign(database, path));
  TL_TRY(keep_wal_files(database));
  TL_TRY(database.execute(kSettings));
  TL_TRY(migrate(database, path));
  return database;
}

}  // namespace

struct FlowStore::Impl {
  Impl(sqlite::Database opened, FlowRowWriter row_writer, FlowRowReader row_reader, Tallies sums,
       ToldRows told_rows)
      : database(std::move(opened)),
        writer(std::move(row_writer)),
        reader(std::move(row_reader)),
        tallies(std::move(sums)),
        told(std::move(told_rows)) {}

  sqlite::Database database;  // first: statements below must be gone before it closes
  FlowRowWriter writer;
  FlowRowReader reader;
  Tallies tallies;
  ToldRows told;
  HistoryRows history;
  sqlite::Statement read_after, put_sequence;
  std::int64_t sequence = 0;
  std::mutex mutex;

  template <typename Record>
  Result<void> write_batch(std::span<const Record> records, const ToldChanges& changes);
};

template <typename Record>
Result<void> FlowStore::Impl::write_batch(std::span<const Record> records, const ToldChanges& changes) {
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
  std::int64_t next = sequence;
  for (const Record& record : records) {
    TL_TRY(writer.write(++next, record));
    tallies.count(record);
  }
  TL_TRY(tallies.flush());
  TL_TRY(told.write(changes));
  TL_TRY(put_sequence.bind(std::to_string(next)).run());
  TL_TRY(transaction.commit());
  sequence = next;
  return {};
}

Result<FlowStore> FlowStore::open_writer(const std::string& path, const Origin& origin) {
  TL_ASSIGN(auto database, open_database(path));
  {
    TL_ASSIGN(auto transaction, sqlite::Transaction::begin(database));
    TL_TRY(write_meta(database, "cluster", origin.cluster));
    TL_TRY(write_meta(database, "node", origin.node));
    TL_TRY(transaction.commit());
  }
  TL_ASSIGN(auto writer, FlowRowWriter::open(database));
  TL_ASSIGN(auto reader, FlowRowReader::open(database));
  TL_ASSIGN(auto tallies, Tallies::open(database));
  TL_ASSIGN(auto told, ToldRows::open(database));
  auto impl = std::make_unique<Impl>(std::move(database), std::move(writer), std::move(reader),
                                     std::move(tallies), std::move(told));
  // From meta, not from the rows: sequences must ascend even after retention took the newest row.
  TL_ASSIGN(impl->sequence,
            impl->database.integer("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'last_sequence'"));
  TL_ASSIGN(impl->put_sequence,
            impl->database.prepare("INSERT INTO meta(key, value) VALUES ('last_sequence', ?1)"
                                   " ON CONFLICT(key) DO UPDATE SET value = excluded.value"));
  TL_ASSIGN(impl->read_after,
            impl->database.prepare(std::string("SELECT ") + kFlowColumns +
                                   " FROM flow AS f WHERE f.seq > ?1 ORDER BY f.seq LIMIT ?2"));
  return FlowStore(std::move(impl));
}

FlowStore::FlowStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FlowStore::FlowStore(FlowStore&&) noexcept = default;
FlowStore& FlowStore::operator=(FlowStore&&) noexcept = default;
FlowStore::~FlowStore() = default;

template <typename Record>
Result<void> FlowStore::insert_batch(std::span<const Record> records, const ToldChanges& told) {
  const std::lock_guard lock(impl_->mutex);
  if (records.empty() && told.empty()) return {};
  auto written = impl_->write_batch(records, told);
  if (!written) {
    impl_->writer.forget();
    impl_->tallies.forget();
  }
  return written;
}

Result<void> FlowStore::insert(std::span<const FlowRecord> records, const ToldChanges& told) {
  return insert_batch(records, told);
}

Result<void> FlowStore::append(std::span<const FlowEntry> entries, const ToldChanges& told) {
  return insert_batch(entries, told);
}

Result<void> FlowStore::put_catalog(const Catalog& catalog) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(impl_->database));
  TL_TRY(write_catalog(impl_->database, catalog));
  return transaction.commit();
}

Result<void> FlowStore::put_moment(const Moment& moment, const policy::Cluster& cluster,
                                   std::span<const KnownRule> rules) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(impl_->database));
  auto written = impl_->history.write(impl_->database, moment, cluster, rules);
  if (written) written = transaction.commit();
  if (!written) impl_->history.forget();
  return written;
}

Result<void> FlowStore::put_rules(std::span<const RuleRow> rules) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(impl_->database));
  TL_TRY(write_rules(impl_->database, rules));
  return transaction.commit();
}

Result<void> FlowStore::put_counts(std::span<const RuleCount> counts, std::span<const LossCount> losses,
                                   WallTime at) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto transaction, sqlite::Transaction::begin(impl_->database));
  TL_TRY(write_counts(impl_->database, counts, losses, at));
  return transaction.commit();
}

Result<Told> FlowStore::told() {
  const std::lock_guard lock(impl_->mutex);
  return impl_->told.read();
}

Result<std::vector<RuleCount>> FlowStore::counted() {
  const std::lock_guard lock(impl_->mutex);
  return read_counts(impl_->database);
}

Result<std::vector<RuleCount>> FlowStore::recorded() {
  const std::lock_guard lock(impl_->mutex);
  return impl_->tallies.recorded();
}

Result<std::vector<StoredRecord>> FlowStore::read_after(std::int64_t sequence, std::size_t limit) {
  const std::lock_guard lock(impl_->mutex);
  return impl_->reader.read_all(impl_->read_after.bind(sequence, limit));
}

namespace {

Result<std::optional<WallTime>> one_time(sqlite::Statement select) {
  TL_ASSIGN(const bool row, select.step());
  if (!row || select.is_null(0)) return std::optional<WallTime>{};
  return std::optional<WallTime>(from_ns(select.integer(0)));
}

}  // namespace

Result<std::optional<WallTime>> FlowStore::oldest() {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto select, impl_->database.prepare("SELECT min(end_ns) FROM flow"));
  return one_time(std::move(select));
}

Result<std::optional<WallTime>> FlowStore::time_of(std::int64_t sequence) {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(auto select,
            impl_->database.prepare("SELECT end_ns FROM flow WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1"));
  select.bind(sequence);
  return one_time(std::move(select));
}

Result<RuleId> FlowStore::highest_rule_id() {
  const std::lock_guard lock(impl_->mutex);
  TL_ASSIGN(const std::int64_t highest,
            impl_->database.integer("SELECT max((SELECT coalesce(max(rule_id), 0) FROM rule_revision),"
                                    " (SELECT coalesce(max(rule_id), 0) FROM rule),"
                                    " (SELECT coalesce(max(rule_id), 0) FROM rule_key))"));
  return RuleId{static_cast<std::uint32_t>(highest)};
}

Result<std::int64_t> FlowStore::last_sequence() {
  const std::lock_guard lock(impl_->mutex);
  return impl_->sequence;
}

}  // namespace tierlog::store
