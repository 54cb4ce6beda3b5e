#include "store/query.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "store/denied_query.h"
#include "store/filter_sql.h"
#include "store/reader.h"
#include "store/schema.h"
#include "store/sightings.h"

namespace tierlog::store {
namespace {

// A flow as the kernel's deny set counts it, plus what the record says it was. CROSS JOIN keeps the flow
// table in front: the others are looked up by reference.
constexpr const char* kGroups =
    "SELECT max(f.seq), min(f.start_ns), max(f.end_ns) AS last_ns, count(*), sum(f.verdict_packets),"
    " coalesce(sum(f.bytes_out), 0), coalesce(sum(f.connections), 0)"
    " FROM flow AS f CROSS JOIN peer AS s ON s.id = f.src CROSS JOIN peer AS d ON d.id = f.dst"
    " CROSS JOIN rule_revision AS r ON r.id = f.rule WHERE ";
constexpr const char* kGroupBy =
    " GROUP BY f.reporter, f.direction, s.ip, d.ip, f.dst_port, f.proto, f.icmp_type, f.icmp_code, r.rule_id";

// More rules than this are not looked for one by one.
constexpr std::size_t kMostRules = 256;

// Where a record with a UUIDv7 id is looked for first: it was made soon after its end.
constexpr std::int64_t kIdWindowNs = 600'000'000'000;

std::string flows_sql(const FlowQuery& query, const std::string& where, const std::string& limit) {
  const std::string select = std::string("SELECT ") + kFlowColumns + " FROM flow AS f WHERE ";
  // Who follows or exports must see every record once, whatever the wall clock did: by sequence.
  if (query.oldest_first || query.after_sequence > 0)
    return select + where + " ORDER BY f.seq LIMIT " + limit;
  // The newest are chosen within an index; only they are read. The + keeps the outer query from walking it.
  return select + "f.seq IN (SELECT f.seq FROM flow AS f WHERE " + where +
         " ORDER BY f.end_ns DESC, f.seq DESC LIMIT " + limit + ") ORDER BY +f.end_ns DESC, f.seq DESC";
}

std::string groups_order(const FlowQuery& query) {
  const std::string way = query.oldest_first ? " ASC" : " DESC";
  return " ORDER BY last_ns" + way + ", max(f.seq)" + way;
}

std::int64_t limit_of(const FlowQuery& query) {
  return query.limit == 0 ? -1 : static_cast<std::int64_t>(query.limit);
}

Error no_right(const std::string& path) {
  return {ErrorCode::Io, "no right to read " + path + "; expected root or a member of its group (usually tierlog)", EACCES};
}

Result<void> check_readable(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0) {
    if (::access(path.c_str(), R_OK) != 0 && errno == EACCES) return fail(no_right(path));
    return {};
  }
  if (errno == ENOENT) return fail(ErrorCode::NotFound, "no flow index at " + path);
  if (errno == EACCES) return fail(no_right(path));
  return fail(Error::from_errno(errno, "open", path));
}

std::int64_t milliseconds_of_uuid7(const std::string& bytes) {
  std::int64_t value = 0;
  for (std::size_t i = 0; i < 6; ++i) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

}  // namespace

Result<FlowReader> FlowReader::open(const std::string& path) {
  TL_TRY(check_readable(path));
  TL_ASSIGN(auto database, sqlite::Database::open(path, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX));
  TL_TRY(check_schema(database, path));
  TL_TRY(database.execute("PRAGMA query_only = ON"));
  TL_TRY(register_functions(database));
  TL_ASSIGN(auto rows, FlowRowReader::open(database));
  return FlowReader(std::make_unique<Impl>(std::move(database), std::move(rows)));
}

FlowReader::FlowReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
FlowReader::FlowReader(FlowReader&&) noexcept = default;
FlowReader& FlowReader::operator=(FlowReader&&) noexcept = default;
FlowReader::~FlowReader() = default;

// The newest denied records of few rules: each rule is one stretch of an index, read from its end.
Result<std::optional<std::vector<StoredRecord>>> FlowReader::Impl::denied_page(const FlowQuery& query,
                                                                               const Origin& here) {
  const auto split = as_denied_query(query);
  if (!split || split->rules.filters.empty() || query.limit == 0) return std::nullopt;
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(database, "DEFERRED"));
  DeniedRange range;
  TL_ASSIGN(range.rules, chosen_rules(database, *split, here));
  if (range.rules.size() > kMostRules) return std::nullopt;
  TL_ASSIGN(const WhereClause where, WhereClause::of(split->others, here));
  range.since = query.since;
  range.until = query.until;
  range.limit = query.limit;
  range.where = &where;
  TL_ASSIGN(const auto sequences, newest_denied(database, range));
  return records_of(sequences);
}

