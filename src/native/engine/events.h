// What crosses between the engine's threads and its owner: calls one way, events the other. contract.ts and events.ts tell what each means.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "core/mptcp_info.h"
#include "core/refusals.h"
#include "core/socket.h"

using ConnectionId = uint64_t;

enum class ListenerKind : uint8_t { Redirect, Socks };
enum class Stage : uint8_t { Connect, Greeting, Authentication, Request, Watch };
enum class Reason : uint8_t { End, ClientReset, UpstreamReset, Idle, Handshake, Refused, Reset };
enum class LimitCause : uint8_t { Connections, Descriptors, Memory, Pipes };

// How to reach a destination.
struct DialSpec {
  bool mptcp = false;
  Address remote;
  bool bound = false;
  Address source;
  uint32_t connectTimeoutMs = 0;
  bool socks = false;           // client side of SOCKS5 to `remote`
  bool connectRequest = false;  // false: stop after the authentication (a probe)
  bool pipelined = false;
  bool prepared = false;  // use a connection of PreparedPool, if there is one
  std::string host;
  uint16_t port = 0;
  bool withPassword = false;
  std::string username;
  std::string password;
  uint32_t handshakeTimeoutMs = 0;
  uint32_t watchMs = 0;  // a probe: how long to watch the connection after the last answer
};

// Addresses that share the first `bits` bits with `base`; 0: all of its family.
struct AddressRange {
  Address base;
  unsigned bits = 0;
};

// For clients of a `redirect` listener about whom the owner need not be asked.
struct FastPath {
  uint64_t id = 0;
  DialSpec spec;  // its host and port are each client's destination
  uint32_t patienceMs = 0;
  std::vector<AddressRange> destinations;  // the owner is asked about these
};

struct Inspection {
  ConnectionId connection;
  Address client;
  Address local;
  Address remote;
  Protocol protocol;
  uint64_t sent;
  uint64_t received;
  uint64_t ageMs;
  bool full;
  std::vector<Subflow> subflows;
};

// Which connections to inspect: the most recently active ones of at least this age and size.
struct Busy {
  size_t max;
  uint64_t olderThanMs;
  uint64_t minBytes;
};

// The events, one struct for each kind. `id`: the connection's or, in an answer, the question's.
struct Accepted {
  ConnectionId id;
  Address client;
  Address destination;
  Address local;
  uint64_t fastPathId = 0;  // the fast path that was tried before the owner was told; 0: none
  bool timedOut = false;    // it had no answer within its patience
};

struct Credentials {
  ConnectionId id;
  Address client;
  std::string username;
  std::string password;
};

struct Request {
  ConnectionId id;
  Address client;
  Address local;
  std::string host;
  uint16_t port;
};

struct Opened {
  ConnectionId id;
  uint32_t attempt;  // the owner's number for it
  Address local;
  Protocol protocol;
  bool prepared;
};

struct Failed {
  ConnectionId id;
  uint32_t attempt;
  uint32_t left = 0;   // attempts of the connection still under way
  uint64_t early = 0;  // bytes of the client that left with the request
  Stage stage;
  Failure failure;
  int reply = -1;
};

struct Closed {
  ConnectionId id;
  Reason reason;
  Failure failure;  // failure.error 0: none
  Address client;
  Address destination;
  uint64_t fastPathId;  // the fast path that opened it; 0: none
  uint64_t sent;
  uint64_t received;
  uint64_t durationMs;
};

struct Demand {
  uint64_t clients;
};

struct Active {};

struct Limit {
  bool limited;
  LimitCause cause;
};

struct Refused {};

struct Probed {
  uint64_t id;
  Address local;
  Protocol protocol;
  uint64_t connectMs;
  int fd = -1;  // handed over to the owner
  Failure failure;
  Stage stage = Stage::Connect;
};

struct Inspected {
  uint64_t id;
  std::vector<Inspection> inspections;
};

struct Counted {
  uint64_t id;
  uint64_t count;
};

using Event = std::variant<Accepted, Credentials, Request, Opened, Failed, Closed, Demand, Active, Limit, Refused, Probed, Inspected, Counted>;
