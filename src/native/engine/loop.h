// A worker's event loop: what is watched, what is due, and what its owner is told. It knows nothing of connections.
#pragma once

#include <sys/epoll.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "engine/host.h"

uint64_t monotonicMs();

constexpr uint32_t kStreamEvents = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;

// What a descriptor's events are for: a pointer and a kind in its low bits.
enum class Tag : uint64_t { Client = 0, Upstream = 1, Attempt = 2, Listener = 3, Wake = 4 };
template <typename T>
uint64_t tagOf(T* object, Tag kind) {
  return reinterpret_cast<uintptr_t>(object) | static_cast<uint64_t>(kind);
}
constexpr uint64_t kTagMask = 7;

// Something with a deadline. Relayed connections have none: a slow sweep finds idle ones.
struct Timed {
  explicit Timed(Tag is) : tag(is) {}
  virtual ~Timed() = default;
  const Tag tag;          // which of them it is
  uint64_t deadline = 0;  // ms; 0: none
};

class Loop {
 public:
  explicit Loop(WorkerHost* host);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  uint64_t now() const { return now_; }
  // Waits for events until this moment at most, or until something is due.
  int wait(epoll_event* events, int most, uint64_t untilMs);
  bool watch(int fd, uint64_t tag, uint32_t events, bool known = false);
  void unwatch(int fd);
  void end(int fd, void (*how)(int));
  void setDeadline(Timed* timed, uint64_t deadline);
  Timed* nextDue();  // it has no deadline any more; null: nothing is due
  // Posts it with this turn's events, or with the first that are due within so many milliseconds.
  void tell(Event event, uint64_t withinMs = 0);
  // Counts it. The owner is told of the first.
  void tellRefused(RefusalCause cause, const Address& client, const Address& destination = noAddress());
  void tellAtOnce();  // from now on, whatever might wait
  // epoll may still name it in this turn's batch.
  void keepUntilTurnEnds(std::unique_ptr<Timed> gone) { gone_.push_back(std::move(gone)); }
  void endTurn();

 private:
  WorkerHost* host_;
  int epoll_;
  uint64_t now_;
  std::set<std::pair<uint64_t, Timed*>> deadlines_;
  std::vector<std::unique_ptr<Timed>> gone_;
  std::vector<Event> events_;
  uint64_t postAtMs_ = UINT64_MAX;
  bool tellsAtOnce_ = false;
};
