// A tierlogd for the lab's tests: answers yes to everything and writes down what it was asked.
//   fake_tierlogd --config FILE     requests go to FILE.requests, one line each
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

namespace {

std::string socket_of(const std::string& config) {
  std::ifstream file(config);
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("socket: \"")) return line.substr(9, line.size() - 10);
  }
  return {};
}

}  // namespace

int main(int count, char** words) {
  if (count != 3 || std::strcmp(words[1], "--config") != 0) return 2;
  const std::string path = socket_of(words[2]);
  std::printf("fake tierlogd at %s\n", path.c_str());
  std::fflush(stdout);
  ::unlink(path.c_str());
  const int listener = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  if (::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return 3;
  ::listen(listener, 8);
  std::ofstream requests(std::string(words[2]) + ".requests", std::ios::app);
  for (int peer = 0; (peer = ::accept(listener, nullptr, nullptr)) >= 0; ::close(peer)) {
    std::string line;
    std::array<char, 4096> buffer{};
    for (ssize_t size = 0;
         line.find('\n') == std::string::npos && (size = ::read(peer, buffer.data(), buffer.size())) > 0;) {
      line.append(buffer.data(), static_cast<std::size_t>(size));
    }
    requests << line << std::flush;
    constexpr char kYes[] = "{\"v\":1,\"ok\":true}\n";
    static_cast<void>(::send(peer, kYes, sizeof kYes - 1, MSG_NOSIGNAL));
  }
}
