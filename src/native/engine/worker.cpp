#include "engine/worker.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace {
constexpr int kEvents = 256;
constexpr size_t kHeldEvents = 256;

}  // namespace

uint64_t monotonicMs() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000 + static_cast<uint64_t>(time.tv_nsec) / 1000000;
}

Worker::Worker(WorkerHost* host, unsigned index)
    : host_(host),
      index_(index),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      now_(monotonicMs()),
      pipes_(&host->counters, host->limits.descriptorLimit) {
  watch(wake_, tagOf(this, Tag::Wake), EPOLLIN | EPOLLET);
}

Worker::~Worker() {
  stop();
  stopListening();
  const auto endOne = [this](int fd, void (*how)(int)) {
    if (fd >= 0) end(fd, how);
  };
  for (auto& entry : connections_) {
    Connection& connection = *entry.second;
    discardFlow(&connection.forward, &pipes_, &host_->counters);
    discardFlow(&connection.backward, &pipes_, &host_->counters);
    if (connection.phase == Connection::Phase::Relaying) --host_->counters.relaying;
    --host_->counters.connections;
    for (auto& attempt : connection.attempts) endOne(attempt->side.fd, abortFd);
    const bool isDrained = connection.phase == Connection::Phase::Draining;
    for (const int fd : {connection.client.fd, connection.upstream.fd}) endOne(fd, isDrained ? closeFd : abortFd);
  }
  for (auto& entry : probes_) endOne(entry.second->side.fd, abortFd);
  closeFd(wake_);
  closeFd(epoll_);
}

void Worker::start() {
  thread_ = std::thread([this] { run(); });
}

void Worker::stop() {
  command([](Worker& worker) { worker.stopping_ = true; });
  if (thread_.joinable()) thread_.join();
}

void Worker::command(std::function<void(Worker&)> order) {
  bool first;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    first = commands_.empty();
    commands_.push_back(std::move(order));
  }
  // One wake-up for all that come before the worker looks.
  if (!first) return;
  const uint64_t one = 1;
  while (write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void Worker::run() {
  // splice() has no MSG_NOSIGNAL: without this, a client that is gone would end the process. The other signals are the owner's, too.
  sigset_t signals;
  sigfillset(&signals);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  epoll_event events[kEvents];
  while (!stopping_) {
    const int count = epoll_wait(epoll_, events, kEvents, waitTimeout());
    now_ = monotonicMs();
    for (int i = 0; i < count; ++i) handle(events[i].data.u64, events[i].events);
    runTimers();
    // Behind all that closes connections by itself: what it queues again must outlive the turn.
    pumpQueued();
    released_.clear();
    closed_.clear();
    flush();
  }
}

// Milliseconds for epoll_wait; -1: nothing is due.
int Worker::waitTimeout() const {
  if (!ready_.empty()) return 0;
  uint64_t due = UINT64_MAX;
  if (!deadlines_.empty()) due = std::min(due, deadlines_.begin()->first);
  if (!connections_.empty()) due = std::min(due, nextSweep_);
  if (retryAccepting_ != 0) due = std::min(due, retryAccepting_);
  due = std::min(due, postAtMs_);
  if (due == UINT64_MAX) return -1;
  return due <= now_ ? 0 : static_cast<int>(std::min<uint64_t>(due - now_, 60000));
}

void Worker::handle(uint64_t tag, uint32_t events) {
  void* const object = reinterpret_cast<void*>(static_cast<uintptr_t>(tag & ~kTagMask));
  switch (static_cast<Tag>(tag & kTagMask)) {
    case Tag::Client:
      clientEvent(static_cast<Connection*>(object), events);
      break;
    case Tag::Upstream:
      upstreamEvent(static_cast<Connection*>(object), events);
      break;
    case Tag::Attempt:
      attemptEvent(static_cast<Attempt*>(object), events);
      break;
    case Tag::Listener:
      if (retryAccepting_ == 0) acceptClients(*static_cast<Listener*>(object));
      break;
    case Tag::Wake:
      runCommands();
      break;
  }
}

void Worker::runCommands() {
  uint64_t count;
  while (read(wake_, &count, sizeof count) < 0 && errno == EINTR) {
  }
  std::vector<std::function<void(Worker&)>> commands;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    commands.swap(commands_);
  }
  for (auto& order : commands) order(*this);
}

void Worker::runTimers() {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_) {
    Timed* const timed = deadlines_.begin()->second;
    setDeadline(timed, 0);
    timed->expired(*this);
  }
  if (now_ >= nextSweep_) sweepIdle();
  if (retryAccepting_ != 0 && now_ >= retryAccepting_) resumeAccepting();
}

void Worker::sweepIdle() {
  const int keepaliveS = host_->keepaliveS;
  // Asked for early enough for the first question to be in time.
  const uint64_t idleMs = std::min<uint64_t>(host_->limits.idleTimeoutMs / 16, static_cast<uint64_t>(keepaliveS) * 500);
  const uint64_t youngMs = std::clamp<uint64_t>(idleMs, 50, 60000);
  const uint64_t everyMs = std::min<uint64_t>(youngMs, 15000);
  nextSweep_ = now_ + everyMs;
  std::vector<Connection*> idle;
  for (auto& entry : connections_) {
    Connection* const connection = entry.second.get();
    if (connection->phase != Connection::Phase::Relaying) continue;
    if (now_ - connection->activeMs >= host_->limits.idleTimeoutMs) idle.push_back(connection);
    letRest(connection);
    if (connection->client.protocol == Protocol::Mptcp && now_ - connection->acceptedMs >= everyMs) askAboutOldSubflows(connection);
    const int keptAliveS = connection->keptAliveS;
    if (keptAliveS == keepaliveS || keptAliveS == Connection::kWatchedClosely || now_ - connection->acceptedMs < youngMs) continue;
    // Most are over before that, and need no more calls than they must. The client of a redirection has it from its listener.
    connection->keptAliveS = keepaliveS;
    keepAlive(connection->upstream.fd, keepaliveS);
    if (connection->kind == ListenerKind::Socks && connection->asksLeft == 0) keepAlive(connection->client.fd);
  }
  for (Connection* connection : idle) closeConnection(connection, Reason::Idle, {ETIMEDOUT, "idle"});
}

