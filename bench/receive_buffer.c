/* Preloaded into ulogd2, whose own setting of the socket's buffer has no effect (2.0.8): gives each netlink socket
   the buffer that BENCH_RECEIVE_BYTES names, as soon as it is bound. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/socket.h>

int bind(int fd, const struct sockaddr* address, socklen_t size) {
  static int (*real)(int, const struct sockaddr*, socklen_t);
  if (!real) real = (int (*)(int, const struct sockaddr*, socklen_t))dlsym(RTLD_NEXT, "bind");
  const char* text = getenv("BENCH_RECEIVE_BYTES");
  if (text && address->sa_family == AF_NETLINK) {
    const int bytes = atoi(text);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  }
  return real(fd, address, size);
}
