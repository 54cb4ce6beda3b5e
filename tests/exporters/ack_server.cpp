#include "tests/exporters/ack_server.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <msgpack.hpp>

namespace tierlog::exporters::fluentbit::testing {
namespace {

// The message at the front of `bytes`, once it is whole.
std::optional<Received> take_message(std::string& bytes) {
  try {
    std::size_t used = 0;
    const msgpack::object_handle handle = msgpack::unpack(bytes.data(), bytes.size(), used);
    Received message{bytes.substr(0, used), {}};
    for (const msgpack::object_kv& entry : handle.get().via.array.ptr[2].via.map)
      if (entry.key.as<std::string>() == "chunk") message.chunk = entry.val.as<std::string>();
    bytes.erase(0, used);
    return message;
  } catch (const msgpack::insufficient_bytes&) {
    return std::nullopt;
  }
}

}  // namespace

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

AckServer::AckServer(Behaviour behaviour, Family family, std::optional<std::size_t> close_after)
    : behaviour_(std::move(behaviour)),
      close_after_(close_after),
      listener_(listen_on_loopback(family, 64, port_)),
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
    talk(socket.get());
    socket.reset();
    ++closed_;
  }
}

void AckServer::talk(int socket) {
  std::string bytes;
  std::size_t total = 0;
  std::array<char, 65536> buffer{};
  while (!stop_) {
    pollfd entry{socket, POLLIN, 0};
    if (::poll(&entry, 1, 20) == 0) continue;
    const std::size_t room = close_after_ ? std::min(buffer.size(), *close_after_ - total) : buffer.size();
    const ssize_t got = room == 0 ? 0 : ::recv(socket, buffer.data(), room, 0);
    if (got <= 0) return;
    total += static_cast<std::size_t>(got);
    bytes.append(buffer.data(), static_cast<std::size_t>(got));
    if (close_after_ && total >= *close_after_) return;
    while (const auto message = take_message(bytes))
      if (!answer(socket, *message)) return;
  }
}

bool AckServer::answer(int socket, const Received& message) {
  {
    const std::lock_guard lock(mutex_);
    received_.push_back(message);
  }
  const Answer reply = behaviour_(message);
  const std::size_t step = reply.in_single_bytes ? 1 : std::max<std::size_t>(reply.bytes.size(), 1);
  for (std::size_t at = 0; at < reply.bytes.size(); at += step) {
    static_cast<void>(
        ::send(socket, reply.bytes.data() + at, std::min(step, reply.bytes.size() - at), MSG_NOSIGNAL));
    if (reply.in_single_bytes) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return !reply.close;
}

}  // namespace tierlog::exporters::fluentbit::testing
