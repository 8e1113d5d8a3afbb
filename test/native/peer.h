// One end of a connection that a schedule is played on: what it sent, what it received, and how it left.
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <string>

constexpr char kUrgentByte = '\x7f';

// Each end sends another sequence of bytes, and none of them equals the urgent byte.
inline char byteAt(unsigned who, size_t at) { return static_cast<char>((at * 2654435761U >> 16 ^ at) % 125 + who); }

enum class End : uint8_t { Open, Fin, Reset };
constexpr const char* kEnds[] = {"open", "FIN", "reset"};

// Whether an end left the connection with a RST: on purpose, or because it closed while bytes from the other end were unread or on the way.
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
  std::string sent;  // bytes that the kernel took
  std::string received;
  size_t arrived = 0;  // bytes of `sent` that the other end had read, or had in its receive buffer, when all had settled
  Aborts aborts = Aborts::No;
  bool isReset = false;  // it left with a RST, without a FIN before
  End end = End::Open;
  bool isKilled = false;  // ended by a RST from the other end
  int error = 0;
  bool isLive() const { return fd >= 0 && !isClosed; }
};

// How many bytes of `sent` have been received; -1: other bytes were. A receiver may or may not see an urgent byte in the stream.
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
