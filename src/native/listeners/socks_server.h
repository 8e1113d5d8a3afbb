// The server side of SOCKS5 up to the owner's answer to a request, and the places of clients that have not asked for anything.
#pragma once

#include "engine/lobby.h"
#include "engine/relays.h"

class SocksServer {
 public:
  SocksServer(WorkerHost* host, Loop* loop, Relays* relays) : host_(host), loop_(loop), relays_(relays) {}

  // For a client that was just accepted.
  void begin(Connection* connection);
  void serve(Connection* connection);
  void drainRefused(Connection* connection);
  void authenticate(ConnectionId id, bool accepted);
  void refuse(ConnectionId id, uint8_t reply);

  // Clients that have asked for nothing make room for others.
  Connection* firstToGo();
  void sendAway(Connection* waiting);
  bool isAnybodyWaiting() const { return lobby_.firstToGo() != 0 || guests_.firstToGo() != 0; }
  size_t countWaiting(const Address& client) const { return lobby_.count(client) + guests_.count(client); }

 private:
  void awaitRequest(Connection* connection);
  void refuseNow(Connection* connection, uint8_t reply);
  void endRefused(Connection* connection);
  void enter(Lobby* lobby, Connection* connection);

  WorkerHost* host_;
  Loop* loop_;
  Relays* relays_;
  Lobby lobby_;
  Lobby guests_;  // those whose credentials were accepted
};
