#include "engine/host.h"

#include <algorithm>

uint64_t WorkerHost::descriptorsAhead() const {
  const uint64_t relaying = counters.relaying;
  const uint64_t connections = counters.connections;
  const uint64_t descriptors = counters.descriptors;
  const uint64_t pipes = 2 * (counters.pipesInUse + counters.pipesPooled);
  const uint64_t left = std::min({pipes, limits.descriptorLimit - limits.acceptLimit, descriptors});
  return descriptors - left + (connections > relaying ? connections - relaying : 0) + 2;
}

bool WorkerHost::takePlace(const Source& client) {
  const uint64_t limit = limits.maxConnectionsPerClient;
  const uint64_t all = limits.maxConnections;
  if (limit == 0 || limit >= all) return shares.take(client, limit);
  // Those that have asked for nothing make room.
  const uint64_t taken = counters.connections - std::min<uint64_t>(counters.waiting, counters.connections);
  const uint64_t free = all - std::min(taken, all);
  return shares.take(client, free > all / 4 ? limit : std::min(limit, std::max<uint64_t>(free, 1)));
}
