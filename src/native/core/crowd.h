// Decides whether what a process sends to one peer is too much for the paths there, so that those connections have to yield to loss.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "core/clients.h"

// BBR keeps at least four packets in flight, whatever is lost (bbr_cwnd_min_target). If a path has less room for each connection, its queue
// stays full. A connection that has lost its whole window finds the queue full at each retry, and waits longer and longer. CUBIC goes down to
// one packet, but BBR beside it would take its share; so all connections that share paths use one or the other. Loss alone is no crowd: a few
// connections fill any path, and on a bad radio link BBR gets through and CUBIC does not.
//
// Measured with uploads over 15 Mbit/s: BBR loses 14 % of what 4 connections send, 30 % with 20 and 42 % with 100, of which 19 move nothing for
// half a minute.
class Crowd {
 public:
  static constexpr uint64_t kWindowMs = 2000;

  // Packets that a busy connection has sent in about the last window, and how many of them were retransmissions.
  void report(uint64_t packets, uint64_t again, uint64_t nowMs);
  bool isThere(uint64_t nowMs) const { return nowMs < untilMs_.load(std::memory_order_relaxed); }

 private:
  std::mutex mutex_;
  uint64_t sinceMs_ = 0;
  uint64_t reports_ = 0;
  uint64_t packets_ = 0;
  uint64_t again_ = 0;
  std::atomic<uint64_t> untilMs_{0};
};

// A Crowd for each peer, because each peer has paths of its own: one home with a bad line must not change the others' downloads to CUBIC. May
// be used from any thread.
class Crowds {
 public:
  // Returns the same object as long as anybody holds it.
  std::shared_ptr<Crowd> of(const Source& peer);

 private:
  std::mutex mutex_;
  std::map<Source, std::weak_ptr<Crowd>> all_;
};
