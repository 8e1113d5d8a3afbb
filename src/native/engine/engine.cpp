#include "engine/engine.h"

#include <dirent.h>
#include <errno.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <iterator>

namespace {
// Descriptors left for the process itself: files, child processes and sockets that the owner opens.
constexpr uint64_t kOwnersDescriptors = 64;
// For pipes of connections that are busy at the same time; the bytes of others are copied.
constexpr uint64_t kPipeDescriptors = 256;

uint64_t openDescriptors() {
  uint64_t count = 0;
  DIR* const folder = opendir("/proc/self/fd");
  if (folder == nullptr) return 64;
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}
}  // namespace

Engine::Engine(const EngineOptions& options, std::function<void()> notify) : notify_(std::move(notify)) {
  rlimit files = {1024, 1024};
  getrlimit(RLIMIT_NOFILE, &files);
  const uint64_t taken = openDescriptors() + kOwnersDescriptors + 2 * options.workers;
  limits.descriptorLimit = files.rlim_cur > taken ? files.rlim_cur - taken : 0;
  limits.acceptLimit = limits.descriptorLimit - std::min(kPipeDescriptors, limits.descriptorLimit / 4);
  limits.maxConnections = options.maxConnections;
  limits.maxConnectionsPerClient = options.maxConnectionsPerClient;
  budget.setLimit(options.bufferMemory);
  idleBudget.setLimit(options.bufferMemory);
  limits.idleTimeoutMs = options.idleTimeoutMs;
  limits.handshakeTimeoutMs = options.handshakeTimeoutMs;
  limits.decisionTimeoutMs = options.decisionTimeoutMs;
  outlets.mark = options.mark;
  WorkerHost::counters.activeMs = monotonicMs();
  for (unsigned i = 0; i < std::clamp(options.workers, 1U, Acceptor::kMaxWorkers); ++i) {
    workers_.push_back(std::make_unique<Worker>(static_cast<WorkerHost*>(this), i));
    workers_.back()->start();
  }
}

Engine::~Engine() { close(); }

void Engine::close() {
  // Stop all before any is destroyed, because workers call one another.
  for (auto& worker : workers_) worker->stop();
  workers_.clear();
  prepared.clear();
  for (const Event& event : takeEvents()) {
    if (const auto* const probed = std::get_if<Probed>(&event)) closeFd(probed->fd);
  }
}

bool Engine::listen(const ListenOptions& options, Address* bound, Protocol* protocol, Failure* failure) {
  const bool mptcp = options.kind == ListenerKind::Socks;
  // With SO_REUSEPORT we would silently share the port with another process of this user. A socket without it is refused.
  const int guard = listenSocket(options.address, mptcp, false, protocol, failure);
  if (guard < 0) return false;
  *bound = localAddress(guard);
  closeFd(guard);
  std::vector<int> sockets;
  for (size_t i = 0; i < workers_.size(); ++i) {
    const int fd = listenSocket(*bound, mptcp, true, protocol, failure);
    if (fd < 0) {
      std::for_each(sockets.begin(), sockets.end(), closeFd);
      return false;
    }
    // Accepted sockets inherit it, so that closing one sends a RST, also when the process dies. Relays unsets it for an orderly end.
    if (options.kind == ListenerKind::Redirect) resetOnClose(fd, true);
    sockets.push_back(fd);
  }
  WorkerHost::counters.descriptors += sockets.size();
  for (size_t i = 0; i < workers_.size(); ++i) {
    const Listener listener = {sockets[i], options.kind, *protocol, options.authentication, options.clients, options.refusesLoops};
    workers_[i]->command([listener](Worker& worker) { worker.acceptor.addListener(listener); });
  }
  return true;
}

void Engine::stopListening() {
  for (auto& worker : workers_) worker->command([](Worker& one) { one.acceptor.stopListening(); });
}

Worker* Engine::workerOf(ConnectionId id) {
  const unsigned index = Acceptor::workerOf(id);
  return index < workers_.size() ? workers_[index].get() : nullptr;
}

void Engine::setFastPath(const std::shared_ptr<const FastPath>& fastPath) {
  for (auto& worker : workers_) worker->command([fastPath](Worker& one) { one.fastPaths.set(fastPath); });
}

void Engine::dial(ConnectionId id, DialSpec spec, uint32_t number) {
  if (Worker* const worker = workerOf(id)) {
    worker->command([id, spec = std::move(spec), number](Worker& one) mutable { one.dialler.dial(id, std::move(spec), number); });
  }
}

void Engine::authenticate(ConnectionId id, bool accepted) {
  if (Worker* const worker = workerOf(id)) worker->command([id, accepted](Worker& one) { one.socks.authenticate(id, accepted); });
}

void Engine::refuse(ConnectionId id, uint8_t reply) {
  if (Worker* const worker = workerOf(id)) worker->command([id, reply](Worker& one) { one.socks.refuse(id, reply); });
}

