// What the kernel tells of a live connection: whether it is MPTCP still, and its subflows.
#pragma once

#include <cstdint>
#include <vector>

#include "core/socket.h"

struct Subflow {
  Address local;
  Address remote;
  uint64_t bytesSent;
  uint64_t bytesReceived;
  uint32_t rttUs;
  uint32_t unackedPackets;
  uint32_t lastAckMs;
  uint32_t timeouts;  // retransmission timeouts in a row
  uint32_t minRttUs;
  uint64_t pacingRate;    // bytes a second
  uint64_t deliveryRate;  // of the bytes that were acknowledged last
  uint64_t unackedBytes;  // sent, or still waiting in the subflow's send queue
  bool joining;           // its SYN has no answer yet
  uint32_t packetsSent;   // with data, retransmissions included
  uint32_t packetsSentAgain;
};

// Whether a socket that was made as MPTCP has fallen back to TCP. Unknown before Linux 5.16.
Protocol protocolOf(int fd);

// AtOnce: MPTCP_FULL_INFO (6.5). Separate: MPTCP_SUBFLOW_ADDRS and MPTCP_TCPINFO (5.16), which tell the same in two calls.
enum class SubflowSource : uint8_t { Unknown, AtOnce, Separate };
// For tests. Otherwise the first question finds out which of them the kernel has.
void readSubflowsFrom(SubflowSource wanted);

// Subflows that are established or joining. Empty for plain TCP and before Linux 5.16.
std::vector<Subflow> subflowsOf(int fd);

// Whether an established subflow leaves from this address. False for plain TCP and before Linux 5.16.
bool goesOver(int fd, const Address& local);

// Whether the connection is still MPTCP but has no subflow, established or joining, that received an acknowledgement within `silentMs`. False
// before Linux 5.16, which does not tell.
bool hasNoSubflow(int fd, uint32_t silentMs = UINT32_MAX);

// Whether as many subflows have joined as the kernel allows.
bool isFull(int fd);

// Subflows without the first one, as the kernel's limit counts them. 0 for plain TCP and before Linux 5.16.
uint8_t joinedSubflows(int fd);

// Whether the only subflow leaves from this address. False for plain TCP and before Linux 5.16.
bool hasOnly(int fd, const Address& local);

// Whether two subflows have the same remote address. False for plain TCP and before Linux 5.16.
bool sharesRemoteHost(int fd);

// Whether the other end's FIN has come, and with it all its bytes (perhaps still unread), or the connection is over.
bool hasReceivedEnd(int fd);
