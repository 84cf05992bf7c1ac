// A thread that TVM lives on, as in backends/tvm/run/executor.py: its virtual machine runs one call at a time, and a
// pool of workers belongs to the thread that calls.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace gw {

class Worker {
 public:
  Worker() : thread_([this] { serve(); }) {}
  Worker(const Worker &) = delete;

  ~Worker() {
    do_work(nullptr);
    thread_.join();
  }

  // Runs a function on the thread and waits for it; throws what it throws. An empty one ends the thread.
  void do_work(const std::function<void()> &work) {
    std::lock_guard<std::mutex> turn(turn_);
    std::unique_lock<std::mutex> held(lock_);
    work_ = work, error_ = nullptr, due_ = true;
    changed_.notify_all();
    changed_.wait(held, [this] { return !due_; });
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void serve() {
    std::unique_lock<std::mutex> held(lock_);
    for (bool going = true; going;) {
      changed_.wait(held, [this] { return due_; });
      going = static_cast<bool>(work_);
      try {
        if (going) work_();
      } catch (...) {
        error_ = std::current_exception();
      }
      due_ = false;
      changed_.notify_all();
    }
  }

  std::mutex turn_, lock_;
  std::condition_variable changed_;
  std::function<void()> work_;
  std::exception_ptr error_;
  bool due_ = false;
  std::thread thread_;
};

}  // namespace gw
