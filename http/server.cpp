#include "http/server.h"

#include <fcntl.h>
#include <microhttpd.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>
#include <unordered_map>

#include "http/address.h"
#include "http/workers.h"

namespace tierlog::http {
namespace {

using Steady = std::chrono::steady_clock;

// A request is this much at most, its headers included; what is larger is refused (431).
constexpr std::size_t kRequestBytes = 32 * 1024;
// From a connection's beginning, or the end of its last answer, to the end of the next request's headers: who
// sends byte by byte to hold a place is cut off.
constexpr std::chrono::seconds kToAsk{30};
constexpr std::chrono::seconds kLookEvery{5};

// Takes the same time wherever the two differ.
bool same(std::string_view a, std::string_view b) {
  unsigned char difference = a.size() == b.size() ? 0 : 1;
  for (std::size_t i = 0; i < a.size(); ++i)
    difference |= static_cast<unsigned char>(a[i] ^ (b.empty() ? 0 : b[i % b.size()]));
  return difference == 0;
}

std::string header(MHD_Connection* connection, const char* name) {
  const char* value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
  return value == nullptr ? "" : value;
}

MHD_Result take_parameter(void* list, MHD_ValueKind, const char* key, const char* value) {
  static_cast<Parameters*>(list)->emplace_back(key, value == nullptr ? "" : value);
  return MHD_YES;
}

bool is_below(const std::string& path, const std::string& prefix) {
  return path == prefix || path.starts_with(prefix + "/");
}

// One request on its way through a worker.
struct Exchange {
  std::optional<Response> response;
};

// Connections by when they have to have asked.
class Deadlines {
 public:
  void set(int socket) {
    const std::lock_guard lock(mutex_);
    by_socket_[socket] = Steady::now() + kToAsk;
  }
  void lift(int socket) {
    const std::lock_guard lock(mutex_);
    by_socket_.erase(socket);
  }
  // Sockets in the table are open: they leave it before they are closed, under the same lock.
  void cut_late() {
    const std::lock_guard lock(mutex_);
    for (const auto& [socket, until] : by_socket_)
      if (Steady::now() > until) ::shutdown(socket, SHUT_RDWR);
  }

