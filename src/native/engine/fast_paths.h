// Serves clients without asking the owner: which ones, over which path, and what happens if that fails.
#pragma once

#include <memory>

#include "engine/relays.h"

class FastPaths {
 public:
  explicit FastPaths(Loop* loop) : loop_(loop) {}

  void set(std::shared_ptr<const FastPath> fastPath) { fastPath_ = std::move(fastPath); }
  // The id of the fast path for this client; 0: ask the owner.
  uint64_t idFor(const Accepted& accepted) const;
  // How to reach the connection's destination by the fast path.
  DialSpec begin(Connection* connection);
  // From now on the owner decides about the connection.
  void handBack(Connection* connection, bool timedOut);
  void tellDemand();

 private:
  Loop* loop_;
  std::shared_ptr<const FastPath> fastPath_;
  uint64_t demand_ = 0;  // clients in this turn whose path uses prepared connections
};
