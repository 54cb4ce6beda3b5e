// http/workers.h - a few threads for answers; long ones never take the last.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace tierlog::http {

class Workers {
 public:
  static constexpr std::size_t kThreads = 3;
  static constexpr std::size_t kWaiting = 256;  // at most as many jobs wait

  Workers();
  ~Workers() { stop(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  // False: too many wait already, or it was stopped.
  bool give(std::function<void()> job, bool is_long);
  // Runs what waits and ends the threads.
  void stop();

 private:
  struct Job {
    std::function<void()> work;
    bool is_long = false;
  };
  void run();
  bool next(Job& job);

  std::mutex mutex_;
  std::condition_variable there_is_work_;
  std::deque<Job> jobs_;
  std::size_t long_ones_ = 0;  // under way
  bool stop_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tierlog::http
