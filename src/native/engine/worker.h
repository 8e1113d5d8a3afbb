// A worker: one thread, one epoll, its own listening sockets, and its connections from accept to close.
#pragma once

#include <sys/epoll.h>

#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/budget.h"
#include "core/clients.h"
#include "engine/connection.h"
#include "core/crowd.h"
#include "core/outlets.h"
#include "engine/prepared_pool.h"
#include "core/route.h"

struct EngineLimits {
  uint64_t maxConnections = 0;
  uint64_t maxConnectionsPerClient = 0;  // 0: no limit
  uint64_t idleTimeoutMs = 0;
  uint64_t handshakeTimeoutMs = 0;
  uint64_t decisionTimeoutMs = 0;
  uint64_t descriptorLimit = 0;  // of the engine, pipes included
  uint64_t acceptLimit = 0;      // descriptors above which accepting pauses, so that what is accepted can be served
};

// What a worker needs of its engine; all of it may be called from any thread.
class WorkerHost {
 public:
  virtual ~WorkerHost() = default;
  virtual void post(std::vector<Event>* events) = 0;  // takes them
  virtual void pausedAccepting(LimitCause cause) = 0;
  virtual void resumedAccepting() = 0;
  virtual void tooMany(unsigned worker) = 0;  // the others are to give way
  Counters counters;
  PreparedPool prepared{&counters};
  Shares shares;
  BufferBudget budget;
  Refusals refusals;
  std::atomic<int> keepaliveS{kWanIdleS};  // of upstreams
  Outlets outlets;
  EngineLimits limits;
  Crowd crowd;
};

struct Listener {
  int fd;
  ListenerKind kind;
  Protocol protocol;
  bool authentication;
  std::shared_ptr<const std::vector<AddressRange>> clients;  // null: everyone is
  bool refusesLoops;
};

uint64_t monotonicMs();

class Worker {
 public:
  Worker(WorkerHost* host, unsigned index);
  ~Worker();  // aborts every connection, but for those that drain
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start();
  void stop();
  // Runs on the worker's thread, in order.
  void command(std::function<void(Worker&)> command);

  // Only on the worker's thread:
  void addListener(Listener listener);
  void stopListening();
  void setFastPath(std::shared_ptr<const FastPath> fastPath);
  void dial(ConnectionId id, DialSpec spec, uint32_t number);
  void authenticate(ConnectionId id, bool accepted);
  void refuse(ConnectionId id, uint8_t reply);
  void reset(ConnectionId id);
  void probe(uint64_t id, DialSpec spec, Purpose purpose);
  void abandon(const Address& source);
  uint64_t resetUpstreams(const Address& remote);
  uint64_t resetStranded();
  uint64_t countOnly(const Address& source, uint64_t olderThanMs);
  void watchUpstreams(const Address& remote, bool closely);
  void giveWay();
  void sweepNow() { nextSweep_ = now_; }
  std::vector<Inspection> inspect(const std::vector<ConnectionId>& ids);
  std::vector<Inspection> inspectBusy(const Busy& wanted);

  void expired(Connection* connection);
  void expired(Attempt* attempt);

  static unsigned workerOf(ConnectionId id) { return static_cast<unsigned>(id % kMaxWorkers); }
  static constexpr unsigned kMaxWorkers = 16;

 private:
  void run();
  int waitTimeout() const;
  void handle(uint64_t tag, uint32_t events);
  void runCommands();
  void runTimers();
  void sweepIdle();
  void pumpQueued();
  // Posts it with this turn's events, or with the first that are due within so many milliseconds.
  void tell(Event event, uint64_t withinMs = 0);
  void flush();
  void noticePipes();

  // accept.cpp
  void acceptClients(const Listener& listener);
  void pauseAccepting(LimitCause cause);
  void resumeAccepting();
  bool mayAccept(LimitCause* cause) const;
  uint64_t descriptorsAhead() const;
  bool somebodyWaits(LimitCause cause) const;
  bool makeRoom(const Address& newcomer, LimitCause* cause);
  bool isAboutToAsk(const Connection& waiting) const;
  Connection* firstToGo();
  void sendAway(Connection* waiting);
  void enter(Lobby* lobby, Connection* connection);
  void leaveLobby(Connection* connection);
  bool isClient(int fd, const Address& client, const Listener& listener) const;
  void turnAway(int fd, RefusalCause cause, const Address& client, const Listener& listener, const Address& destination = noAddress());
  void countRefusal(RefusalCause cause, const Address& client, const Address& destination = noAddress());
  bool comesBack(const Accepted& accepted, RefusalCause* cause);
  void welcome(int fd, const Address& client, const Listener& listener);
  bool takeShare(const Source& client);
  bool usesFastPath(const Accepted& accepted) const;
  void serveByFastPath(Connection* connection);
  void handBack(Connection* connection, bool timedOut);
  void serve(Connection* connection);
  void awaitRequest(Connection* connection);
  void awaitOwner(Connection* connection);
  void refuseNow(Connection* connection, uint8_t reply);
  void endRefused(Connection* connection);
  void drainRefused(Connection* connection);