Result<std::vector<StoredRecord>> FlowReader::Impl::records_of(const std::vector<std::int64_t>& sequences) {
  TL_ASSIGN(auto select,
            database.prepare(std::string("SELECT ") + kFlowColumns + " FROM flow AS f WHERE f.seq = ?1"));
  std::vector<StoredRecord> records;
  for (const std::int64_t sequence : sequences) {
    TL_TRY(select.bind(sequence).step());
    TL_ASSIGN(StoredRecord record, rows.read(select));
    records.push_back(std::move(record));
    select.reset();
  }
  return records;
}

// The newest records of some peers or rules: only the minutes are read in which there were any.
Result<std::optional<std::vector<StoredRecord>>> FlowReader::Impl::sighted_page(const FlowQuery& query,
                                                                                const Origin& here) {
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(database, "DEFERRED"));
  TL_ASSIGN(const auto sequences, newest_sighted(database, query, here));
  if (!sequences) return std::nullopt;
  return records_of(*sequences);
}

Result<std::vector<StoredRecord>> FlowReader::flows(const FlowQuery& query) {
  TL_ASSIGN(const Origin here, impl_->origin());
  TL_ASSIGN(auto page, impl_->denied_page(query, here));
  if (page) return std::move(*page);
  TL_ASSIGN(page, impl_->sighted_page(query, here));
  if (page) return std::move(*page);
  TL_ASSIGN(WhereClause where, WhereClause::of(query, here));
  const std::string limit = where.add(limit_of(query));
  TL_ASSIGN(auto select, impl_->database.prepare(flows_sql(query, where.sql(), limit)));
  where.bind(select);
  return impl_->rows.read_all(select);
}

Result<std::int64_t> FlowReader::last_sequence() {
  return impl_->database.integer("SELECT coalesce(max(seq), 0) FROM flow");
}

Result<std::string> FlowReader::identity() {
  TL_ASSIGN(auto text, impl_->meta("identity"));
  return text.value_or("");
}

Result<std::int64_t> FlowReader::last_written() {
  return impl_->database.integer("SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'last_sequence'");
}

Result<std::optional<WallTime>> FlowReader::time_of(std::int64_t sequence) {
  TL_ASSIGN(auto select,
            impl_->database.prepare("SELECT end_ns FROM flow WHERE seq <= ?1 ORDER BY seq DESC LIMIT 1"));
  TL_ASSIGN(const bool row, select.bind(sequence).step());
  if (!row) return std::optional<WallTime>{};
  return std::optional<WallTime>(from_ns(select.integer(0)));
}

// Sums of denied flows from the index of denied records alone.
Result<std::optional<std::vector<FlowGroup>>> FlowReader::Impl::denied_sums(const FlowQuery& query,
                                                                            const Origin& here) {
  const auto split = as_denied_query(query);
  if (!split || !split->indexed) return std::nullopt;
  DeniedRange range;
  TL_ASSIGN(range.rules, chosen_rules(database, *split, here));
  TL_ASSIGN(const WhereClause where, WhereClause::of(split->others, here));
  range.since = query.since;
  range.until = query.until;
  range.limit = query.limit;
  range.where = &where;
  TL_ASSIGN(const auto sums, denied_groups(database, range));
  std::vector<FlowGroup> found;
  for (const DeniedGroup& sum : sums)
    found.push_back({{},
                     from_ns(sum.first_ns),
                     from_ns(sum.last_ns),
                     sqlite::as_count(sum.records),
                     sqlite::as_count(sum.packets),
                     sqlite::as_count(sum.bytes),
                     0,
                     sum.newest});
  return found;
}

