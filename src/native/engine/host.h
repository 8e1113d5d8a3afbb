// What all workers share, and what they need from the engine.
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
  uint64_t descriptorLimit = 0;  // for the engine, pipes included
  uint64_t acceptLimit = 0;      // descriptors above which accepting pauses, so that what is accepted can be served
};

// Any thread may use these.
class WorkerHost {
 public:
  virtual ~WorkerHost() = default;
  virtual void post(std::vector<Event>* events) = 0;  // moves them out
  virtual void pausedAccepting(LimitCause cause) = 0;
  virtual void resumedAccepting() = 0;
  virtual void tooMany(unsigned worker) = 0;  // asks all other workers to make room
  Counters counters;
  PreparedPool prepared{&counters};
  Shares shares;
  BufferBudget budget;
  BufferBudget idleBudget;  // for receive buffers of directions that do not move
  Refusals refusals;
  std::atomic<int> keepaliveS{kWanIdleS};  // for upstreams
  Outlets outlets;
  EngineLimits limits;
  Crowds crowds;

  // Descriptors in use after one more client, and after one more upstream socket for everyone who waits for one. Pipes within their own share of
  // the limit do not count, so that clients that have stopped reading do not keep others out.
  uint64_t descriptorsAhead() const;

  // Counts a client's connection, unless it has its share of places. Of the last quarter of all places it gets one only while it has fewer than
  // are free, so that however many clients are greedy, others find one: a dynamic threshold (Choudhury and Hahne, 1998). Not where the limit lets
  // one client have them all.
  bool takePlace(const Source& client);
};
