// Limits the bytes that the kernel may hold: for all connections together, for those of one client, and for one of them.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>

#include "core/clients.h"

// Any thread may use it.
class BufferBudget {
 public:
  void setLimit(int64_t bytes) { limit_ = bytes; }  // to be called before anything is charged
  bool hasLimit() const { return limit_ > 0; }
  // Bytes that one connection of this client may have in addition.
  int64_t offered(const Source& client) const;
  // Whether the client holds more than half of its half, or others leave less than that.
  bool isTight(const Source& client) const;
  // Whether the client holds more than its half, or more than it leaves to the others.
  bool isOverdrawn(const Source& client) const;
  // Charges the client with so many more bytes; false if fewer are offered.
  bool take(const Source& client, int64_t bytes);
  // The same for the buffer that fast WANs need. For that one client alone may hold up to twice the limit, all together four times.
  bool takeNeeded(const Source& client, int64_t bytes);
  // Charges regardless of what is offered; a negative number gives back.
  void charge(const Source& client, int64_t bytes);

 private:
  int64_t heldBy(const Source& client) const;
  int64_t offeredNow(const Source& client) const;
  void add(const Source& client, int64_t bytes);

  int64_t limit_ = 0;  // no limit
  mutable std::mutex mutex_;
  int64_t all_ = 0;                    // counts each client up to half of the limit; what it holds above takes nothing from the others
  int64_t total_ = 0;                  // all of what they hold
  std::map<Source, int64_t> clients_;  // bytes charged to each client
};
