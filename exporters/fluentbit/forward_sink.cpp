#include "exporters/fluentbit/forward_sink.h"

#include <algorithm>
#include <array>
#include <deque>
#include <future>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/files.h"
#include "exporters/fluentbit/chunk_packer.h"
#include "exporters/fluentbit/connection.h"
#include "exporters/fluentbit/forward_codec.h"
#include "exporters/fluentbit/handshake.h"
#include "exporters/fluentbit/tag.h"

namespace tierlog::exporters::fluentbit {
namespace {

// Of everything that waits to be sent: what bounds the memory of an output.
constexpr std::size_t kMaxTaken = 4'000'000;
constexpr std::size_t kMaxSecretBytes = 4096;
constexpr std::chrono::milliseconds kMostPatience{60'000};

struct Chunk {
  std::string tag, id;
  std::string entries;                // while it is being filled
  std::future<std::string> packing{};  // afterwards
  std::string message{};               // and then
  std::size_t records = 0;

  const std::string& bytes() {
    if (packing.valid()) message = packing.get();
    return message;
  }
};

// The first line of a file that holds a secret.
Outcome<std::string> read_secret(const std::string& path) {
  if (path.empty()) return std::string();
  const auto text = read_file(path, kMaxSecretBytes);
  if (!text) return fail(FailureCause::Handshake, text.error().in(path));
  std::string line = text->substr(0, text->find('\n'));
  while (!line.empty() && line.back() == '\r') line.pop_back();
  if (line.empty()) return fail(FailureCause::Handshake, path + ": its first line is empty; expected the secret");
  return line;
}

}  // namespace

struct ForwardSink::Impl {
  Impl(ForwardOptions settings, store::Origin from, const std::atomic<bool>* ends, TagPattern tag, RecordFormat form)
      : options(std::move(settings)),
        origin(std::move(from)),
        stop(ends),
        pattern(std::move(tag)),
        format(std::move(form)),
        packer(options.compression),
        patience(options.timeout) {}

  ForwardOptions options;
  store::Origin origin;
  const std::atomic<bool>* stop;
  TagPattern pattern;
  RecordFormat format;
  ChunkPacker packer;
  std::optional<Connection> connection;
  bool keepalive = true;
  // For an ack. A receiver that needs longer gets longer the next time, and less at a time: otherwise it would get
  // the same chunks for ever.
  std::chrono::milliseconds patience;
  std::deque<Chunk> chunks;  // of take(), until they are acknowledged
  OutputCounts counts;