void Worker::pumpQueued() {
  std::vector<Connection*> queue;
  queue.swap(ready_);
  for (Connection* connection : queue) {
    connection->queued = false;
    if (connection->phase == Connection::Phase::Relaying) pumpBoth(connection);
  }
}

void Worker::flush() {
  if (demand_ > 0) tell(Demand{std::exchange(demand_, 0)});
  if (pipes_.ranOut()) noticePipes();
  if (now_ < postAtMs_ && events_.size() < kHeldEvents) return;
  postAtMs_ = UINT64_MAX;
  if (!events_.empty()) host_->post(&events_);
}

void Worker::tell(Event event, uint64_t withinMs) {
  postAtMs_ = std::min(postAtMs_, now_ + withinMs);
  events_.push_back(std::move(event));
}

// Of the first worker that meets it.
void Worker::noticePipes() {
  constexpr uint64_t kNoticeMs = 3600 * 1000;
  uint64_t due = host_->counters.pipesNoticeMs;
  if (now_ < due || !host_->counters.pipesNoticeMs.compare_exchange_strong(due, now_ + kNoticeMs)) return;
  tell(Limit{true, LimitCause::Pipes});
}

void Worker::setDeadline(Timed* timed, uint64_t deadline) {
  if (timed->deadline != 0) deadlines_.erase({timed->deadline, timed});
  timed->deadline = deadline;
  if (deadline != 0) deadlines_.insert({deadline, timed});
}

bool Worker::watch(int fd, uint64_t tag, uint32_t events, bool known) {
  epoll_event event;
  event.events = events;
  event.data.u64 = tag;
  return epoll_ctl(epoll_, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) == 0;
}

bool Worker::watchAgain(Connection* connection, const Side& side, uint32_t events) {
  return watch(side.fd, tagOf(connection, &side == &connection->upstream ? Tag::Upstream : Tag::Client), events, true);
}

// Closes what is watched by `closeFd` or `abortFd`. What is open twice stays in the epoll set when it is closed here (epoll(7)), with a
// pointer to what is gone; and while the owner's process forks, its child has all open a second time until it calls exec.
void Worker::end(int fd, void (*how)(int)) {
  epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr);
  how(fd);
  --host_->counters.descriptors;
}

void Worker::addListener(Listener listener) {
  listeners_.push_back(std::make_unique<Listener>(listener));
  if (retryAccepting_ == 0) watch(listener.fd, tagOf(listeners_.back().get(), Tag::Listener), EPOLLIN);
}

void Worker::stopListening() {
  isStopping_ = true;
  if (!events_.empty()) postAtMs_ = now_;
  // The objects stay: this turn's batch may still name them.
  for (auto& listener : listeners_) {
    if (listener->fd < 0) continue;
    end(listener->fd, closeFd);
    listener->fd = -1;
  }
  if (retryAccepting_ == 0) return;
  retryAccepting_ = 0;
  host_->resumedAccepting();
}

std::vector<Inspection> Worker::inspect(const std::vector<Connection*>& connections) const {
  std::vector<Inspection> found;
  for (const Connection* const one : connections) {
    if (one->phase != Connection::Phase::Relaying) continue;
    const int fd = one->upstream.fd;
    // What was MPTCP when it was opened may have fallen back since.
    const Protocol protocol = one->upstream.protocol == Protocol::Tcp ? Protocol::Tcp : protocolOf(fd);
    const bool isMptcp = protocol != Protocol::Tcp;
    found.push_back({one->id, one->clientAddress, localAddress(fd), remoteAddress(fd), protocol, one->forward.bytes, one->backward.bytes,
                     now_ - one->acceptedMs, isMptcp && isFull(fd), isMptcp ? subflowsOf(fd) : std::vector<Subflow>()});
  }
  return found;
}

std::vector<Inspection> Worker::inspect(const std::vector<ConnectionId>& ids) {
  std::vector<Connection*> connections;
  if (ids.empty()) {
    for (auto& entry : connections_) connections.push_back(entry.second.get());
  }
  for (const ConnectionId id : ids) {
    if (Connection* const connection = find(id)) connections.push_back(connection);
  }
  return inspect(connections);
}

std::vector<Inspection> Worker::inspectBusy(const Busy& wanted) {
  std::vector<Connection*> connections;
  for (auto& entry : connections_) {
    Connection* const one = entry.second.get();
    if (one->phase != Connection::Phase::Relaying || now_ - one->acceptedMs < wanted.olderThanMs) continue;
    if (one->forward.bytes + one->backward.bytes >= wanted.leastBytes) connections.push_back(one);
  }
  if (connections.size() > wanted.most) {
    const auto middle = connections.begin() + static_cast<std::ptrdiff_t>(wanted.most);
    std::nth_element(connections.begin(), middle, connections.end(), [](auto* one, auto* other) { return one->activeMs > other->activeMs; });
    connections.resize(wanted.most);
  }
  return inspect(connections);
}
