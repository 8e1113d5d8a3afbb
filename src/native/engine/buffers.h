// Keeps what the kernel holds for a connection within the budget (budget.h).
#pragma once

#include "engine/connection.h"

// One direction of a relayed connection.
struct Direction {
  Flow* flow;
  Side* source;
  Side* target;
};
inline Direction forwardOf(Connection* connection) { return {&connection->forward, &connection->client, &connection->upstream}; }
inline Direction backwardOf(Connection* connection) { return {&connection->backward, &connection->upstream, &connection->client}; }

class Buffers {
 public:
  explicit Buffers(BufferBudget* budget) : budget_(budget) {}

  void beginSmall(Connection* connection);
  bool countBulk(Connection* connection, const Direction& direction);
  bool mayHold(Connection* connection, const Direction& direction, int size);
  void stopCounting(Connection* connection, Flow* flow);
  void letRest(Connection* connection, uint64_t nowMs);

 private:
  void charge(Connection* connection, Flow* flow, int64_t bytes);

  BufferBudget* budget_;
};
