#include "exporters/fluentbit/tls_session.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "base/handle.h"
#include "base/net_types.h"

namespace tierlog::exporters::fluentbit {
namespace {

// The first entry of OpenSSL's queue, which is the cause of the others.
std::string reason() {
  const unsigned long code = ::ERR_get_error();
  ::ERR_clear_error();
  if (code == 0) return "unknown";
  // Files that are not there: as every other part says it.
  if (ERR_SYSTEM_ERROR(code)) return Error::from_errno(ERR_GET_REASON(code), "open").message;
  const char* text = ::ERR_reason_error_string(code);
  return text == nullptr ? "error " + std::to_string(code) : text;
}

tl::unexpected<Error> refused(const std::string& what) {
  return tierlog::fail(ErrorCode::Unavailable, what + ": " + reason());
}

Result<void> load_files(SSL_CTX* context, const TlsOptions& options) {
  if (options.ca.empty()) {
    if (::SSL_CTX_set_default_verify_paths(context) != 1) return refused("TLS: the system's authorities");
  } else if (::SSL_CTX_load_verify_locations(context, options.ca.c_str(), nullptr) != 1) {
    return refused("TLS: authorities in " + options.ca);
  }
  if (options.cert.empty()) return {};
  if (::SSL_CTX_use_certificate_chain_file(context, options.cert.c_str()) != 1)
    return refused("TLS: certificate " + options.cert);
  if (::SSL_CTX_use_PrivateKey_file(context, options.key.c_str(), SSL_FILETYPE_PEM) != 1)
    return refused("TLS: key " + options.key);
  return {};
}

}  // namespace

struct TlsSession::Impl {
  Owned<SSL_CTX, ::SSL_CTX_free> context;
  Owned<SSL, ::SSL_free> ssl;
  BIO* incoming = nullptr;  // both belong to ssl
  BIO* outgoing = nullptr;
  std::string name;

  Result<void> expect_name(const TlsOptions& options, const std::string& host);
  std::string why_not() const;
};

Result<void> TlsSession::Impl::expect_name(const TlsOptions& options, const std::string& host) {
  name = options.server_name.empty() ? host : options.server_name;
  const bool is_address = IpAddr::parse(name).has_value();
  if (!is_address && ::SSL_set_tlsext_host_name(ssl.get(), name.c_str()) != 1)
    return refused("TLS: server name " + name);
  if (!options.verify) return {};
  ::SSL_set_verify(ssl.get(), SSL_VERIFY_PEER, nullptr);
  const bool set = is_address ? ::X509_VERIFY_PARAM_set1_ip_asc(::SSL_get0_param(ssl.get()), name.c_str()) == 1
                              : ::SSL_set1_host(ssl.get(), name.c_str()) == 1;
  if (!set) return refused("TLS: server name " + name);
  return {};
}

std::string TlsSession::Impl::why_not() const {
  const long verdict = ::SSL_get_verify_result(ssl.get());
  if (verdict == X509_V_OK) return "TLS: " + reason();
  ::ERR_clear_error();
  return "TLS: the certificate of the receiver is not accepted: " +
         std::string(::X509_verify_cert_error_string(verdict)) + " (expected one for " + name + ")";
}

TlsSession::TlsSession(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsSession::~TlsSession() = default;

Result<std::unique_ptr<TlsSession>> TlsSession::open(const TlsOptions& options, const std::string& host) {
  ::ERR_clear_error();
  auto impl = std::make_unique<Impl>();
  impl->context.reset(::SSL_CTX_new(::TLS_client_method()));
  if (!impl->context) return refused("TLS");
  if (::SSL_CTX_set_min_proto_version(impl->context.get(), TLS1_2_VERSION) != 1) return refused("TLS");
  TL_TRY(load_files(impl->context.get(), options));
  impl->ssl.reset(::SSL_new(impl->context.get()));
  impl->incoming = ::BIO_new(::BIO_s_mem());
  impl->outgoing = ::BIO_new(::BIO_s_mem());
  if (!impl->ssl || impl->incoming == nullptr || impl->outgoing == nullptr) return refused("TLS");
  ::SSL_set_bio(impl->ssl.get(), impl->incoming, impl->outgoing);
  ::SSL_set_connect_state(impl->ssl.get());
  TL_TRY(impl->expect_name(options, host));
  return std::unique_ptr<TlsSession>(new TlsSession(std::move(impl)));
}

Result<bool> TlsSession::shake() {
  ::ERR_clear_error();
  const int code = ::SSL_do_handshake(impl_->ssl.get());
  if (code == 1) return true;
  if (::SSL_get_error(impl_->ssl.get(), code) == SSL_ERROR_WANT_READ) return false;
  return tierlog::fail(ErrorCode::Unavailable, impl_->why_not());
}

Result<void> TlsSession::write(std::string_view plain) {
  if (plain.empty()) return {};
  ::ERR_clear_error();
  std::size_t written = 0;
  if (::SSL_write_ex(impl_->ssl.get(), plain.data(), plain.size(), &written) == 1 && written == plain.size()) return {};
  return tierlog::fail(ErrorCode::Unavailable, impl_->why_not());
}

std::string TlsSession::take_outgoing() {
  std::string bytes(::BIO_ctrl_pending(impl_->outgoing), '\0');
  std::size_t got = 0;
  if (bytes.empty() || ::BIO_read_ex(impl_->outgoing, bytes.data(), bytes.size(), &got) != 1) return {};
  bytes.resize(got);
  return bytes;
}

void TlsSession::feed(std::string_view sealed) {
  std::size_t taken = 0;
  // Memory takes everything.
  static_cast<void>(::BIO_write_ex(impl_->incoming, sealed.data(), sealed.size(), &taken));
}

Result<std::optional<std::size_t>> TlsSession::read(std::span<char> into) {
  ::ERR_clear_error();
  std::size_t got = 0;
  const int code = ::SSL_read_ex(impl_->ssl.get(), into.data(), into.size(), &got);
  if (code == 1) return std::optional<std::size_t>(got);
  switch (::SSL_get_error(impl_->ssl.get(), code)) {
    case SSL_ERROR_WANT_READ:
      return std::optional<std::size_t>{};
    case SSL_ERROR_ZERO_RETURN:
      return std::optional<std::size_t>{0};
    default:
      return tierlog::fail(ErrorCode::Unavailable, impl_->why_not());
  }
}

}  // namespace tierlog::exporters::fluentbit
