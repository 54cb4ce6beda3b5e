// daemon/service_manager.h - tells systemd how it goes (sd_notify's protocol: one datagram a message).
//
// Without NOTIFY_SOCKET in the environment nothing is told.
#pragma once

#include <optional>
#include <string>

#include "base/handle.h"
#include "base/time.h"

namespace tierlog::daemon {

class ServiceManager {
 public:
  // Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID and takes them out of the environment.
  static ServiceManager from_environment();

  void starting(const std::string& status);  // one line for `systemctl status`
  void ready(const std::string& status);     // READY=1, once; later calls change the line
  void stopping();
  // To be called from the main loop; tells at half the watchdog's interval that the loop lives.
  void alive(Nanoseconds now);

 private:
  void send(const std::string& message) const;

  Fd socket_;
  std::string address_;
  std::string told_;
  bool ready_ = false;
  std::optional<Nanoseconds> every_;
  Nanoseconds next_{};
};

}  // namespace tierlog::daemon
