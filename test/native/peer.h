// One end of a connection that a schedule is played on: what it sent, what it heard, and how it left.
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <string>

constexpr char kUrgentByte = '\x7f';

// The bytes of each end are another sequence, and none of them is the urgent one.
inline char byteAt(unsigned who, size_t at) { return static_cast<char>((at * 2654435761U >> 16 ^ at) % 125 + who); }

enum class End : uint8_t { Open, Fin, Reset };
constexpr const char* kEnds[] = {"open", "FIN", "reset"};

// Whether an end left the connection by a RST: because it said so, or because it closed and the other's bytes met nobody.
enum class Aborts : uint8_t { No, Perhaps, Surely };

struct Peer {
  struct Waiting {
    size_t bytes;
    bool isUrgent;
  };
  unsigned who = 0;
  int fd = -1;
  bool isInline = false;
  bool isReading = true;
  bool isClosed = false;
  bool wantsShut = false;
  bool isShut = false;
  std::deque<Waiting> waiting;
  std::string sent;  // what the kernel took
  std::string received;
  size_t arrived = 0;  // of `sent`, in the other's hands, or in its receive buffer, when all had settled
  Aborts aborts = Aborts::No;
  bool isReset = false;  // without a FIN before
  End end = End::Open;
  bool isKilled = false;  // by a RST
  int error = 0;
  bool isLive() const { return fd >= 0 && !isClosed; }
};

// How many elements of `sent` have been received; -1: something else was. A receiver may or may not see an urgent byte in the stream.
inline ssize_t matched(const std::string& received, const std::string& sent) {
  size_t at = 0;
  for (const char one : received) {
    while (at < sent.size() && sent[at] == kUrgentByte && one != kUrgentByte) ++at;
    if (at == sent.size() || sent[at] != one) return -1;
    ++at;
  }
  while (at < sent.size() && sent[at] == kUrgentByte) ++at;
  return static_cast<ssize_t>(at);
}
