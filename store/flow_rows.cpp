#include "store/flow_rows.h"

#include <array>
#include <utility>

namespace tierlog::store {
namespace {

constexpr std::size_t kUuidText = 36;

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

bool is_dash_place(std::size_t i) {
  return i == 8 || i == 13 || i == 18 || i == 23;
}

std::string uuid_text(std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    if (is_dash_place(text.size())) text += '-';
    text += kDigits[static_cast<unsigned char>(byte) >> 4];
    text += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return text;
}

std::string read_id(const sqlite::Statement& row, int column) {
  if (row.type(column) != SQLITE_BLOB) return row.text(column);
  return uuid_text(row.view(column));
}

template <typename T>
std::optional<std::int64_t> as_optional_int(const std::optional<T>& value) {
  if (!value) return std::nullopt;
  return static_cast<std::int64_t>(*value);
}

// In the order of FlowRowWriter::put.
constexpr const char* kInto =
    "flow(seq, id, end_ns, span_ns, reporter, direction, action, reason, rule, src, dst, proto, src_port, dst_port,"
    " icmp_type, icmp_code, logged_by, trace, staged, dst_service, connections, verdict_packets, packets_out,"
    " packets_in, bytes_out, bytes_in, tcp_flags, ct_state, end_reason, dst_nat_ip, dst_nat_port, src_nat_ip,"
    " src_nat_port)";
constexpr int kColumns = 33;
constexpr std::size_t kMostKnown = 65'536;

std::optional<std::int64_t> port_or_null(std::uint16_t port) {
  return port == 0 ? std::nullopt : std::optional<std::int64_t>(port);
}

std::optional<std::int64_t> reason_or_null(EndReason reason) {
  return reason == EndReason::None ? std::nullopt : std::optional(static_cast<std::int64_t>(reason));
}

std::string address_or_empty(const std::optional<IpAddr>& address) {
  return address ? address->to_string() : std::string();
}

std::int64_t as_sum(std::optional<std::uint64_t> value) {
  return static_cast<std::int64_t>(value.value_or(0));
}

}  // namespace

const char* const kFlowColumns =
    "f.seq, f.id, f.start_ns, f.end_ns, f.reporter, f.direction, f.action, f.reason, f.rule, f.src, f.dst, "
    "f.proto,"
    " f.src_port, f.dst_port, f.icmp_type, f.icmp_code, f.logged_by, f.trace, f.staged, f.dst_service,"
    " f.connections, f.verdict_packets, f.packets_out, f.packets_in, f.bytes_out, f.bytes_in, f.tcp_flags,"
    " f.ct_state, f.end_reason, f.dst_nat_ip, f.dst_nat_port, f.src_nat_ip, f.src_nat_port";

std::optional<std::string> uuid_bytes(std::string_view id) {
  if (id.size() != kUuidText) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < kUuidText;) {
    if (is_dash_place(i)) {
      if (id[i++] != '-') return std::nullopt;
      continue;
    }
    const int high = hex_digit(id[i]);
    const int low = hex_digit(id[i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes += static_cast<char>(high << 4 | low);
    i += 2;
  }
  return bytes;
}

Result<FlowRowWriter> FlowRowWriter::open(sqlite::Database& database) {
  TL_ASSIGN(Dictionary dictionary, Dictionary::open(database));
  TL_ASSIGN(RowInsertion one, RowInsertion::open(database, kInto, kColumns, 1));
  TL_ASSIGN(RowInsertion many, RowInsertion::open(database, kInto, kColumns, kRowsAtOnce));
  return FlowRowWriter(std::move(dictionary), std::move(one), std::move(many));
}

// What one record has and its likes have not.
struct FlowRowWriter::Own {
  WallTime start{}, end{};
  std::uint64_t verdict_packets = 0;
  std::optional<std::uint64_t> connections, packets_out, packets_in, bytes_out, bytes_in;
  std::optional<std::uint16_t> src_port, dst_port;
  std::string_view ct_state;
  EndReason end_reason{};
  const Translation* translation = nullptr;
  std::string_view dst_service;
  std::string_view id_bytes;  // else id_text
  std::string_view id_text;
};

Result<FlowRowWriter::References> FlowRowWriter::references(const FlowRecord& record) {
  References found;
  TL_ASSIGN(found.rule,
            dictionary_.reference(RuleRevision{record.rule, record.tier, record.policy, record.policy_kind,
                                               record.policy_namespace, record.policy_name, record.rule_index,
                                               record.policy_revision}));
  TL_ASSIGN(found.src, dictionary_.reference(record.src));
  TL_ASSIGN(found.dst, dictionary_.reference(record.dst));
  found.dst_is_local = dictionary_.is_local(found.dst);
  TL_ASSIGN(found.logged_by, dictionary_.reference(record.logged_by));
  TL_ASSIGN(found.trace, dictionary_.reference(record.trace));
  TL_ASSIGN(found.staged, dictionary_.reference(record.staged));
  return found;
}

RolledRow FlowRowWriter::put(const Place& place, std::int64_t sequence, const FlowRecord& like, const References& to,
                             const Own& own) {
  RowInsertion& into = place.insertion;
  const int row = place.row;
  int column = 0;
  const auto number = [&](auto value) { into.put(row, column++, static_cast<std::int64_t>(value)); };
  const auto number_or_null = [&](const auto& value) { into.put(row, column++, as_optional_int(value)); };
  const auto text_or_null = [&](std::string_view text) {
    if (text.empty())
      into.put_null(row, column++);
    else
      into.put_text(row, column++, text);
  };
  number(sequence);
  if (own.id_bytes.empty())
    into.put_text(row, column++, own.id_text);
  else
    into.put_blob(row, column++, own.id_bytes);
  number(to_ns(own.end));
  number(to_ns(own.end) - to_ns(own.start));
  number(like.reporter);
  number(like.direction);
  number(like.action);
  number(like.reason);
  number(to.rule);
  number(to.src);
  number(to.dst);
  number(like.proto);
  number_or_null(own.src_port);
  number_or_null(own.dst_port);
  number_or_null(like.icmp_type);
  number_or_null(like.icmp_code);
  number(to.logged_by);
  number(to.trace);
  number(to.staged);
  text_or_null(own.dst_service);
  number_or_null(own.connections);
  number(own.verdict_packets);
  number_or_null(own.packets_out);
  number_or_null(own.packets_in);
  number_or_null(own.bytes_out);
  number_or_null(own.bytes_in);
  text_or_null(like.tcp_flags);
  text_or_null(own.ct_state);
  number_or_null(reason_or_null(own.end_reason));
  static const Translation kNone{};
  const Translation& translation = own.translation == nullptr ? kNone : *own.translation;
  Texts& texts = texts_[static_cast<std::size_t>(row)];
  texts.destination = address_or_empty(translation.destination);
  texts.source = address_or_empty(translation.source);
  text_or_null(texts.destination);
  number_or_null(port_or_null(translation.destination_port));
  text_or_null(texts.source);
  number_or_null(port_or_null(translation.source_port));
  return RolledRow{to_ns(own.end),
                   to_ns(own.end) - to_ns(own.start),
                   static_cast<int>(like.action),
                   like.action == Verdict::Allow && like.reporter == Reporter::Source && to.dst_is_local
                       ? kToldAgain
                       : static_cast<int>(like.reporter),
                   to.rule,
                   to.src,
                   to.dst,
                   {to.logged_by, to.trace, to.staged},
                   {1, as_sum(own.connections), as_sum(own.verdict_packets),
                    as_sum(own.packets_out                ? own.packets_out
                           : like.action == Verdict::Deny ? own.verdict_packets
                                                          : std::uint64_t{0}),
                    as_sum(own.packets_in), as_sum(own.bytes_out), as_sum(own.bytes_in)}};
}

Result<RolledRow> FlowRowWriter::put(const Place& place, std::int64_t sequence, const FlowRecord& record) {
  TL_ASSIGN(const References to, references(record));
  std::string& id = texts_[static_cast<std::size_t>(place.row)].id;
  id = uuid_bytes(record.id).value_or(std::string());
  return put(place, sequence, record, to,
             {record.start, record.end, record.verdict_packets, record.connections, record.packets_out,
              record.packets_in, record.bytes_out, record.bytes_in, record.src_port, record.dst_port, record.ct_state,
              record.end_reason, record.translation ? &*record.translation : nullptr, record.dst_service, id, record.id});
}

Result<RolledRow> FlowRowWriter::put(const Place& place, std::int64_t sequence, const FlowEntry& entry) {
  auto known = known_.find(entry.like.get());
  if (known == known_.end()) {
    TL_ASSIGN(const References made, references(*entry.like));
    if (known_.size() >= kMostKnown) known_.clear();
    known = known_.emplace(entry.like.get(), Known{entry.like, made}).first;
  }
  References to = known->second.references;
  if (entry.suppressed) {
    TL_ASSIGN(to.logged_by, dictionary_.reference(to_record(entry).logged_by));
  }
  const FlowRecord& like = *entry.like;
  const std::string_view service =
      entry.translation ? std::string_view(entry.translation->service) : like.dst_service;
  return put(place, sequence, like, to,
             {entry.start,
              entry.end,
              entry.verdict_packets,
              entry.connections,
              entry.packets_out,
              entry.packets_in,
              entry.bytes_out,
              entry.bytes_in,
              entry.src_port,
              entry.dst_port,
              name(entry.state),
              entry.end_reason,
              entry.translation.get(),
              service,
              {reinterpret_cast<const char*>(entry.id.data()), entry.id.size()},
              {}});
}

template <typename Record>
Result<void> FlowRowWriter::write(std::int64_t sequence, std::span<const Record> records, std::vector<RolledRow>& into) {
  while (!records.empty()) {
    RowInsertion& insertion = records.size() >= static_cast<std::size_t>(many_.rows()) ? many_ : one_;
    for (int row = 0; row < insertion.rows(); ++row) {
      TL_ASSIGN(const RolledRow rolled, put({insertion, row}, ++sequence, records[static_cast<std::size_t>(row)]));
      into.push_back(rolled);
    }
    TL_TRY(insertion.run());
    records = records.subspan(static_cast<std::size_t>(insertion.rows()));
  }
  return {};
}

template Result<void> FlowRowWriter::write(std::int64_t, std::span<const FlowRecord>, std::vector<RolledRow>&);
template Result<void> FlowRowWriter::write(std::int64_t, std::span<const FlowEntry>, std::vector<RolledRow>&);

void FlowRowWriter::add_local(const std::vector<std::string>& addresses) {
  if (dictionary_.add_local(addresses)) known_.clear();
}

void FlowRowWriter::forget() {
  dictionary_.forget();
  known_.clear();
}

Result<FlowRowReader> FlowRowReader::open(sqlite::Database& database) {
  TL_ASSIGN(DictionaryReader dictionary, DictionaryReader::open(database));
  return FlowRowReader(std::move(dictionary));
}

Result<StoredRecord> FlowRowReader::read(const sqlite::Statement& row) {
  StoredRecord stored;
  stored.sequence = row.integer(0);
  FlowRecord& record = stored.record;
  record.id = read_id(row, 1);
  record.start = from_ns(row.integer(2));
  record.end = from_ns(row.integer(3));
  record.reporter = static_cast<Reporter>(row.integer(4));
  record.direction = static_cast<Direction>(row.integer(5));
  record.action = static_cast<Verdict>(row.integer(6));
  record.reason = static_cast<Reason>(row.integer(7));
  TL_ASSIGN(const RuleRevision* rule, dictionary_.rule(row.integer(8)));
  record.rule = rule->rule;
  record.tier = rule->tier;
  record.policy = rule->policy;
  record.policy_kind = rule->policy_kind;
  record.policy_namespace = rule->policy_namespace;
  record.policy_name = rule->policy_name;
  record.rule_index = rule->rule_index;
  record.policy_revision = rule->policy_revision;
  TL_ASSIGN(const Peer* src, dictionary_.peer(row.integer(9)));
  record.src = *src;
  TL_ASSIGN(const Peer* dst, dictionary_.peer(row.integer(10)));
  record.dst = *dst;
  record.proto = static_cast<std::uint8_t>(row.integer(11));
  record.src_port = row.optional<std::uint16_t>(12);
  record.dst_port = row.optional<std::uint16_t>(13);
  record.icmp_type = row.optional<std::uint8_t>(14);
  record.icmp_code = row.optional<std::uint8_t>(15);
  TL_ASSIGN(const auto* logged_by, dictionary_.logged_by(row.integer(16)));
  record.logged_by = *logged_by;
  TL_ASSIGN(const auto* trace, dictionary_.trace(row.integer(17)));
  record.trace = *trace;
  TL_ASSIGN(const auto* staged, dictionary_.staged(row.integer(18)));
  record.staged = *staged;
  record.dst_service = row.text(19);
  record.connections = row.optional<std::uint64_t>(20);
  record.verdict_packets = row.count(21);
  record.packets_out = row.optional<std::uint64_t>(22);
  record.packets_in = row.optional<std::uint64_t>(23);
  record.bytes_out = row.optional<std::uint64_t>(24);
  record.bytes_in = row.optional<std::uint64_t>(25);
  record.tcp_flags = row.text(26);
  record.ct_state = row.text(27);
  record.end_reason = static_cast<EndReason>(row.optional<std::uint8_t>(28).value_or(0));
  Translation translation{IpAddr::parse(row.view(29)), IpAddr::parse(row.view(31)),
                          row.optional<std::uint16_t>(30).value_or(0),
                          row.optional<std::uint16_t>(32).value_or(0), record.dst_service};
  if (translation.destination || translation.source) record.translation = std::move(translation);
  return stored;
}

Result<std::vector<StoredRecord>> FlowRowReader::read_all(sqlite::Statement& statement) {
  std::vector<StoredRecord> records;
  for (;;) {
    TL_ASSIGN(const bool row, statement.step());
    if (!row) break;
    TL_ASSIGN(StoredRecord record, read(statement));
    records.push_back(std::move(record));
  }
  statement.reset();
  return records;
}

}  // namespace tierlog::store
