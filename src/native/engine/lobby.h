#pragma once

#include <map>
#include <set>
#include <tuple>

#include "core/clients.h"
#include "engine/events.h"

// A worker's SOCKS clients that have asked for nothing yet, or were refused and have not left. They leave if others need their places.
class Lobby {
 public:
  void enter(const Address& client, ConnectionId connection);
  void leave(const Address& client, ConnectionId connection);
  // The oldest connection of the client that has the most; 0: the lobby is empty.
  ConnectionId firstToGo() const;
  size_t count(const Address& client) const;

 private:
  using Rank = std::tuple<size_t, ConnectionId, Source>;  // how many, and the oldest of them, with UINT64_MAX - id so that the oldest is the greatest
  static Rank rankOf(const Source& source, const std::set<ConnectionId>& connections);

  std::map<Source, std::set<ConnectionId>> all_;
  std::set<Rank> ranks_;
};
