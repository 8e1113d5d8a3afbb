// A worker's connections: relays them from the moment they are opened, and ends all of them.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "core/pipe_pool.h"
#include "engine/buffers.h"
#include "engine/connection.h"

class Relays {
 public:
  Relays(WorkerHost* host, Loop* loop);
  ~Relays();  // aborts every connection, except those that drain
  Relays(const Relays&) = delete;
  Relays& operator=(const Relays&) = delete;

  using All = std::unordered_map<ConnectionId, std::unique_ptr<Connection>>;
  const All& all() const { return connections_; }
  Connection* add(std::unique_ptr<Connection> connection);
  Connection* find(ConnectionId id);
  void relay(Connection* connection);
  void sendHeld(Connection* connection, bool withFirstBytes);
  // True: the connection is not relayed yet, so the caller has to handle the event.
  bool clientEvent(Connection* connection, uint32_t events);
  void upstreamEvent(Connection* connection, uint32_t events);
  void expired(Connection* connection);
  void awaitOwner(Connection* connection);
  void leaveLobby(Connection* connection);
  void release(Attempt* attempt);
  void releaseAll(Connection* connection);
  void reset(ConnectionId id);
  void closeConnection(Connection* connection, Reason reason, Failure failure = {});
  void letRest(Connection* connection);

  bool hasQueued() const { return !ready_.empty(); }
  void pumpQueued();
  void noticePipes();

 private:
  void pumpBoth(Connection* connection);
  void pumpLater(Connection* connection);
  void refillLater(Connection* connection);
  void restWhileStalled(Connection* connection);
  bool staysStalled(Connection* connection);
  bool watchAgain(Connection* connection, const Side& side, uint32_t events);

  // closing.cpp
  void passOnLastWords(Flow* flow, Side* source, Side* target);

  // draining.cpp
  void drain(Connection* connection);
  void lookAtDraining(Connection* connection, bool isDue = false);

  WorkerHost* host_;
  Loop* loop_;
  Buffers buffers_;
  PipePool pipes_;
  All connections_;
  std::vector<Connection*> ready_;  // used up their turn's budget
};
