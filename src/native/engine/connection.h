// The state of one connection and of one attempt to reach its destination.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/clients.h"
#include "core/relay.h"
#include "engine/loop.h"
#include "handshakes/socks5_client.h"

struct Connection;
class Lobby;

// What an attempt without a client is for: to find out whether it works, to hand its socket to the owner, or to keep it for a client.
enum class Purpose : uint8_t { Probe, HandOver, Prepare };

struct Attempt : Timed {
  Attempt() : Timed(Tag::Attempt) {}
  Stage stage() const;
  // Bytes of the client that were handed to the attempt's socket, behind the handshake.
  size_t said() const { return early - std::min(early, output.size()); }

  Connection* connection = nullptr;  // null: a probe
  uint64_t probe = 0;
  Purpose purpose = Purpose::Probe;  // for an attempt without a connection
  uint32_t number = 0;
  DialSpec spec;
  Side side;
  bool isConnecting = true;
  Socks5Client handshake;
  uint64_t startedMs = 0;
  uint64_t connectMs = 0;
  std::string output;         // still to be sent
  std::string input;          // the beginning of an answer
  size_t early = 0;           // bytes of the client in or behind `output`, not consumed yet
  bool usesPrepared = false;  // it uses a prepared connection
  size_t sent = 0;
  size_t acknowledged = 0;  // bytes of `sent` that were acknowledged at the last look
  bool abandoned = false;   // a WAN was lost while it waited for an answer
  uint64_t answerUntilMs = 0;
  uint64_t holdUntilMs = 0;   // wait until then for the client's first words, to send them together
  uint64_t watchUntilMs = 0;  // its connection is watched until then; 0: it has no last answer yet
};

struct Connection : Timed {
  enum class Phase : uint8_t {
    Greeting,
    Credentials,
    AwaitingVerdict,  // waits for `authenticate`
    Request,
    AwaitingDecision,  // waits for `dial`, `refuse` or `reset`
    Opening,
    Relaying,
    Draining,  // both ends have ended it, and the last bytes are not acknowledged yet
    Refusing,  // the reply is sent; waits for the client to close
    Closed,    // freed at the end of the turn
  };

  Connection() : Timed(Tag::Client) {}
  // The side that is MPTCP; null: both are plain TCP.
  Side* mptcpSide() {
    if (client.protocol != Protocol::Tcp) return &client;
    return upstream.protocol != Protocol::Tcp ? &upstream : nullptr;
  }

  ConnectionId id = 0;
  ListenerKind kind = ListenerKind::Redirect;
  Phase phase = Phase::AwaitingDecision;
  bool authentication = false;
  bool queued = false;      // in the list of connections to pump again
  bool stalled = false;     // no room for a second or more: looked at rarely
  bool sharing = false;     // counts as one of its client's connections
  uint8_t joined = 0;       // joined subflows at the last look (Survey)
  uint8_t asksLeft = 0;     // looks left during which keepalive asks often (Survey)
  uint64_t fastPathId = 0;  // the fast path that serves it; 0: the owner decides
  Side client;
  Side upstream;
  Flow forward;  // client to upstream
  Flow backward;
  Address clientAddress;
  Source sharer;                      // the client whose share it counts to
  Address destination = noAddress();  // where a redirected client wanted to go; for a SOCKS client, where it was opened to
  Lobby* lobby = nullptr;             // where it waits for a request; null: it has asked for something
  uint64_t acceptedMs = 0;
  uint64_t activeMs = 0;
  int unacknowledged = 0;   // bytes of its MPTCP side at the last look, while it drains or is stalled
  std::string held;         // the reply to the client, waiting for the server's first bytes
  uint64_t lookMs = 0;      // time of the next look at its backlogs
  uint64_t meterMs = 0;     // time of the next metering of its MPTCP side
  uint64_t refillMs = 0;    // while there is no room: pause until the next refill
  uint64_t refillFrom = 0;  // bytes that had moved when that began
  Address upstreamAddress;
  static constexpr int kWatchedClosely = -1;
  int keptAliveS = 0;                              // keepalive of the upstream, seconds; 0: none yet
  std::vector<std::unique_ptr<Attempt>> attempts;  // they race until one commits
  bool committed = false;                          // one attempt may send its request; it is the only one left
};
