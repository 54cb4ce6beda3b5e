#include "exporters/fluentbit/handshake.h"

#include <msgpack.hpp>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <array>
#include <optional>
#include <random>

#include "base/handle.h"

namespace tierlog::exporters::fluentbit {
namespace {

// Handshakes are some hundred bytes; whoever says more speaks another protocol.
constexpr std::size_t kMaxMessage = 4096;
// Fluent Bit reads a PING into so many bytes.
constexpr std::size_t kMaxPing = 1023;

std::string hex(std::string_view bytes) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    text += kDigits[static_cast<unsigned char>(byte) >> 4];
    text += kDigits[static_cast<unsigned char>(byte) & 15];
  }
  return text;
}

// Text or bytes: receivers send nonce and salt as either.
std::optional<std::string> bytes_of(const msgpack::object& value) {
  if (value.type == msgpack::type::STR) return std::string(value.via.str.ptr, value.via.str.size);
  if (value.type == msgpack::type::BIN) return std::string(value.via.bin.ptr, value.via.bin.size);
  return std::nullopt;
}

// A message [name, …] of at least `parts` parts, given to `take`, which says whether it understood.
template <typename Take>
Reading read_message(std::string_view bytes, std::string_view name, std::size_t parts, std::size_t& used, Take take) {
  if (bytes.empty()) return Reading::NeedMore;
  if (bytes.size() > kMaxMessage) return Reading::Wrong;
  try {
    std::size_t end = 0;
    const msgpack::unpack_limit limit(16, 16, kMaxMessage, kMaxMessage, kMaxMessage, 4);
    const msgpack::object_handle handle = msgpack::unpack(bytes.data(), bytes.size(), end, nullptr, nullptr, limit);
    const msgpack::object& message = handle.get();
    if (message.type != msgpack::type::ARRAY || message.via.array.size < parts) return Reading::Wrong;
    const msgpack::object* part = message.via.array.ptr;
    if (part[0].type != msgpack::type::STR || part[0].as<std::string_view>() != name) return Reading::Wrong;
    used = end;
    return take(part) ? Reading::Done : Reading::Wrong;
  } catch (const msgpack::insufficient_bytes&) {
    return Reading::NeedMore;
  } catch (const std::exception&) {
    return Reading::Wrong;
  }
}

}  // namespace

std::string sha512_hex(std::initializer_list<std::string_view> parts) {
  const Owned<EVP_MD_CTX, ::EVP_MD_CTX_free> context(::EVP_MD_CTX_new());
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  bool good = context && ::EVP_DigestInit_ex(context.get(), ::EVP_sha512(), nullptr) == 1;
  for (const std::string_view part : parts)
    good = good && ::EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1;
  good = good && ::EVP_DigestFinal_ex(context.get(), digest.data(), &size) == 1;
  // Without SHA-512 nobody accepts us; an empty digest is no digest of anything.
  return good ? hex({reinterpret_cast<const char*>(digest.data()), size}) : "";
}

std::string make_salt() {
  std::random_device source;
  std::string bytes(16, '\0');
  for (char& byte : bytes) byte = static_cast<char>(static_cast<unsigned char>(source()));
  return hex(bytes);
}

Reading read_helo(std::string_view bytes, Helo& helo, std::size_t& used) {
  return read_message(bytes, "HELO", 2, used, [&helo](const msgpack::object* part) {
    if (part[1].type != msgpack::type::MAP) return false;
    for (const msgpack::object_kv& entry : part[1].via.map) {
      if (entry.key.type != msgpack::type::STR) return false;
      const auto key = entry.key.as<std::string_view>();
      const auto text = bytes_of(entry.val);
      if (key == "nonce") {
        if (!text) return false;
        helo.nonce = *text;
      } else if (key == "auth") {
        // Some send nil or false where no user is asked for.
        helo.auth_salt = text.value_or("");
      } else if (key == "keepalive" && entry.val.type == msgpack::type::BOOLEAN) {
        helo.keepalive = entry.val.via.boolean;
      }
    }
    return true;
  });
}

Result<std::string> make_ping(const Secrets& secrets, const Helo& helo, const std::string& salt) {
  const bool by_user = !helo.auth_salt.empty();
  if (by_user && secrets.user.empty())
    return tierlog::fail(ErrorCode::InvalidArgument, "the receiver asks for a user; set auth.user and auth.password_file");
  msgpack::sbuffer buffer;
  msgpack::packer<msgpack::sbuffer> packer(buffer);
  packer.pack_array(6);
  packer.pack("PING");
  packer.pack(secrets.hostname);
  packer.pack(salt);
  packer.pack(sha512_hex({salt, secrets.hostname, helo.nonce, secrets.shared_key}));
  packer.pack(by_user ? secrets.user : "");
  packer.pack(by_user ? sha512_hex({helo.auth_salt, secrets.user, secrets.password}) : "");
  if (buffer.size() > kMaxPing)
    return tierlog::fail(ErrorCode::InvalidArgument, "host name and user are too long: a PING may have " +
                                                         std::to_string(kMaxPing) + " bytes");
  return std::string(buffer.data(), buffer.size());
}

Reading read_pong(std::string_view bytes, Pong& pong, std::size_t& used) {
  return read_message(bytes, "PONG", 5, used, [&pong](const msgpack::object* part) {
    if (part[1].type != msgpack::type::BOOLEAN) return false;
    pong.accepted = part[1].via.boolean;
    // Whoever refuses need not fill in the rest.
    pong.reason = bytes_of(part[2]).value_or("");
    pong.hostname = bytes_of(part[3]).value_or("");
    pong.digest = bytes_of(part[4]).value_or("");
    return true;
  });
}

Result<void> check_pong(const Pong& pong, const Secrets& secrets, const Helo& helo, const std::string& salt) {
  if (!pong.accepted)
    return tierlog::fail(ErrorCode::Unavailable, "the receiver refused us" + (pong.reason.empty() ? "" : ": " + pong.reason));
  if (pong.hostname == secrets.hostname)
    return tierlog::fail(ErrorCode::Unavailable, "the receiver calls itself \"" + pong.hostname +
                                                     "\" as we do; give one of both another name (auth.hostname)");
  const std::string right = sha512_hex({salt, pong.hostname, helo.nonce, secrets.shared_key});
  if (right.empty() || pong.digest.size() != right.size() ||
      ::CRYPTO_memcmp(pong.digest.data(), right.data(), right.size()) != 0)
    return tierlog::fail(ErrorCode::Unavailable, "the receiver does not know the shared key");
  return {};
}

}  // namespace tierlog::exporters::fluentbit
