#include "engine/loop.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>

namespace {
constexpr size_t kHeldEvents = 256;
constexpr uint64_t kCalmMs = 9000;
}  // namespace

uint64_t monotonicMs() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000 + static_cast<uint64_t>(time.tv_nsec) / 1000000;
}

Loop::Loop(WorkerHost* host) : host_(host), epoll_(epoll_create1(EPOLL_CLOEXEC)), now_(monotonicMs()) {}

Loop::~Loop() { closeFd(epoll_); }

int Loop::wait(epoll_event* events, int max, uint64_t untilMs) {
  uint64_t due = std::min(untilMs, postAtMs_);
  if (!deadlines_.empty()) due = std::min(due, deadlines_.begin()->first);
  const int timeout = due == UINT64_MAX ? -1 : due <= now_ ? 0 : static_cast<int>(std::min<uint64_t>(due - now_, 60000));
  const int count = epoll_wait(epoll_, events, max, timeout);
  now_ = monotonicMs();
  return count;
}

bool Loop::watch(int fd, uint64_t tag, uint32_t events, bool known) {
  epoll_event event;
  event.events = events;
  event.data.u64 = tag;
  return epoll_ctl(epoll_, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0;
}

void Loop::unwatch(int fd) { epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); }

// Closes a watched descriptor with `closeFd` or `abortFd`. It has to leave the epoll set first: after fork(2) the owner's child has it open,
// too, until it calls exec, and as long as somebody does, close(2) here would leave it in the set (epoll(7)) with a pointer to a freed object.
void Loop::end(int fd, void (*how)(int)) {
  unwatch(fd);
  how(fd);
  --host_->counters.descriptors;
}

void Loop::setDeadline(Timed* timed, uint64_t deadline) {
  if (timed->deadline != 0) deadlines_.erase({timed->deadline, timed});
  timed->deadline = deadline;
  if (deadline != 0) deadlines_.insert({deadline, timed});
}

Timed* Loop::nextDue() {
  if (deadlines_.empty() || deadlines_.begin()->first > now_) return nullptr;
  Timed* const timed = deadlines_.begin()->second;
  setDeadline(timed, 0);
  return timed;
}

void Loop::tell(Event event, uint64_t withinMs) {
  postAtMs_ = std::min(postAtMs_, now_ + (tellsAtOnce_ ? 0 : withinMs));
  events_.push_back(std::move(event));
}

void Loop::tellRefused(RefusalCause cause, const Address& client, const Address& destination) {
  if (host_->refusals.add(cause, client, destination)) tell(Refused{});
}

void Loop::noteActivity() {
  const uint64_t before = host_->counters.activeMs.load(std::memory_order_relaxed);
  if (before >= now_) return;
  host_->counters.activeMs.store(now_, std::memory_order_relaxed);
  if (now_ - before >= kCalmMs) tell(Active{});
}

void Loop::tellAtOnce() {
  tellsAtOnce_ = true;
  if (!events_.empty()) postAtMs_ = now_;
}

void Loop::endTurn() {
  gone_.clear();
  if (now_ < postAtMs_ && events_.size() < kHeldEvents) return;
  postAtMs_ = UINT64_MAX;
  if (!events_.empty()) host_->post(&events_);
}