  // attempt.cpp
  Attempt* addAttempt(Connection* connection, uint32_t number);
  void dial(Attempt* attempt, DialSpec spec);
  void addRequest(Attempt* attempt);
  void addEarly(Attempt* attempt);
  void sendEarly(Connection* connection);
  void attemptEvent(Attempt* attempt, uint32_t events);
  void sendOutput(Attempt* attempt);
  void readAnswers(Attempt* attempt);
  bool readExactly(Attempt* attempt, size_t size);
  void connected(Attempt* attempt);
  void commit(Attempt* attempt);
  void succeed(Attempt* attempt);
  void fail(Attempt* attempt, Stage stage, Failure failure, int reply = -1);
  Stage stageOf(const Attempt& attempt) const;
  size_t saidOf(const Attempt& attempt) const;
  void release(Attempt* attempt);
  void releaseAll(Connection* connection);

  // prepared_attempt.cpp
  void takePrepared(Attempt* attempt, const Prepared& prepared);
  void grantTime(Attempt* attempt);
  void awaitAnswer(Attempt* attempt);
  bool lookAtUnanswered(Attempt* attempt);
  bool isUnheard(const Attempt& attempt) const;
  bool isForgotten(const Attempt& attempt);
  void lose(Attempt* attempt, Failure failure);

  // draining.cpp
  void drain(Connection* connection);
  void lookAtDraining(Connection* connection, bool isDue = false);

  // buffers.cpp
  struct Direction {
    Flow* flow;
    Side* source;
    Side* target;
  };
  static Direction forwardOf(Connection* connection);
  static Direction backwardOf(Connection* connection);
  void beginSmall(Connection* connection);
  bool countBulk(Connection* connection, const Direction& direction);
  bool mayHold(Connection* connection, const Direction& direction, int size);
  static void writeLessAhead(const Direction& direction, int size);
  void stopCounting(Connection* connection, Flow* flow);
  void letRest(Connection* connection);

  // connection.cpp
  Connection* find(ConnectionId id);
  void clientEvent(Connection* connection, uint32_t events);
  void upstreamEvent(Connection* connection, uint32_t events);
  void relay(Connection* connection);
  void pumpBoth(Connection* connection);
  void refillLater(Connection* connection);
  void restWhileStalled(Connection* connection);
  bool staysStalled(Connection* connection);
  void askAboutOldSubflows(Connection* connection);
  void sendHeld(Connection* connection, bool withFirstBytes);
  void passOnLastWords(Flow* flow, Side* source, Side* target);
  void closeConnection(Connection* connection, Reason reason, Failure failure = {});
  std::vector<Inspection> inspect(const std::vector<Connection*>& connections) const;
  void setDeadline(Timed* timed, uint64_t deadline);
  bool watchAgain(Connection* connection, const Side& side, uint32_t events);
  bool watch(int fd, uint64_t tag, uint32_t events, bool known = false);
  void end(int fd, void (*how)(int));

  WorkerHost* host_;
  unsigned index_;
  int epoll_;
  int wake_;
  std::thread thread_;
  bool stopping_ = false;
  uint64_t now_ = 0;
  uint64_t nextSweep_ = 0;
  uint64_t retryAccepting_ = 0;  // 0: not paused
  uint64_t waitUntilMs_ = 0;     // for what is about to ask
  uint64_t mayWaitMs_ = 0;
  uint64_t sequence_ = 0;
  std::mutex mutex_;
  std::vector<std::function<void(Worker&)>> commands_;
  std::vector<Event> events_;
  uint64_t postAtMs_ = UINT64_MAX;
  bool isStopping_ = false;  // no client comes any more
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::shared_ptr<const FastPath> fastPath_;
  uint64_t demand_ = 0;  // clients of this turn for whom the order asks for a prepared connection
  std::unordered_map<ConnectionId, std::unique_ptr<Connection>> connections_;
  std::unordered_map<Attempt*, std::unique_ptr<Attempt>> probes_;
  std::set<std::pair<uint64_t, Timed*>> deadlines_;
  std::vector<Connection*> ready_;  // used up their budget
  // epoll may still name them in this turn's batch.
  std::vector<std::unique_ptr<Connection>> closed_;
  std::vector<std::unique_ptr<Attempt>> released_;
  PipePool pipes_;
  Lobby lobby_;
  Lobby guests_;  // those that have proven who they are
  Routes routes_;
  LanClients lanClients_;
};

constexpr uint32_t kStreamEvents = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLRDHUP | EPOLLET;

// What a descriptor's events are for: a pointer and a kind in its low bits.
enum class Tag : uint64_t { Client = 0, Upstream = 1, Attempt = 2, Listener = 3, Wake = 4 };
template <typename T>
uint64_t tagOf(T* object, Tag kind) {
  return reinterpret_cast<uintptr_t>(object) | static_cast<uint64_t>(kind);
}
constexpr uint64_t kTagMask = 7;
