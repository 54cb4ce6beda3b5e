#include "tests/exporters/ack_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <openssl/ssl.h>
#include <zlib.h>

#include <array>
#include <cstdlib>
#include <msgpack.hpp>

namespace tierlog::exporters::fluentbit::testing {
namespace {

std::vector<std::string> ids_of(const std::string& entries) {
  std::vector<std::string> ids;
  for (std::size_t at = 0; at < entries.size();) {
    const msgpack::object_handle entry = msgpack::unpack(entries.data(), entries.size(), at);
    for (const msgpack::object_kv& field : entry.get().via.array.ptr[1].via.map)
      if (field.key.as<std::string>() == "id") ids.push_back(field.val.as<std::string>());
  }
  return ids;
}

// The message at the front of `bytes`, once it is whole.
std::optional<Received> take_message(std::string& bytes) {
  try {
    std::size_t used = 0;
    const msgpack::object_handle handle = msgpack::unpack(bytes.data(), bytes.size(), used);
    if (handle.get().type != msgpack::type::ARRAY || handle.get().via.array.size != 3) {
      bytes.clear();  // whoever speaks another protocol gets no answer
      return std::nullopt;
    }
    Received message{bytes.substr(0, used), {}};
    const msgpack::object* part = handle.get().via.array.ptr;
    message.tag = part[0].as<std::string>();
    message.entries.assign(part[1].via.bin.ptr, part[1].via.bin.size);
    for (const msgpack::object_kv& entry : part[2].via.map) {
      const auto key = entry.key.as<std::string>();
      if (key == "chunk") message.chunk = entry.val.as<std::string>();
      if (key == "size") message.count = entry.val.as<std::size_t>();
      if (key == "compressed") message.compressed = entry.val.as<std::string>();
    }
    message.ids = ids_of(message.compressed == "gzip" ? gunzip(message.entries) : message.entries);
    bytes.erase(0, used);
    return message;
  } catch (const msgpack::insufficient_bytes&) {
    return std::nullopt;
  }
}

}  // namespace

std::string gunzip(const std::string& bytes) {
  z_stream stream{};
  if (::inflateInit2(&stream, 15 + 16) != Z_OK) std::abort();
  std::string out, buffer(1 << 16, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  int code = Z_OK;
  while (code == Z_OK) {
    stream.next_out = reinterpret_cast<Bytef*>(buffer.data());
    stream.avail_out = static_cast<uInt>(buffer.size());
    code = ::inflate(&stream, Z_NO_FLUSH);
    out.append(buffer.data(), buffer.size() - stream.avail_out);
  }
  ::inflateEnd(&stream);
  return code == Z_STREAM_END && stream.avail_in == 0 ? out : "";
}

std::string ack_of(const std::string& chunk) {
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_map(1);
  packer.pack("ack");
  packer.pack(chunk);
  return {buffer.data(), buffer.size()};
}

Fd listen_on_loopback(Family family, int backlog, std::uint16_t& port) {
  sockaddr_storage storage{};
  socklen_t size = sizeof(storage);
  if (family == Family::V4) {
    auto& address = reinterpret_cast<sockaddr_in&>(storage);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  } else {
    auto& address = reinterpret_cast<sockaddr_in6&>(storage);
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_loopback;
  }
  Fd listener(::socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto* address = reinterpret_cast<sockaddr*>(&storage);
  if (::bind(listener.get(), address, size) != 0 || ::listen(listener.get(), backlog) != 0) std::abort();
  if (::getsockname(listener.get(), address, &size) != 0) std::abort();
  // The port stands at the same place in both address forms.
  port = ntohs(reinterpret_cast<sockaddr_in&>(storage).sin_port);
  return listener;
}

namespace {

Fd listen_at(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      ::listen(listener.get(), 8) != 0)
    std::abort();
  return listener;
}

}  // namespace

// One accepted connection, plain or by TLS.
struct AckServer::Line {
  int socket;
  SSL* ssl = nullptr;

  ssize_t read(char* into, std::size_t size) {
    return ssl == nullptr ? ::recv(socket, into, size, 0) : ::SSL_read(ssl, into, static_cast<int>(size));
  }
  void write(std::string_view bytes) {
    if (bytes.empty()) return;
    if (ssl == nullptr)
      static_cast<void>(::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL));
    else
      static_cast<void>(::SSL_write(ssl, bytes.data(), static_cast<int>(bytes.size())));
  }
  bool has_bytes() {
    if (ssl != nullptr && ::SSL_pending(ssl) > 0) return true;
    pollfd entry{socket, POLLIN, 0};
    return ::poll(&entry, 1, 20) > 0;
  }
};

AckServer::AckServer(Behaviour behaviour, ServerOptions options)
    : behaviour_(std::move(behaviour)),
      options_(std::move(options)),
      listener_(options_.unix_path.empty() ? listen_on_loopback(options_.family, 64, port_)
                                           : listen_at(options_.unix_path)),
      thread_([this] { serve(); }) {}

AckServer::~AckServer() {
  stop_ = true;
  ::shutdown(listener_.get(), SHUT_RDWR);
  thread_.join();
}

std::vector<Received> AckServer::received() const {
  const std::lock_guard lock(mutex_);
  return received_;
}

void AckServer::wait_until_closed(int count) const {
  while (closed_ < count) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void AckServer::serve() {
  while (!stop_) {
    Fd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!socket) continue;
    ++connections_;
    Line line{socket.get()};
    if (options_.tls != nullptr) {
      const timeval patience{2, 0};
      ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
      line.ssl = ::SSL_new(options_.tls);
      ::SSL_set_fd(line.ssl, socket.get());
    }
    if (line.ssl == nullptr || ::SSL_accept(line.ssl) == 1) talk(line);
    if (line.ssl != nullptr) ::SSL_free(line.ssl);
    socket.reset();
    ++closed_;
  }
}

// True when the client may send chunks.
bool AckServer::greet(Line& line, std::string& bytes) {
  if (options_.helo.empty()) return true;
  line.write(options_.helo);
  std::array<char, 4096> buffer{};
  while (!stop_) {
    if (!line.has_bytes()) continue;
    const ssize_t got = line.read(buffer.data(), buffer.size());
    if (got <= 0) return false;
    bytes.append(buffer.data(), static_cast<std::size_t>(got));
    try {
      std::size_t used = 0;
      msgpack::unpack(bytes.data(), bytes.size(), used);
      const std::string pong = options_.pong(bytes.substr(0, used));
      bytes.erase(0, used);
      line.write(pong);
      return !pong.empty();
    } catch (const msgpack::insufficient_bytes&) {
    }
  }
  return false;
}

void AckServer::talk(Line& line) {
  std::string bytes;
  std::size_t total = 0;
  std::vector<char> buffer(65536);
  if (!greet(line, bytes)) return;
  while (!stop_) {
    if (!line.has_bytes()) continue;
    std::this_thread::sleep_for(options_.read_pause);
    const std::size_t room =
        options_.close_after ? std::min(buffer.size(), *options_.close_after - total) : buffer.size();
    const ssize_t got = room == 0 ? 0 : line.read(buffer.data(), room);
    if (got <= 0) return;
    total += static_cast<std::size_t>(got);
    bytes.append(buffer.data(), static_cast<std::size_t>(got));
    if (options_.close_after && total >= *options_.close_after) return;
    while (const auto message = take_message(bytes))
      if (!answer(line, *message)) return;
  }
}

bool AckServer::answer(Line& line, const Received& message) {
  {
    const std::lock_guard lock(mutex_);
    received_.push_back(message);
  }
  const Answer reply = behaviour_(message);
  const std::size_t step = reply.in_single_bytes ? 1 : std::max<std::size_t>(reply.bytes.size(), 1);
  for (std::size_t at = 0; at < reply.bytes.size(); at += step) {
    line.write(std::string_view(reply.bytes).substr(at, step));
    if (reply.in_single_bytes) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return !reply.close;
}

}  // namespace tierlog::exporters::fluentbit::testing
