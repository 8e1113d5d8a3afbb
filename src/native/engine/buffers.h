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
  Buffers(BufferBudget* budget, BufferBudget* idleBudget) : budget_(budget), idleBudget_(idleBudget) {}

  void begin(Connection* connection);
  bool countBulk(Connection* connection, const Direction& direction);
  bool mayHold(Connection* connection, const Direction& direction, int size);
  void forget(Connection* connection, Flow* flow);
  bool letRest(Connection* connection, uint64_t nowMs);

 private:
  void charge(Connection* connection, Flow* flow, int64_t bytes);

  BufferBudget* budget_;
  BufferBudget* idleBudget_;
};
