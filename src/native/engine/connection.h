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

// Of an attempt that no client waits for: to know whether it works, to hand its socket to the owner, or to keep it for a client.
enum class Purpose : uint8_t { Probe, HandOver, Prepare };

struct Attempt : Timed {
  Attempt() : Timed(Tag::Attempt) {}
  Stage stage() const;
  // The client's bytes that were handed to its socket. Its handshake goes before them.
  size_t said() const { return early - std::min(early, output.size()); }

  Connection* connection = nullptr;  // null: a probe
  uint64_t probe = 0;
  Purpose purpose = Purpose::Probe;  // of one without a connection
  uint32_t number = 0;
  DialSpec spec;
  Side side;
  bool isConnecting = true;
  Socks5Client handshake;
  uint64_t startedMs = 0;
  uint64_t connectMs = 0;
  std::string output;         // still to be sent
  std::string input;          // an answer's beginning
  size_t early = 0;           // of the client's bytes, sent with the handshake but not consumed yet
  bool usesPrepared = false;  // it goes on with a prepared connection
  size_t sent = 0;
  size_t acknowledged = 0;  // of it, at the last look
  bool abandoned = false;   // a WAN was lost while it waited
  uint64_t answerUntilMs = 0;
  uint64_t holdUntilMs = 0;  // nothing is sent before, unless with the client's first words
};

struct Connection : Timed {
  enum class Phase : uint8_t {
    Greeting,
    Credentials,
    AwaitingVerdict,  // `authenticate`
    Request,
    AwaitingDecision,  // `open`, `refuse` or `reset`
    Opening,
    Relaying,
    Draining,  // both ends have ended it, and what was said last is still on its way
    Refusing,  // the reply is sent, the client is about to close
    Closed,    // buried at the end of the turn
  };

  Connection() : Timed(Tag::Client) {}
  // The one that has subflows; null: both are plain TCP.
  Side* mptcpSide() {
    if (client.protocol != Protocol::Tcp) return &client;
    return upstream.protocol != Protocol::Tcp ? &upstream : nullptr;
  }

  ConnectionId id = 0;
  ListenerKind kind = ListenerKind::Redirect;
  Phase phase = Phase::AwaitingDecision;
  bool authentication = false;
  bool queued = false;      // in the ready list
  bool stalled = false;     // no room for a second or more: only asked
  bool sharing = false;     // counted among its client's connections
  uint8_t joined = 0;       // the most subflows beside the first one since they were last asked about
  uint8_t asksLeft = 0;     // looks for which they are asked often
  uint64_t fastPathId = 0;  // the fast path that it follows while the owner does not know of it
  Side client;
  Side upstream;
  Flow forward;  // client to upstream
  Flow backward;
  Address clientAddress;
  Source sharer;                      // to whose share it counts
  Address destination = noAddress();  // of a redirected client; of a SOCKS client, where it was opened to
  Lobby* lobby = nullptr;             // where it waits; null: it has asked for something
  uint64_t acceptedMs = 0;
  uint64_t activeMs = 0;
  int unacknowledged = 0;   // of its MPTCP side, while it drains or is stalled
  std::string held;         // a reply to the client that waits for the first bytes behind it
  uint64_t lookMs = 0;      // when its backlogs are looked at again
  uint64_t meterMs = 0;     // when its MPTCP side is metered again
  uint64_t refillMs = 0;    // how long one without room is left alone
  uint64_t refillFrom = 0;  // bytes that had moved when that began
  Address upstreamAddress;
  static constexpr int kWatchedClosely = -1;
  int keptAliveS = 0;                              // the upstream is asked after so long without a packet; 0: not at all
  std::vector<std::unique_ptr<Attempt>> attempts;  // they race until one commits
  bool committed = false;                          // one of them may send its request; it is the only one left
};
