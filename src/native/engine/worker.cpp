#include "engine/worker.h"

#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

Worker::Worker(WorkerHost* host, unsigned index)
    : wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      loop_(host),
      relays(host, &loop_),
      survey(host, &loop_, &relays),
      fastPaths(&loop_),
      dialler(host, &loop_, &relays, &fastPaths),
      socks(host, &loop_, &relays),
      acceptor(host, &loop_, &relays, &fastPaths, &dialler, &socks, index) {
  loop_.watch(wake_, tagOf(this, Tag::Wake), EPOLLIN | EPOLLET);
}

Worker::~Worker() {
  stop();
  closeFd(wake_);
}

void Worker::start() {
  thread_ = std::thread([this] { run(); });
}

void Worker::stop() {
  command([](Worker& worker) { worker.stopping_ = true; });
  if (thread_.joinable()) thread_.join();
}

void Worker::command(std::function<void(Worker&)> command) {
  bool first;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    first = commands_.empty();
    commands_.push_back(std::move(command));
  }
  // One wake-up for all commands that come before the worker reads them.
  if (!first) return;
  const uint64_t one = 1;
  while (write(wake_, &one, sizeof one) < 0 && errno == EINTR) {
  }
}

void Worker::run() {
  // splice(2) has no MSG_NOSIGNAL: with SIGPIPE, a client that has gone would end the process. All other signals are the owner's.
  sigset_t signals;
  sigfillset(&signals);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  constexpr int kEvents = 256;
  epoll_event events[kEvents];
  while (!stopping_) {
    const int count = loop_.wait(events, kEvents, dueMs());
    for (int i = 0; i < count; ++i) handle(events[i].data.u64, events[i].events);
    runTimers();
    // After everything that closes connections: those that it queues again must survive the turn.
    relays.pumpQueued();
    fastPaths.tellDemand();
    relays.noticePipes();
    loop_.endTurn();
  }
}

// The next time to do something, besides deadlines.
uint64_t Worker::dueMs() const {
  if (relays.hasQueued()) return 0;
  return std::min(survey.nextSweepMs(), acceptor.retryMs());
}

void Worker::handle(uint64_t tag, uint32_t events) {
  void* const object = reinterpret_cast<void*>(static_cast<uintptr_t>(tag & ~kTagMask));
  switch (static_cast<Tag>(tag & kTagMask)) {
    case Tag::Client:
      clientEvent(static_cast<Connection*>(object), events);
      break;
    case Tag::Upstream:
      relays.upstreamEvent(static_cast<Connection*>(object), events);
      break;
    case Tag::Attempt:
      dialler.attemptEvent(static_cast<Attempt*>(object), events);
      break;
    case Tag::Listener:
      acceptor.acceptClients(*static_cast<Listener*>(object));
      break;
    case Tag::Wake:
      runCommands();
      break;
  }
}

void Worker::clientEvent(Connection* connection, uint32_t events) {
  if (!relays.clientEvent(connection, events)) return;
  if (connection->phase == Connection::Phase::Refusing) {
    socks.drainRefused(connection);
  } else if (connection->committed) {
    dialler.sendEarly(connection);
  } else if (connection->kind == ListenerKind::Socks) {
    socks.serve(connection);
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
  while (Timed* const timed = loop_.nextDue()) {
    timed->tag == Tag::Attempt ? dialler.expired(static_cast<Attempt*>(timed)) : expired(static_cast<Connection*>(timed));
  }
  if (loop_.now() >= survey.nextSweepMs()) survey.sweepIdle();
  acceptor.retry();
}

void Worker::expired(Connection* connection) {
  if (connection->fastPathId == 0 || connection->phase != Connection::Phase::Opening) return relays.expired(connection);
  // An attempt that may have sent its request goes on alone.
  if (!connection->committed) fastPaths.handBack(connection, true);
}
