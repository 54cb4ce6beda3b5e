#include "exporters/fluentbit/forward_sink.h"

#include <array>
#include <optional>

#include "exporters/fluentbit/connection.h"
#include "exporters/fluentbit/forward_codec.h"

namespace tierlog::exporters::fluentbit {

struct ForwardSink::Impl {
  struct Chunk {
    std::string id;
    std::string message;
    std::size_t records = 0;
  };

  ForwardOptions options;
  store::Origin origin;
  std::optional<Connection> connection;

  Result<Chunk> fill_chunk(std::span<const store::StoredRecord> records) const;
  Result<void> connect();
  Result<void> deliver(const Chunk& chunk);
  Result<void> await_ack(const Chunk& chunk, Deadline deadline);
  std::string target() const;
};

std::string ForwardSink::Impl::target() const {
  const bool is_v6 = options.host.find(':') != std::string::npos;
  return "forward to " + (is_v6 ? "[" + options.host + "]" : options.host) + ":" +
         std::to_string(options.port);
}

Result<ForwardSink::Impl::Chunk> ForwardSink::Impl::fill_chunk(
    std::span<const store::StoredRecord> records) const {
  Chunk chunk;
  chunk.id = make_chunk_id();
  const std::size_t envelope = envelope_bytes(options.tag, chunk.id);
  std::string entries;
  for (const store::StoredRecord& stored : records) {
    const std::size_t before = entries.size();
    append_entry(entries, stored.record, origin);
    if (entries.size() + envelope > options.max_chunk_bytes) {
      entries.resize(before);
      break;
    }
    ++chunk.records;
  }
  if (chunk.records == 0)
    return fail(ErrorCode::InvalidArgument, "record " + records.front().record.id +
                                                " is too large for a chunk; at most " +
                                                std::to_string(options.max_chunk_bytes) + " bytes fit one");
  chunk.message = wrap_entries(options.tag, entries, chunk.records, chunk.id);
  return chunk;
}

Result<void> ForwardSink::Impl::connect() {
  // A receiver that went away while nothing was sent is no lost chunk: take a new connection.
  if (connection && connection->is_quiet()) return {};
  connection.reset();
  TL_ASSIGN(connection,
            Connection::open(options.host, options.port, std::chrono::steady_clock::now() + options.timeout));
  return {};
}

Result<void> ForwardSink::Impl::await_ack(const Chunk& chunk, Deadline deadline) {
  AckReader reader(chunk.id);
  std::array<char, 512> buffer{};
  while (true) {
    TL_ASSIGN(const std::size_t got, connection->receive(buffer, deadline));
    switch (reader.feed({buffer.data(), got})) {
      case AckReader::State::NeedMore:
        continue;
      case AckReader::State::Acknowledged:
        return {};
      case AckReader::State::AcknowledgedWithExcess:
        // What follows would be taken for the next chunk's answer.
        connection.reset();
        return {};
      case AckReader::State::Wrong:
        return fail(ErrorCode::Unavailable, "the receiver's answer is no ack of the chunk that was sent");
    }
  }
}

Result<void> ForwardSink::Impl::deliver(const Chunk& chunk) {
  TL_TRY(connect());
  const Deadline deadline = std::chrono::steady_clock::now() + options.timeout;
  TL_TRY(connection->send_all(chunk.message, deadline));
  return await_ack(chunk, deadline);
}

ForwardSink::ForwardSink(ForwardOptions options, store::Origin origin)
    : impl_(std::make_unique<Impl>(Impl{std::move(options), std::move(origin), std::nullopt})) {}
ForwardSink::ForwardSink(ForwardSink&&) noexcept = default;
ForwardSink& ForwardSink::operator=(ForwardSink&&) noexcept = default;
ForwardSink::~ForwardSink() = default;

Result<std::size_t> ForwardSink::send(std::span<const store::StoredRecord> records) {
  if (records.empty()) return std::size_t{0};
  TL_ASSIGN(const Impl::Chunk chunk, impl_->fill_chunk(records));
  if (Result<void> delivered = impl_->deliver(chunk); !delivered) {
    impl_->connection.reset();
    return fail(delivered.error().in(impl_->target()));
  }
  return chunk.records;
}

}  // namespace tierlog::exporters::fluentbit
