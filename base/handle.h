// base/handle.h - the only place where kernel and C-library handles are closed.
//
//   Owned<mnl_socket, mnl_socket_close>   what a C library hands out as a pointer
//   Fd                                    what the kernel hands out as a number
// Both are move-only and safe to drop on any error path.
#pragma once

#include <unistd.h>

#include <memory>
#include <utility>

namespace tierlog {

template <auto close_fn>
struct Closer {
  template <typename T>
  void operator()(T* handle) const noexcept {
    static_cast<void>(close_fn(handle));
  }
};

template <typename T, auto close_fn>
using Owned = std::unique_ptr<T, Closer<close_fn>>;

// A file descriptor that is closed once. Empty (-1) after a move.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int number) noexcept : number_(number) {}
  Fd(Fd&& other) noexcept : number_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) reset(other.release());
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(-1); }

  explicit operator bool() const noexcept { return number_ >= 0; }
  int get() const noexcept { return number_; }                   // borrowed: never close it
  int release() noexcept { return std::exchange(number_, -1); }  // the caller closes it
  void reset(int number = -1) noexcept {
    if (number_ >= 0) ::close(number_);
    number_ = number;
  }

 private:
  int number_ = -1;
};

}  // namespace tierlog
