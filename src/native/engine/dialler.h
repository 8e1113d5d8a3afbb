// Attempts to reach a destination: connect, then the client side of SOCKS5, over a new connection or a prepared one.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "engine/fast_paths.h"
#include "engine/relays.h"

// Holds what a client usually sends first (a TLS ClientHello, an HTTP request), and as much of an upload as keeps it going until the reply; the
// relay sends the rest. More would not fit into a HAG's first window.
constexpr size_t kEarlyBytes = 64 * 1024;

class Dialler {
 public:
  Dialler(WorkerHost* host, Loop* loop, Relays* relays, FastPaths* fastPaths) : host_(host), loop_(loop), relays_(relays), fastPaths_(fastPaths) {}
  ~Dialler();
  Dialler(const Dialler&) = delete;
  Dialler& operator=(const Dialler&) = delete;

  void dial(ConnectionId id, DialSpec spec, uint32_t number);
  void followFastPath(Connection* connection);
  void probe(uint64_t id, DialSpec spec, Purpose purpose);
  void abandon(const Address& source);
  void resetAttempts(const Address& remote);
  void attemptEvent(Attempt* attempt, uint32_t events);
  void expired(Attempt* attempt);
  // The client has sent more, or has ended.
  void sendEarly(Connection* connection);

 private:
  Attempt* addAttempt(Connection* connection, uint32_t number);
  void dial(Attempt* attempt, DialSpec spec);
  void commit(Attempt* attempt);
  void succeed(Attempt* attempt);
  void answer(Attempt* attempt, Protocol protocol);
  void watchSilence(Attempt* attempt);
  void open(Attempt* attempt, Protocol protocol);
  void fail(Attempt* attempt, Stage stage, Failure failure, int reply = -1);
  void release(Attempt* attempt);

  // handshake.cpp
  void connected(Attempt* attempt);
  void addRequest(Attempt* attempt);
  void addEarly(Attempt* attempt);
  void sendOutput(Attempt* attempt);
  bool readExactly(Attempt* attempt, size_t size);
  void readAnswers(Attempt* attempt);
  bool goOn(Attempt* attempt);

  // prepared_attempt.cpp
  void takePrepared(Attempt* attempt, const Prepared& prepared);
  void grantTime(Attempt* attempt);
  void awaitAnswer(Attempt* attempt);
  bool lookAtUnanswered(Attempt* attempt);
  bool isForgotten(const Attempt& attempt);
  void lose(Attempt* attempt, Failure failure);

  WorkerHost* host_;
  Loop* loop_;
  Relays* relays_;
  FastPaths* fastPaths_;
  std::unordered_map<Attempt*, std::unique_ptr<Attempt>> probes_;
};
