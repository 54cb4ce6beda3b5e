#include "http/address.h"

#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace tierlog::http {
namespace {

constexpr int kBacklog = 128;

Error no_address(std::string_view text) {
  return {ErrorCode::InvalidArgument,
          "\"" + std::string(text) +
              "\" is no address to listen on; expected one like 127.0.0.1:9477 or [::1]:9477",
          0};
}

// "a.b.c.d:80" and "[::1]:80" in two, without the brackets. The port may be missing.
std::pair<std::string_view, std::string_view> split(std::string_view text) {
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return {};
    const std::string_view rest = text.substr(end + 1);
    return {text.substr(1, end - 1), rest.starts_with(':') ? rest.substr(1) : std::string_view()};
  }
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos) return {text, {}};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

}  // namespace

Result<Address> parse_address(std::string_view text) {
  auto [host, port] = split(text);
  if (host == "localhost") host = "127.0.0.1";
  const auto ip = IpAddr::parse(host);
  Address address;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), address.port);
  if (!ip || port.empty() || error != std::errc() || end != port.data() + port.size())
    return fail(no_address(text));
  if (ip->family == Family::V6 && !text.starts_with('[')) return fail(no_address(text));
  address.ip = *ip;
  return address;
}

bool is_loopback(const IpAddr& ip) {
  if (ip.family == Family::V4) return ip.bytes[0] == 127;
  return ip == *IpAddr::parse("::1");
}

std::string to_string(const Address& address) {
  const std::string ip = address.ip.to_string();
  return (address.ip.family == Family::V6 ? "[" + ip + "]" : ip) + ":" + std::to_string(address.port);
}

Result<Fd> listen_on(const Address& address) {
  const bool v4 = address.ip.family == Family::V4;
  const auto failed = [&] { return fail(Error::from_errno(errno, "listen on", to_string(address))); };
  Fd socket(::socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket) return failed();
  const int on = 1;
  // A restarted daemon listens at once; [::] is IPv6 only, so that 0.0.0.0 can stand beside it.
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (!v4) ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  sockaddr_storage storage{};
  if (v4) {
    auto& to = reinterpret_cast<sockaddr_in&>(storage);
    to.sin_family = AF_INET;
    to.sin_port = htons(address.port);
    std::memcpy(&to.sin_addr, address.ip.bytes.data(), sizeof to.sin_addr);
  } else {
    auto& to = reinterpret_cast<sockaddr_in6&>(storage);
    to.sin6_family = AF_INET6;
    to.sin6_port = htons(address.port);
    std::memcpy(&to.sin6_addr, address.ip.bytes.data(), sizeof to.sin6_addr);
  }
  const socklen_t size = v4 ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
  if (::bind(socket.get(), reinterpret_cast<const sockaddr*>(&storage), size) < 0) return failed();
  if (::listen(socket.get(), kBacklog) < 0) return failed();
  return socket;
}

std::uint16_t port_of(int socket) {
  sockaddr_storage storage{};
  socklen_t size = sizeof storage;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&storage), &size) < 0) return 0;
  return ntohs(storage.ss_family == AF_INET ? reinterpret_cast<const sockaddr_in&>(storage).sin_port
                                            : reinterpret_cast<const sockaddr_in6&>(storage).sin6_port);
}

bool is_own_host(std::string_view host) {
  const std::string_view name = split(host).first;
  return host.empty() || name == "localhost" || IpAddr::parse(name).has_value();
}

}  // namespace tierlog::http
