#pragma once

#include <map>
#include <set>
#include <tuple>

#include "core/clients.h"
#include "engine/events.h"

// A worker's SOCKS clients that have asked for nothing yet, or were refused and have not left. They hold only places that nobody else needs.
class Lobby {
 public:
  void enter(const Address& client, ConnectionId connection);
  void leave(const Address& client, ConnectionId connection);
  // The oldest of the client that has the most here; 0: nobody is here.
  ConnectionId firstToGo() const;
  size_t count(const Address& client) const;

 private:
  using Rank = std::tuple<size_t, ConnectionId, Source>;  // how many, and the oldest of them, counted down
  static Rank rankOf(const Source& source, const std::set<ConnectionId>& connections);

  std::map<Source, std::set<ConnectionId>> all_;
  std::set<Rank> ranks_;
};