Result<std::vector<FlowGroup>> FlowReader::Impl::sums_of_rows(const FlowQuery& query, WhereClause where) {
  const std::string limit = where.add(limit_of(query));
  TL_ASSIGN(auto groups,
            database.prepare(kGroups + where.sql() + kGroupBy + groups_order(query) + " LIMIT " + limit));
  where.bind(groups);
  std::vector<FlowGroup> found;
  for (;;) {
    TL_ASSIGN(const bool row, groups.step());
    if (!row) return found;
    found.push_back({{},
                     from_ns(groups.integer(1)),
                     from_ns(groups.integer(2)),
                     groups.count(3),
                     groups.count(4),
                     groups.count(5),
                     groups.count(6),
                     groups.integer(0)});
  }
}

Result<std::vector<FlowGroup>> FlowReader::grouped_flows(const FlowQuery& query, bool from_rows) {
  TL_ASSIGN(const Origin here, impl_->origin());
  // One snapshot: the newest records are read after the sums.
  TL_ASSIGN(auto snapshot, sqlite::Transaction::begin(impl_->database, "DEFERRED"));
  std::optional<std::vector<FlowGroup>> found;
  std::optional<WhereClause> where;
  if (!from_rows && names_peers(query)) {
    TL_ASSIGN(where, where_if_rare(impl_->database, query, here));
  }
  if (!from_rows && !where) {
    TL_ASSIGN(found, impl_->denied_sums(query, here));
  }
  if (!found) {
    if (!where) {
      TL_ASSIGN(where, from_rows ? WhereClause::of(query, here) : where_sighted(impl_->database, query, here));
    }
    TL_ASSIGN(found, impl_->sums_of_rows(query, std::move(*where)));
  }
  TL_ASSIGN(auto newest, impl_->database.prepare(std::string("SELECT ") + kFlowColumns +
                                                 " FROM flow AS f WHERE f.seq = ?1"));
  for (FlowGroup& group : *found) {
    TL_TRY(newest.bind(group.sequence).step());
    TL_ASSIGN(StoredRecord record, impl_->rows.read(newest));
    newest.reset();
    group.newest = std::move(record.record);
  }
  return std::move(*found);
}

Result<std::optional<FlowRecord>> FlowReader::record(const std::string& id) {
  const std::string select = std::string("SELECT ") + kFlowColumns + " FROM flow AS f WHERE f.id = ?1";
  const auto bytes = uuid_bytes(id);
  const auto find = [&](const std::string& sql) -> Result<std::vector<StoredRecord>> {
    TL_ASSIGN(auto statement, impl_->database.prepare(sql));
    if (bytes) {
      statement.bind_blob(1, *bytes);
    } else {
      statement.bind_at(1, std::string_view(id));
    }
    return impl_->rows.read_all(statement);
  };
  std::vector<StoredRecord> found;
  if (bytes) {
    const std::int64_t made = milliseconds_of_uuid7(*bytes) * 1'000'000;
    TL_ASSIGN(found, find(select + " AND f.end_ns BETWEEN " + std::to_string(made - kIdWindowNs) + " AND " +
                          std::to_string(made + kIdWindowNs)));
  }
  if (found.empty()) {
    TL_ASSIGN(found, find(select));
  }
  if (found.empty()) return std::nullopt;
  return std::move(found.front().record);
}

