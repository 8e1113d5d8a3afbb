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
