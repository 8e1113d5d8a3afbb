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
  uint32_t timeouts;  // of retransmission, in a row
  uint32_t leastRttUs;
  uint64_t pacingRate;    // bytes a second
  uint64_t deliveryRate;  // of what was acknowledged last
  uint64_t unackedBytes;  // and those that wait for a turn
  bool joining;           // its SYN has no answer yet
  uint32_t packetsSent;   // with data; those sent again are counted once more
  uint32_t packetsSentAgain;
};

// For a socket that was made as MPTCP: has it fallen back to TCP? Unknown before Linux 5.16.
Protocol protocolOf(int fd);

// MPTCP_FULL_INFO (6.5), or MPTCP_SUBFLOW_ADDRS and MPTCP_TCPINFO (5.16), which tell the same with two calls.
enum class SubflowSource : uint8_t { Unknown, AtOnce, Separate };
// For tests; by itself it is found out which of them the kernel has.
void readSubflowsFrom(SubflowSource wanted);

// Those that live; empty for plain TCP and before Linux 5.16.
std::vector<Subflow> subflowsOf(int fd);

// Has it a subflow from this address that is established? False for plain TCP and before Linux 5.16.
bool goesOver(int fd, const Address& local);

// A connection that is still MPTCP, but has no subflow left or on its way, or nothing was heard over any for `silentMs`. False where that
// cannot be told (before Linux 5.16).
bool hasNoSubflow(int fd, uint32_t silentMs = UINT32_MAX);

// Has it as many subflows beside the first one as the kernel lets join?
bool isFull(int fd);

// Beside the first one, those that the kernel's limit counts; 0 also for plain TCP and before Linux 5.16.
uint8_t joinedSubflows(int fd);

// Has it one subflow only, and that from this address? False for plain TCP and before Linux 5.16.
bool hasOnly(int fd, const Address& local);

// Do two subflows come from one address of the other end? False for plain TCP and before Linux 5.16.
bool sharesRemoteHost(int fd);

// The other end's FIN is here, and with it all that it said (perhaps still to be read), or the connection is over.
bool hasReceivedEnd(int fd);
