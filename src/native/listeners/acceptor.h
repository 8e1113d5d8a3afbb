// How clients arrive: listening sockets, the limits of accepting, and who is turned away at once.
#pragma once

#include <memory>
#include <vector>

#include "core/clients.h"
#include "core/route.h"
#include "engine/dialler.h"
#include "engine/fast_paths.h"
#include "listeners/socks_server.h"

struct Listener {
  int fd;
  ListenerKind kind;
  Protocol protocol;
  bool authentication;
  std::shared_ptr<const std::vector<AddressRange>> clients;  // null: everyone is a client
  bool refusesLoops;
};

class Acceptor {
 public:
  Acceptor(WorkerHost* host, Loop* loop, Relays* relays, FastPaths* fastPaths, Dialler* dialler, SocksServer* socks, unsigned index)
      : host_(host), loop_(loop), relays_(relays), fastPaths_(fastPaths), dialler_(dialler), socks_(socks), index_(index) {}
  ~Acceptor() { stopListening(); }
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  static constexpr unsigned kMaxWorkers = 16;
  static unsigned workerOf(ConnectionId id) { return static_cast<unsigned>(id % kMaxWorkers); }

  void addListener(const Listener& listener);
  void stopListening();
  void acceptClients(const Listener& listener);
  void giveWay();
  uint64_t retryMs() const { return retryAccepting_ == 0 ? UINT64_MAX : retryAccepting_; }
  void retry();

 private:
  void pauseAccepting(LimitCause cause);
  void resumeAccepting();
  bool mayAccept(LimitCause* cause) const;
  bool somebodyWaits(LimitCause cause) const;
  bool makeRoom(const Address& newcomer, LimitCause* cause);
  bool isAboutToAsk(const Connection& waiting) const;
  bool isClient(int fd, const Address& client, const Listener& listener) const;
  void turnAway(int fd, RefusalCause cause, const Address& client, const Listener& listener, const Address& destination = noAddress());
  bool comesBack(const Accepted& accepted, RefusalCause* cause);
  void welcome(int fd, const Address& client, const Listener& listener);

  WorkerHost* host_;
  Loop* loop_;
  Relays* relays_;
  FastPaths* fastPaths_;
  Dialler* dialler_;
  SocksServer* socks_;
  unsigned index_;
  uint64_t retryAccepting_ = 0;  // 0: not paused
  uint64_t waitUntilMs_ = 0;     // until then accepting stays paused for a client that is about to ask
  uint64_t mayWaitMs_ = 0;
  uint64_t sequence_ = 0;
  std::vector<std::unique_ptr<Listener>> listeners_;
  Routes routes_;
  LanClients lanClients_;
};