  bool fits(const Chunk& chunk) const {
    return chunk.entries.size() + envelope_bytes(chunk.tag, chunk.id) <= options.max_chunk_bytes;
  }
  void seal(Chunk& chunk);
  Outcome<void> connect();
  Outcome<void> shake_hands();
  template <typename Read>
  Outcome<void> hear(Read read, std::string_view what, Deadline deadline);
  Outcome<void> send_all();
  Outcome<void> await_one(AckReader& reader, std::size_t& sent);
};

void ForwardSink::Impl::seal(Chunk& chunk) {
  chunk.packing = packer.pack({chunk.tag, chunk.id, std::exchange(chunk.entries, {}), chunk.records});
  chunks.push_back(std::move(chunk));
}

Outcome<void> ForwardSink::Impl::connect() {
  // A receiver that went away while nothing was sent is no lost chunk: take a new connection.
  if (connection && connection->is_quiet()) return {};
  connection.reset();
  TL_ASSIGN(connection, Connection::open(options, stop));
  keepalive = true;
  if (options.auth.on) TL_TRY(shake_hands());
  return {};
}

// Reads one message, and nothing behind it.
template <typename Read>
Outcome<void> ForwardSink::Impl::hear(Read read, std::string_view what, Deadline deadline) {
  std::string bytes;
  std::array<char, 1024> buffer{};
  while (true) {
    auto got = connection->receive(buffer, deadline, "wait for " + std::string(what));
    // Before the handshake is done, closing is the receiver's way to say no.
    if (!got && got.error().cause == FailureCause::Closed) got.error().cause = FailureCause::Handshake;
    if (!got) return tl::unexpected<Failure>(std::move(got.error()));
    bytes.append(buffer.data(), *got);
    std::size_t used = 0;
    const Reading state = read(bytes, used);
    if (state == Reading::NeedMore) continue;
    if (state == Reading::Wrong || used != bytes.size())
      return fail(FailureCause::Handshake, "the receiver's answer is no " + std::string(what) +
                                               "; does it ask for a shared key?");
    return {};
  }
}

Outcome<void> ForwardSink::Impl::shake_hands() {
  Secrets secrets{options.auth.hostname, {}, options.auth.user, {}};
  TL_ASSIGN(secrets.shared_key, read_secret(options.auth.shared_key_file));
  TL_ASSIGN(secrets.password, read_secret(options.auth.password_file));
  const Deadline deadline = std::chrono::steady_clock::now() + options.timeout;
  Helo helo;
  TL_TRY(hear([&](std::string_view bytes, std::size_t& used) { return read_helo(bytes, helo, used); }, "HELO",
              deadline));
  const std::string salt = make_salt();
  const auto ping = make_ping(secrets, helo, salt);
  if (!ping) return fail(FailureCause::Handshake, ping.error());
  TL_TRY(connection->send_all(*ping, options.timeout));
  Pong pong;
  TL_TRY(hear([&](std::string_view bytes, std::size_t& used) { return read_pong(bytes, pong, used); }, "PONG",
              deadline));
  if (const auto good = check_pong(pong, secrets, helo, salt); !good)
    return fail(FailureCause::Handshake, good.error());
  keepalive = helo.keepalive;
  return {};
}

// Waits for one more ack among those of the first `sent` chunks, which are all on their way.
Outcome<void> ForwardSink::Impl::await_one(AckReader& reader, std::size_t& sent) {
  const auto began = std::chrono::steady_clock::now();
  const Deadline deadline = began + patience;
  std::array<char, 1024> buffer{};
  while (true) {
    if (const auto acknowledged = reader.take()) {
      const auto end = chunks.begin() + static_cast<std::ptrdiff_t>(sent);
      const auto found =
          std::find_if(chunks.begin(), end, [&](const Chunk& chunk) { return chunk.id == *acknowledged; });
      if (found == end)
        return fail(FailureCause::WrongAnswer, "the receiver's answer is no ack of a chunk that was sent");
      counts.records += found->records;
      counts.bytes += found->message.size();
      ++counts.messages;
      chunks.erase(found);
      --sent;
      if (std::chrono::steady_clock::now() - began < patience / 4) patience = std::max(options.timeout, patience / 2);
      return {};
    }
    TL_ASSIGN(const std::size_t got, connection->receive(buffer, deadline));
    if (!reader.feed({buffer.data(), got}))
      return fail(FailureCause::WrongAnswer,
                  reader.complaint() == "HELO"
                      ? "the receiver asks for a shared key; set auth.shared_key_file"
                      : "the receiver's answer is no ack of a chunk that was sent, but " + reader.complaint());
  }
}

Outcome<void> ForwardSink::Impl::send_all() {
  AckReader reader;
  std::size_t sent = 0;  // the first of `chunks` are on their way
  while (!chunks.empty()) {
    if (!connection) TL_TRY(connect());
    const bool hurries = keepalive && patience <= options.timeout;
    const std::size_t at_most = hurries ? std::max<std::size_t>(1, options.in_flight) : 1;
    while (sent < chunks.size() && sent < at_most) {
      TL_TRY(connection->send_all(chunks[sent].bytes(), options.timeout));
      ++sent;
    }
    TL_TRY(await_one(reader, sent));
    // What is behind the last answer would be taken for an answer to what comes next.
    if (sent == 0 && (reader.has_rest() || !keepalive)) {
      connection.reset();
      reader = AckReader();
    }
  }
  return {};
}

ForwardSink::ForwardSink(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ForwardSink::~ForwardSink() = default;

Result<std::unique_ptr<ForwardSink>> ForwardSink::make(ForwardOptions options, store::Origin origin,
                                                       const std::atomic<bool>* stop) {
  TL_ASSIGN(TagPattern pattern, TagPattern::parse(options.tag));
  RecordFormat format(options.format);
  return std::unique_ptr<ForwardSink>(new ForwardSink(std::make_unique<Impl>(
      std::move(options), std::move(origin), stop, std::move(pattern), std::move(format))));
}

std::string ForwardSink::target() const {
  return url_of(impl_->options);
}

std::size_t ForwardSink::take(std::span<const store::StoredRecord> records) {
  std::map<std::string, Chunk, std::less<>> open;  // by tag
  std::size_t taken = 0, bytes = 0;
  std::string tag, entry;
  for (const store::StoredRecord& stored : records) {
    if (bytes > kMaxTaken) break;
    ++taken;
    tag.clear();
    impl_->pattern.append(tag, stored.record, impl_->origin);
    auto found = open.find(tag);
    if (found == open.end()) found = open.emplace(tag, Chunk{tag, make_chunk_id(), {}}).first;
    Chunk* chunk = &found->second;
    const std::size_t before = chunk->entries.size();
    append_entry(chunk->entries, impl_->format, stored.record, impl_->origin);
    bytes += chunk->entries.size() - before;
    if (!impl_->fits(*chunk)) {
      entry.assign(chunk->entries, before);
      chunk->entries.resize(before);
      if (chunk->records > 0) {
        impl_->seal(*chunk);
        *chunk = Chunk{tag, make_chunk_id(), {}};
      }
      chunk->entries = entry;
      if (!impl_->fits(*chunk)) {
        chunk->entries.clear();
        ++impl_->counts.skipped;
        continue;
      }
    }
    ++chunk->records;
  }
  for (auto& [name, chunk] : open)
    if (chunk.records > 0) impl_->seal(chunk);
  return taken;
}

Outcome<void> ForwardSink::deliver() {
  if (impl_->chunks.empty()) return {};
  Outcome<void> delivered = impl_->connect();
  if (delivered) delivered = impl_->send_all();
  if (delivered) return {};
  impl_->connection.reset();
  if (delivered.error().cause == FailureCause::NoAnswer)
    impl_->patience = std::min(impl_->patience * 2, std::max(impl_->options.timeout, kMostPatience));
  return tl::unexpected<Failure>(delivered.error().in("forward to " + target()));
}

OutputCounts ForwardSink::counts() const {
  return impl_->counts;
}

}  // namespace tierlog::exporters::fluentbit