 private:
  std::mutex mutex_;
  std::unordered_map<int, Steady::time_point> by_socket_;
};

struct StopDaemon {
  void operator()(MHD_Daemon* daemon) const { MHD_stop_daemon(daemon); }
};

}  // namespace

Response refusal(int status, std::string_view message) {
  const nlohmann::json body{{"error", message}};
  return {status, "application/json",
          body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n"};
}

struct Server::Impl {
  Options options;
  Address address;
  Fd socket;
  std::vector<Route> routes;
  std::string complaint;  // of the library, the latest
  Deadlines deadlines;
  std::unique_ptr<Workers> workers;
  std::unique_ptr<MHD_Daemon, StopDaemon> daemon;
  std::mutex mutex;
  std::condition_variable ending;
  bool ended = false;
  std::thread watch;

  const Route* route_to(const std::string& path) const;
  std::optional<Response> refuse(MHD_Connection* connection, const char* method, const Route* route) const;
  MHD_Result begin(MHD_Connection* connection, const char* url, const char* method, Exchange& exchange);
  static MHD_Result send(MHD_Connection* connection, const Response& response);
  void look_for_late_ones();

  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url, const char* method,
                               const char* version, const char* body, std::size_t* body_size, void** state);
  static void on_answered(void* self, MHD_Connection* connection, void** state,
                          MHD_RequestTerminationCode why);
  static void on_connection(void* self, MHD_Connection* connection, void** state,
                            MHD_ConnectionNotificationCode what);
  static void on_complaint(void* self, const char* format, va_list arguments)
      __attribute__((format(printf, 2, 0)));
};

const Route* Server::Impl::route_to(const std::string& path) const {
  for (const Route& route : routes)
    if (is_below(path, route.prefix)) return &route;
  return nullptr;
}

// What is not even asked of a handler.
std::optional<Response> Server::Impl::refuse(MHD_Connection* connection, const char* method,
                                             const Route* route) const {
  if (std::strcmp(method, "GET") != 0 && std::strcmp(method, "HEAD") != 0)
    return refusal(405, std::string(method) + " is not answered here; expected GET or HEAD");
  if (!options.token.empty() && (route == nullptr || !route->open)) {
    const std::string given = header(connection, "Authorization");
    if (!given.starts_with("Bearer ") || !same(given.substr(7), options.token))
      return refusal(401, "the token is missing or wrong; expected the header Authorization: Bearer TOKEN");
  }
  // A page in somebody's browser may ask this address under a name of its own; it must not read the answer.
  if (options.token.empty() && http::is_loopback(address.ip) && !is_own_host(header(connection, "Host")))
    return refusal(403, "this address is asked by its number or as localhost; Host names another");
  if (route == nullptr) {
    std::string known;
    for (const Route& one : routes) known += (known.empty() ? "" : ", ") + one.prefix;
    return refusal(404, "nothing is here; expected one of " + known);
  }
  return std::nullopt;
}

MHD_Result Server::Impl::send(MHD_Connection* connection, const Response& response) {
  // The library takes a buffer that it may write into; MUST_COPY leaves ours alone.
  MHD_Response* made = MHD_create_response_from_buffer(
      response.body.size(), const_cast<char*>(response.body.data()), MHD_RESPMEM_MUST_COPY);
  if (made == nullptr) return MHD_NO;
  MHD_add_response_header(made, "Content-Type", response.type.c_str());
  MHD_add_response_header(made, "Cache-Control", "no-store");
  MHD_add_response_header(made, "X-Content-Type-Options", "nosniff");
  if (response.status == 401) MHD_add_response_header(made, "WWW-Authenticate", "Bearer");
  if (response.status == 405) MHD_add_response_header(made, "Allow", "GET, HEAD");
  const MHD_Result queued = MHD_queue_response(connection, static_cast<unsigned>(response.status), made);
  MHD_destroy_response(made);
  return queued;
}

MHD_Result Server::Impl::begin(MHD_Connection* connection, const char* url, const char* method,
                               Exchange& exchange) {
  Request request;
  request.path = url;
  const Route* route = route_to(request.path);
  if (const auto refused = refuse(connection, method, route)) return send(connection, *refused);
  MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, take_parameter, &request.parameters);
  request.accept = header(connection, "Accept");
  MHD_suspend_connection(connection);
  const bool taken = workers->give(
      [connection, route, &exchange, request = std::move(request)] {
        exchange.response = route->answer(request);
        MHD_resume_connection(connection);
      },
      route->cost == Route::Cost::Long);
  if (!taken) {
    exchange.response = refusal(503, "too many requests wait already; try again");
    MHD_resume_connection(connection);
  }
  return MHD_YES;
}

