// What one client may take: of a listener's places, and of the log.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "core/route.h"
#include "engine/events.h"

// Who a client is to limits: an IPv4 address, or the first 64 bits of an IPv6 one, because a machine may take any address of its network
// (RFC 4291 section 2.5.1). In a LAN all devices share those bits, and each may take any address of either family: there it is the device
// (LanClients).
using Source = std::pair<uint64_t, uint64_t>;
Source sourceOf(const Address& client);

// Connections of each client, of all workers. A limit of 0 is none.
class Shares {
 public:
  bool take(const Source& client, uint64_t limit);
  void giveBack(const Source& client);

 private:
  std::mutex mutex_;
  std::map<Source, uint64_t> taken_;
};

// Who was refused, until somebody asks. All of it may be called from any thread.
class Refusals {
 public:
  // True for the first since they were taken.
  bool add(RefusalCause cause, const Address& client, const Address& destination);
  std::vector<Refusal> take();

 private:
  std::mutex mutex_;
  uint64_t count_ = 0;
  std::map<std::pair<RefusalCause, Source>, Refusal> all_;
  std::map<RefusalCause, Refusal> others_;  // of sources beyond those that are remembered
};

// Who the clients of a redirection are, asked of the kernel once a second.
class LanClients {
 public:
  struct Known {
    bool isOwn;     // this machine itself
    Source source;  // its MAC address if it is a neighbour; otherwise, behind another router, as everywhere
    uint64_t untilMs;
  };
  const Known& of(const Address& client, Routes* routes, uint64_t nowMs);

 private:
  std::map<std::pair<uint64_t, uint64_t>, Known> known_;  // by address
};

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
