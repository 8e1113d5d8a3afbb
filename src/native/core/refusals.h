// Clients that were refused, counted until somebody asks, so that a flood of them costs a few lines of the log.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "core/clients.h"

enum class RefusalCause : uint8_t { NotAClient, Method, Credentials, Share, Waited, NotRedirected, Loop };

// Clients of one source that were refused for one reason. Without a client: all sources beyond those that were remembered.
struct Refusal {
  RefusalCause cause;
  Address client;
  Address destination;
  uint64_t count;
};

// Any thread may call these.
class Refusals {
 public:
  // True for the first refusal since the last `take`.
  bool add(RefusalCause cause, const Address& client, const Address& destination);
  std::vector<Refusal> take();

 private:
  std::mutex mutex_;
  uint64_t count_ = 0;
  std::map<std::pair<RefusalCause, Source>, Refusal> all_;
  std::map<RefusalCause, Refusal> others_;  // of sources beyond those that are remembered
};