MHD_Result Server::Impl::on_request(void* self, MHD_Connection* connection, const char* url,
                                    const char* method, const char*, const char*, std::size_t*,
                                    void** state) {
  auto& server = *static_cast<Impl*>(self);
  auto* exchange = static_cast<Exchange*>(*state);
  if (exchange == nullptr) {
    server.deadlines.lift(MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
    exchange = new Exchange;  // until on_answered
    *state = exchange;
    return server.begin(connection, url, method, *exchange);
  }
  return exchange->response ? send(connection, *exchange->response) : MHD_YES;
}

void Server::Impl::on_answered(void* self, MHD_Connection* connection, void** state,
                               MHD_RequestTerminationCode) {
  delete static_cast<Exchange*>(*state);
  *state = nullptr;
  static_cast<Impl*>(self)->deadlines.set(
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd);
}

void Server::Impl::on_connection(void* self, MHD_Connection* connection, void**,
                                 MHD_ConnectionNotificationCode what) {
  auto& deadlines = static_cast<Impl*>(self)->deadlines;
  const int socket = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
  if (what == MHD_CONNECTION_NOTIFY_STARTED)
    deadlines.set(socket);
  else
    deadlines.lift(socket);
}

void Server::Impl::on_complaint(void* self, const char* format, va_list arguments) {
  char text[256];
  std::vsnprintf(text, sizeof text, format, arguments);
  auto& server = *static_cast<Impl*>(self);
  const std::lock_guard lock(server.mutex);
  server.complaint = text;
  while (server.complaint.ends_with('\n')) server.complaint.pop_back();
}

void Server::Impl::look_for_late_ones() {
  std::unique_lock lock(mutex);
  while (!ending.wait_for(lock, kLookEvery, [this] { return ended; })) deadlines.cut_late();
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<Server>> Server::listen(const Options& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  TL_ASSIGN(impl->address, parse_address(options.listen));
  TL_ASSIGN(impl->socket, listen_on(impl->address));
  impl->address.port = port_of(impl->socket.get());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

Result<void> Server::start(std::vector<Route> routes) {
  Impl& impl = *impl_;
  impl.routes = std::move(routes);
  impl.workers = std::make_unique<Workers>();
  const bool tls = !impl.options.certificate.empty();
  unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
  if (tls) flags |= MHD_USE_TLS;
  std::vector<MHD_OptionItem> items{
      {MHD_OPTION_CONNECTION_LIMIT, static_cast<intptr_t>(impl.options.connections), nullptr},
      {MHD_OPTION_CONNECTION_TIMEOUT, static_cast<intptr_t>(impl.options.idle_seconds), nullptr},
      {MHD_OPTION_CONNECTION_MEMORY_LIMIT, static_cast<intptr_t>(kRequestBytes), nullptr},
      {MHD_OPTION_STRICT_FOR_CLIENT, 1, nullptr}};
  if (tls) {
    items.push_back({MHD_OPTION_HTTPS_MEM_CERT, 0, impl.options.certificate.data()});
    items.push_back({MHD_OPTION_HTTPS_MEM_KEY, 0, impl.options.key.data()});
  }
  items.push_back({MHD_OPTION_END, 0, nullptr});
  Fd copy(::fcntl(impl.socket.get(), F_DUPFD_CLOEXEC, 0));  // the library closes it
  if (!copy) return fail(Error::from_errno(errno, "copy", "the listening socket"));
  impl.daemon.reset(
      MHD_start_daemon(flags, 0, nullptr, nullptr, &Impl::on_request, &impl, MHD_OPTION_EXTERNAL_LOGGER,
                       &Impl::on_complaint, &impl, MHD_OPTION_LISTEN_SOCKET, copy.release(),
                       MHD_OPTION_NOTIFY_COMPLETED, &Impl::on_answered, &impl, MHD_OPTION_NOTIFY_CONNECTION,
                       &Impl::on_connection, &impl, MHD_OPTION_ARRAY, items.data(), MHD_OPTION_END));
  if (!impl.daemon) {
    const std::lock_guard lock(impl.mutex);
    return fail(tls ? ErrorCode::InvalidArgument : ErrorCode::Io,
                "answer on " + url() + ": " +
                    (impl.complaint.empty() ? "the HTTP library did not start" : impl.complaint));
  }
  impl.watch = std::thread([&impl] { impl.look_for_late_ones(); });
  return {};
}

Server::~Server() {
  if (!impl_) return;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ended = true;
  }
  impl_->ending.notify_all();
  if (impl_->watch.joinable()) impl_->watch.join();
  // No request may be with a worker when the library stops.
  if (impl_->workers) impl_->workers->stop();
  impl_->daemon.reset();
}

std::uint16_t Server::port() const {
  return impl_->address.port;
}

std::string Server::url() const {
  return (impl_->options.certificate.empty() ? "http://" : "https://") + to_string(impl_->address);
}

bool Server::is_loopback() const {
  return http::is_loopback(impl_->address.ip);
}

}  // namespace tierlog::http
