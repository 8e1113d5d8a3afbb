// What connections may hold in the kernel's buffers: all together, those of one client, and one of them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "clients.h"

// May be used from any thread.
class BufferBudget {
 public:
  void setLimit(int64_t bytes) { limit_ = bytes; }  // before anything is charged
  bool hasLimit() const { return limit_ > 0; }
  // Charges the client with so many bytes more, or less, and returns what one of its connections may hold.
  int64_t charge(const Address& client, int64_t bytes);

 private:
  int64_t limit_ = 0;  // none
  std::mutex mutex_;
  int64_t all_ = 0;
  std::map<Source, int64_t> clients_;  // those that are charged
};

// Whatever others hold: with it any connection gets on.
constexpr int64_t kLeastAllowance = 128 * 1024;
