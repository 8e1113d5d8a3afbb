// Connections to HAGs that were opened and greeted in advance, for the next client of any worker.
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
  bool isAsked = false;  // keepalive is set
};

// Any thread may call these. The connections are not watched by epoll: whether one still lives is checked when it is needed. If the path or the
// HAG forgot it without a RST, TCP's keepalive stays without an answer; keepalive also keeps a NAT from forgetting it.
class PreparedPool {
 public:
  struct Kept {
    std::vector<uint64_t> counts;  // for each path
    uint64_t endedMs = 0;          // the age of the youngest that its HAG had ended; 0: none had
  };

  explicit PreparedPool(Counters* counters) : counters_(counters) {}
  ~PreparedPool();
  PreparedPool(const PreparedPool&) = delete;
  PreparedPool& operator=(const PreparedPool&) = delete;

  void put(Prepared one);
  // Hands over the oldest connection that lives and goes over the same path, by its first subflow or one that joined. Those younger than
  // kJoiningMs stay: they may not have joined the other WANs yet, and if their only WAN failed, the request would be lost.
  bool take(const DialSpec& spec, uint64_t nowMs, Prepared* taken);
  static constexpr uint64_t kJoiningMs = 250;
  // Closes all but those that live, go over one of these paths and are younger than `maxAgeMs`. Each counts for the first path that it goes over;
  // for each path the `max` youngest are kept, and plain TCP ones only for the first path.
  Kept keep(const std::vector<DialSpec>& specs, uint64_t max, uint64_t maxAgeMs, uint64_t nowMs);
  // Closes the connections to this HAG that were made until `madeUntilMs`. Returns when the first one that is left was made; 0: none is left.
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
