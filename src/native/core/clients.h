// Who a client is to limits, and how many places each has.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "core/route.h"

// Whom limits count as one client: an IPv4 address, or the first 64 bits of an IPv6 one, because a machine may take any address of its network
// (RFC 4291 section 2.5.1). In a LAN all devices share those bits, and each may take any address of either family, so there a client is a device
// (LanClients).
using Source = std::pair<uint64_t, uint64_t>;
Source sourceOf(const Address& client);

// Counts each client's connections over all workers. A limit of 0 means none.
class Shares {
 public:
  bool take(const Source& client, uint64_t limit);
  void giveBack(const Source& client);

 private:
  std::mutex mutex_;
  std::map<Source, uint64_t> taken_;
};

// Tells redirected clients apart. Asks the kernel at most once a second for each.
class LanClients {
 public:
  struct Known {
    bool isOwn;     // this machine itself
    Source source;  // a neighbour's MAC address; of a client behind another router, sourceOf() its address
    uint64_t untilMs;
  };
  const Known& of(const Address& client, Routes* routes, uint64_t nowMs);

 private:
  std::map<std::pair<uint64_t, uint64_t>, Known> known_;  // by address
};