void Engine::reset(ConnectionId id) {
  if (Worker* const worker = workerOf(id)) worker->command([id](Worker& one) { one.relays.reset(id); });
}

void Engine::probe(uint64_t id, DialSpec spec, Purpose purpose) {
  if (workers_.empty()) return;
  workers_[id % workers_.size()]->command([id, spec = std::move(spec), purpose](Worker& one) { one.dialler.probe(id, spec, purpose); });
}

PreparedPool::Kept Engine::keepPrepared(const std::vector<DialSpec>& specs, uint64_t max, uint64_t maxAgeMs) {
  return prepared.keep(specs, max, maxAgeMs, monotonicMs());
}

void Engine::abandon(const Address& source) {
  for (auto& worker : workers_) worker->command([source](Worker& one) { one.dialler.abandon(source); });
}

void Engine::resetConnectionsTo(uint64_t id, const Address& remote) {
  prepared.drop(remote);
  countAll(id, [remote](Worker& one) {
    one.dialler.resetAttempts(remote);
    return one.survey.resetConnectionsTo(remote);
  });
}

void Engine::resetStranded(uint64_t id) {
  countAll(id, [](Worker& one) { return one.survey.resetStranded(); });
}

void Engine::countOnly(uint64_t id, const Address& source, uint64_t olderThanMs) {
  countAll(id, [source, olderThanMs](Worker& one) { return one.survey.countOnly(source, olderThanMs); });
}

void Engine::watchConnectionsTo(const Address& remote, bool closely) {
  for (auto& worker : workers_) worker->command([remote, closely](Worker& one) { one.survey.watchConnectionsTo(remote, closely); });
}

void Engine::setKeepalive(int seconds) {
  keepaliveS = seconds;
  for (auto& worker : workers_) worker->command([](Worker& one) { one.survey.sweepNow(); });
}

void Engine::countAll(uint64_t id, const std::function<uint64_t(Worker&)>& act) {
  struct Job {
    std::atomic<size_t> left;
    std::atomic<uint64_t> count{0};
  };
  const auto job = std::make_shared<Job>();
  job->left = workers_.size();
  for (auto& worker : workers_) {
    worker->command([this, id, job, act](Worker& one) {
      job->count += act(one);
      if (--job->left > 0) return;
      postOne(Counted{id, job->count});
    });
  }
}

void Engine::inspect(uint64_t id, std::vector<ConnectionId> connections) {
  inspectAll(id, [connections = std::move(connections)](Worker& one) { return one.survey.inspect(connections); });
}

void Engine::inspectBusy(uint64_t id, Busy wanted) {
  wanted.max = std::max<size_t>(1, wanted.max / std::max<size_t>(1, workers_.size()));
  inspectAll(id, [wanted](Worker& one) { return one.survey.inspectBusy(wanted); });
}

void Engine::inspectAll(uint64_t id, const std::function<std::vector<Inspection>(Worker&)>& look) {
  struct Job {
    std::mutex mutex;
    size_t left;
    std::vector<Inspection> found;
  };
  const auto job = std::make_shared<Job>();
  job->left = workers_.size();
  for (auto& worker : workers_) {
    worker->command([this, id, job, look](Worker& one) {
      std::vector<Inspection> found = look(one);
      const std::lock_guard<std::mutex> lock(job->mutex);
      std::move(found.begin(), found.end(), std::back_inserter(job->found));
      if (--job->left > 0) return;
      postOne(Inspected{id, std::move(job->found)});
    });
  }
}

void Engine::post(std::vector<Event>* events) {
  bool first;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::move(events->begin(), events->end(), std::back_inserter(events_));
    first = !notified_;
    notified_ = true;
  }
  events->clear();
  if (first) notify_();
}

void Engine::postOne(Event event) {
  std::vector<Event> events;
  events.push_back(std::move(event));
  post(&events);
}

std::vector<Event> Engine::takeEvents() {
  const std::lock_guard<std::mutex> lock(mutex_);
  notified_ = false;
  return std::move(events_);
}

// Several workers meet the same limit. The owner is told of the first one that pauses and the last one that goes on.
void Engine::pausedAccepting(LimitCause cause) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (paused_++ > 0) return;
  pauseCause_ = cause;
  announceLimit(true, std::move(lock));
}

void Engine::resumedAccepting() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (--paused_ == 0) announceLimit(false, std::move(lock));
}

void Engine::tooMany(unsigned worker) {
  for (unsigned i = 0; i < workers_.size(); ++i) {
    if (i != worker) workers_[i]->command([](Worker& one) { one.acceptor.giveWay(); });
  }
}

// Queued under the lock that counted, so that another worker's next change cannot overtake.
void Engine::announceLimit(bool limited, std::unique_lock<std::mutex> lock) {
  events_.emplace_back(Limit{limited, pauseCause_});
  const bool first = !notified_;
  notified_ = true;
  lock.unlock();
  if (first) notify_();
}
