// A worker's event loop: watched descriptors, deadlines, and the events for the owner. It knows nothing about connections.
#pragma once

#include <sys/epoll.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "engine/host.h"

uint64_t monotonicMs();

constexpr uint32_t kStreamEvents = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;

// What a descriptor's events belong to: an object, and its kind in the low bits of the pointer.
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
  const Tag tag;          // what it is
  uint64_t deadline = 0;  // ms; 0: none
};

class Loop {
 public:
  explicit Loop(WorkerHost* host);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  uint64_t now() const { return now_; }
  // Waits for events, at most until `untilMs` or the first deadline.
  int wait(epoll_event* events, int max, uint64_t untilMs);
  bool watch(int fd, uint64_t tag, uint32_t events, bool known = false);
  void unwatch(int fd);
  void end(int fd, void (*how)(int));
  void setDeadline(Timed* timed, uint64_t deadline);
  Timed* nextDue();  // clears its deadline; null: nothing is due
  // Posts the event with this turn's, or with the next ones that are posted, after `withinMs` at the latest.
  void tell(Event event, uint64_t withinMs = 0);
  // Counts a refusal. The owner is told of the first.
  void tellRefused(RefusalCause cause, const Address& client, const Address& destination = noAddress());
  void tellAtOnce();  // from now on no event waits for others
  // A client came, or payload moved. The owner is told if nothing had for a while.
  void noteActivity();
  // For a closed object, because an event of this turn may still point to it.
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
