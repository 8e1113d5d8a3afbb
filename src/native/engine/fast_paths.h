// Clients about whom nothing has to be decided: which ones, by which path, and what follows where that fails.
#pragma once

#include <memory>

#include "engine/relays.h"

class FastPaths {
 public:
  explicit FastPaths(Loop* loop) : loop_(loop) {}

  void set(std::shared_ptr<const FastPath> fastPath) { fastPath_ = std::move(fastPath); }
  // The id of the one that serves this client; 0: the owner is asked.
  uint64_t idFor(const Accepted& accepted) const;
  // How to reach the destination of one that it serves.
  DialSpec begin(Connection* connection);
  // From here on the owner decides about it.
  void handBack(Connection* connection, bool timedOut);
  void tellDemand();

 private:
  Loop* loop_;
  std::shared_ptr<const FastPath> fastPath_;
  uint64_t demand_ = 0;  // clients of this turn for whom it asks for a prepared connection
};
