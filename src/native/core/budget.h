// What connections may have the kernel hold for them: all together, those of one client, and one of them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "core/clients.h"

// May be used from any thread.
class BufferBudget {
 public:
  void setLimit(int64_t bytes) { limit_ = bytes; }  // before anything is charged
  bool hasLimit() const { return limit_ > 0; }
  // Bytes that one connection of this client may have beside what it has.
  int64_t offered(const Source& client) const;
  // The client holds more than its half.
  bool isOverdrawn(const Source& client) const;
  // Charges the client with so many more; false: not so many are offered.
  bool take(const Source& client, int64_t bytes);
  // The same for what a fast path needs. For that a client may hold up to twice the limit.
  bool takeNeeded(const Source& client, int64_t bytes);
  // Whatever is offered; less than 0 gives back.
  void charge(const Source& client, int64_t bytes);

 private:
  int64_t heldBy(const Source& client) const;
  int64_t offeredNow(const Source& client) const;
  void add(const Source& client, int64_t bytes);

  int64_t limit_ = 0;  // none
  mutable std::mutex mutex_;
  int64_t all_ = 0;                    // of each client no more than half of the limit: what is above that takes nothing from the others
  std::map<Source, int64_t> clients_;  // those that are charged
};
