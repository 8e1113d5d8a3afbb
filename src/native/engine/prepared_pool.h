// Connections to HAGs that were opened and greeted in advance, for whichever worker's client comes next.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "core/pipe_pool.h"
#include "engine/events.h"

struct Prepared {
  int fd = -1;
  Protocol protocol = Protocol::Unknown;
  DialSpec spec;  // how it was made
  uint64_t connectMs = 0;
  uint64_t sinceMs = 0;
  bool isAsked = false;  // now and then, whether its HAG is there
};

// All of it may be called from any thread. Nobody polls them: whether one is still alive is seen when it is looked at. What its path or its
// HAG has forgotten without a word is seen by the silence after TCP's keepalive, which also keeps a NAT from forgetting it.
class PreparedPool {
 public:
  struct Kept {
    std::vector<uint64_t> counts;  // of each way
    uint64_t endedMs = 0;          // the age of the youngest that its HAG had ended; 0: none
  };

  explicit PreparedPool(Counters* counters) : counters_(counters) {}
  ~PreparedPool();
  PreparedPool(const PreparedPool&) = delete;
  PreparedPool& operator=(const PreparedPool&) = delete;

  void put(Prepared one);
  // The oldest that lives and leads the same way, which is the taker's from then on; one that was made over another WAN does where it has
  // joined this one. One that is so young that it may not have joined the other WANs yet is left: with its only WAN a request on its way
  // would be lost.
  bool take(const DialSpec& spec, uint64_t nowMs, Prepared* taken);
  static constexpr uint64_t kJoiningMs = 250;
  // Closes all but those that live, lead one of these ways and are younger than `mostMs`. Each counts for the first way that it leads, and
  // of each way the `most` youngest are kept; of plain TCP only those of the first.
  Kept keep(const std::vector<DialSpec>& specs, uint64_t most, uint64_t mostMs, uint64_t nowMs);
  // Closes those to this HAG, or of them those that were made until then. Says when the first that is left was made; 0: none is.
  uint64_t drop(const Address& remote, uint64_t madeUntilMs = UINT64_MAX);
  void clear();

 private:
  void close(int fd);
  template <typename IsMeant>
  void closeIf(IsMeant isMeant);

  std::mutex mutex_;
  std::vector<Prepared> all_;
  Counters* counters_;
};
