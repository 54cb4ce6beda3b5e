#include "store/told_rows.h"

#include "store/told_address.h"

namespace tierlog::store {
namespace {

ToldSide read_side(const sqlite::Statement& row, int column) {
  return {RuleId{static_cast<std::uint32_t>(row.integer(column))},
          {row.count(column + 1), row.count(column + 2), row.count(column + 3), row.count(column + 4)}};
}

ToldConnection read_connection(const sqlite::Statement& row) {
  constexpr int kEgress = 12;
  constexpr int kIngress = kEgress + 5;
  ToldConnection connection;
  connection.handle = row.integer(0);
  connection.source = address_of_bytes(row.blob(1));
  connection.destination = address_of_bytes(row.blob(2));
  connection.protocol = static_cast<std::uint8_t>(row.integer(3));
  connection.source_port = static_cast<std::uint16_t>(row.integer(4));
  connection.destination_port = static_cast<std::uint16_t>(row.integer(5));
  connection.icmp_type = static_cast<std::uint8_t>(row.integer(6));
  connection.icmp_code = static_cast<std::uint8_t>(row.integer(7));
  connection.icmp_id = static_cast<std::uint16_t>(row.integer(8));
  connection.conntrack_id = static_cast<std::uint32_t>(row.integer(9));
  connection.started = from_ns(row.integer(10));
  connection.told_until = from_ns(row.integer(11));
  connection.egress = read_side(row, kEgress);
  connection.ingress = read_side(row, kIngress);
  return connection;
}

}  // namespace

Result<ToldRows> ToldRows::open(sqlite::Database& database) {
  ToldRows made;
  TL_ASSIGN(
      made.put_connection_,
      database.prepare("INSERT OR REPLACE INTO open_connection(handle, proto, src_port, dst_port, icmp_type,"
                       " icmp_code, icmp_id, conntrack_id, started_ns, told_ns,"
                       " egress_rule, egress_packets_out, egress_bytes_out, egress_packets_in,"
                       " egress_bytes_in, ingress_rule, ingress_packets_out, ingress_bytes_out,"
                       " ingress_packets_in, ingress_bytes_in, src, dst)"
                       " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,"
                       " ?18, ?19, ?20, ?21, ?22)"));
  TL_ASSIGN(made.drop_connection_, database.prepare("DELETE FROM open_connection WHERE handle = ?1"));
  TL_ASSIGN(
      made.list_connections_,
      database.prepare("SELECT handle, src, dst, proto, src_port, dst_port, icmp_type, icmp_code, icmp_id,"
                       " conntrack_id, started_ns, told_ns, egress_rule, egress_packets_out,"
                       " egress_bytes_out, egress_packets_in, egress_bytes_in, ingress_rule,"
                       " ingress_packets_out, ingress_bytes_out, ingress_packets_in, ingress_bytes_in"
                       " FROM open_connection ORDER BY handle"));
  TL_ASSIGN(made.denied_, DeniedBlocks::open(database));
  return made;
}

Result<void> ToldRows::write_connection(const ToldConnection& c) {
  constexpr int kSource = 21;
  const Amounts& out = c.egress.amounts;
  const Amounts& in = c.ingress.amounts;
  put_connection_.bind(c.handle, c.protocol, c.source_port, c.destination_port, c.icmp_type, c.icmp_code,
                       c.icmp_id, c.conntrack_id, to_ns(c.started), to_ns(c.told_until),
                       number(c.egress.rule), out.packets_out, out.bytes_out, out.packets_in, out.bytes_in,
                       number(c.ingress.rule), in.packets_out, in.bytes_out, in.packets_in, in.bytes_in);
  put_connection_.bind_blob(kSource, sqlite::Borrowed{address_bytes(c.source)});
  put_connection_.bind_blob(kSource + 1, sqlite::Borrowed{address_bytes(c.destination)});
  return put_connection_.run();
}

Result<void> ToldRows::write(const ToldChanges& changes) {
  for (const std::int64_t handle : changes.ended) TL_TRY(drop_connection_.bind(handle).run());
  for (const ToldConnection& connection : changes.connections) TL_TRY(write_connection(connection));
  return denied_.write(changes.denied, changes.forgotten);
}

Result<Told> ToldRows::read() {
  Told told;
  list_connections_.reset();
  for (;;) {
    TL_ASSIGN(const bool row, list_connections_.step());
    if (!row) break;
    told.connections.push_back(read_connection(list_connections_));
  }
  list_connections_.reset();
  TL_ASSIGN(told.denied, denied_.read());
  return told;
}

}  // namespace tierlog::store
