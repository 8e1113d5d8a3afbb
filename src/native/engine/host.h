// What all workers share, and what a worker needs of its engine.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "core/budget.h"
#include "core/clients.h"
#include "core/crowd.h"
#include "core/outlets.h"
#include "core/refusals.h"
#include "engine/events.h"
#include "engine/prepared_pool.h"

struct EngineLimits {
  uint64_t maxConnections = 0;
  uint64_t maxConnectionsPerClient = 0;  // 0: no limit
  uint64_t idleTimeoutMs = 0;
  uint64_t handshakeTimeoutMs = 0;
  uint64_t decisionTimeoutMs = 0;
  uint64_t descriptorLimit = 0;  // of the engine, pipes included
  uint64_t acceptLimit = 0;      // descriptors above which accepting pauses, so that what is accepted can be served
};

// What the workers share; all of it may be called from any thread.
class WorkerHost {
 public:
  virtual ~WorkerHost() = default;
  virtual void post(std::vector<Event>* events) = 0;  // takes them
  virtual void pausedAccepting(LimitCause cause) = 0;
  virtual void resumedAccepting() = 0;
  virtual void tooMany(unsigned worker) = 0;  // the others are to give way
  Counters counters;
  PreparedPool prepared{&counters};
  Shares shares;
  BufferBudget budget;
  Refusals refusals;
  std::atomic<int> keepaliveS{kWanIdleS};  // of upstreams
  Outlets outlets;
  EngineLimits limits;
  Crowds crowds;

  // With another client, and with an upstream socket for everyone who waits for one: the first, or one more that joins their race. Without
  // the pipes as far as they have what the limit leaves them, so that readers that have stopped keep nobody out.
  uint64_t descriptorsAhead() const;
};