Result<void> FlowReader::scan(const FlowQuery& query, const std::function<void(const ScannedFlow&)>& take) {
  TL_ASSIGN(const Origin here, impl_->origin());
  TL_ASSIGN(const WhereClause where, where_sighted(impl_->database, query, here));
  TL_ASSIGN(auto select,
            impl_->database.prepare(
                "SELECT f.seq, f.start_ns, f.end_ns, f.reporter, f.direction, f.action, f.reason, f.rule,"
                " f.src, f.dst, f.proto, coalesce(f.src_port, -1), coalesce(f.dst_port, -1),"
                " coalesce(f.icmp_type, -1), coalesce(f.icmp_code, -1), coalesce(f.connections, 0),"
                " f.verdict_packets, coalesce(f.packets_out, 0), coalesce(f.packets_in, 0),"
                " coalesce(f.bytes_out, 0), coalesce(f.bytes_in, 0), coalesce(f.end_reason, 0)"
                " FROM flow AS f WHERE " +
                where.sql()));
  where.bind(select);
  ScannedFlow flow;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return {};
    flow.sequence = select.integer(0);
    flow.start_ns = select.integer(1);
    flow.end_ns = select.integer(2);
    flow.reporter = static_cast<Reporter>(select.integer(3));
    flow.direction = static_cast<Direction>(select.integer(4));
    flow.action = static_cast<Verdict>(select.integer(5));
    flow.reason = static_cast<Reason>(select.integer(6));
    flow.rule = select.integer(7);
    flow.src = select.integer(8);
    flow.dst = select.integer(9);
    flow.proto = static_cast<std::uint8_t>(select.integer(10));
    flow.src_port = static_cast<std::int32_t>(select.integer(11));
    flow.dst_port = static_cast<std::int32_t>(select.integer(12));
    flow.icmp_type = static_cast<std::int16_t>(select.integer(13));
    flow.icmp_code = static_cast<std::int16_t>(select.integer(14));
    flow.connections = select.count(15);
    flow.verdict_packets = select.count(16);
    flow.packets_out = select.count(17);
    flow.packets_in = select.count(18);
    flow.bytes_out = select.count(19);
    flow.bytes_in = select.count(20);
    flow.bytes = flow.bytes_out + flow.bytes_in;
    flow.end_reason = static_cast<EndReason>(select.integer(21));
    take(flow);
  }
}

Result<Peer> FlowReader::peer(std::int64_t reference) {
  TL_ASSIGN(const Peer* found, impl_->rows.dictionary().peer(reference));
  return *found;
}

Result<RuleNames> FlowReader::rule_names(std::int64_t reference) {
  TL_ASSIGN(const RuleRevision* found, impl_->rows.dictionary().rule(reference));
  return RuleNames{found->rule, found->tier, found->policy, found->policy_kind, found->policy_namespace};
}

Result<FlowRecord> FlowReader::record_at(std::int64_t sequence) {
  TL_ASSIGN(auto select, impl_->database.prepare(std::string("SELECT ") + kFlowColumns +
                                                 " FROM flow AS f WHERE f.seq = ?1"));
  TL_ASSIGN(const bool row, select.bind(sequence).step());
  if (!row) return fail(ErrorCode::NotFound, "record " + std::to_string(sequence) + " is not kept any more");
  TL_ASSIGN(StoredRecord stored, impl_->rows.read(select));
  return std::move(stored.record);
}

std::string FlowReader::path() const {
  const char* name = sqlite3_db_filename(impl_->database.handle(), "main");
  return name == nullptr ? "" : name;
}

Result<Origin> FlowReader::origin() {
  return impl_->origin();
}

Result<std::optional<std::string>> FlowReader::Impl::meta(const std::string& key) {
  TL_ASSIGN(auto select, database.prepare("SELECT value FROM meta WHERE key = ?1"));
  TL_ASSIGN(const bool row, select.bind(key).step());
  if (!row) return std::nullopt;
  return select.text(0);
}

Result<Origin> FlowReader::Impl::origin() {
  TL_ASSIGN(const auto cluster, meta("cluster"));
  TL_ASSIGN(const auto node, meta("node"));
  return Origin{cluster.value_or(""), node.value_or("")};
}

Result<std::vector<std::string>> FlowReader::Impl::texts(const std::string& sql) {
  TL_ASSIGN(auto select, database.prepare(sql));
  std::vector<std::string> found;
  for (;;) {
    TL_ASSIGN(const bool row, select.step());
    if (!row) return found;
    found.push_back(select.text(0));
  }
}

}  // namespace tierlog::store
