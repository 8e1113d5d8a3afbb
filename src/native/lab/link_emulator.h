// Two TUN devices in two network namespaces, and a thread that carries packets between them with delay, at a rate, and with loss.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace bondsocks {

struct LinkDirection {
  double rate = 0;  // bits per second on the line; 0 is unlimited
  double delay_us = 0;
  double queue_bytes = 0;
  double loss = 0;
};

struct LinkEnd {
  std::string netns;   // path
  std::string device;  // name to give
  int mtu = 0;         // 0: the kernel's default
};

struct LinkCounters {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  uint64_t dropped = 0;
};

struct LinkFailure {
  int error = 0;
  const char* syscall = "";
};

class LinkEmulator {
 public:
  // Null and `failure` if a device cannot be made; then neither is left.
  static std::unique_ptr<LinkEmulator> Create(const std::array<LinkEnd, 2>& ends, const std::array<LinkDirection, 2>& directions,
                                              LinkFailure* failure);
  // Removes both devices.
  ~LinkEmulator();
  LinkEmulator(const LinkEmulator&) = delete;
  LinkEmulator& operator=(const LinkEmulator&) = delete;

  // Direction 0 leads from end 0 to end 1.
  void Set(size_t direction, const LinkDirection& parameters);
  // An errno, or 0.
  int SetCarrier(size_t end, bool up);
  LinkCounters Counters(size_t direction) const;

 private:
  struct Line;

  LinkEmulator();
  bool Open(const std::array<LinkEnd, 2>& ends, LinkFailure* failure);
  void Run();

  std::array<int, 2> tun_{-1, -1};
  int timer_ = -1;
  int stop_ = -1;
  std::array<std::unique_ptr<Line>, 2> lines_;
  std::array<std::atomic<bool>, 2> plugged_;
  std::mutex mutex_;  // parameters_
  std::array<LinkDirection, 2> parameters_;
  std::thread thread_;
};

}  // namespace bondsocks
