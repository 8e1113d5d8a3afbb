// Measures the link emulator: timestamped UDP between two namespaces that only this process holds, so nothing can be left behind.
#include "lab/link_emulator.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

using bondsocks::LinkDirection;
using bondsocks::LinkEmulator;
using bondsocks::LinkEnd;
using bondsocks::LinkFailure;

namespace {

#define CHECK(condition, ...)                                              \
  do {                                                                     \
    if (!(condition)) {                                                    \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                                   \
      std::fprintf(stderr, "\n");                                          \
      std::exit(1);                                                        \
    }                                                                      \
  } while (false)

constexpr size_t kPayload = 1472;       // 1500 bytes of IP packet
constexpr double kLineBits = 1514 * 8;  // and an Ethernet header
constexpr double kSecond = 1e9;

// The clock of the kernel's timestamps of received packets.
double Now() {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<double>(now.tv_sec) * kSecond + static_cast<double>(now.tv_nsec);
}

void SleepUntil(double when) {
  timespec at{};
  at.tv_sec = static_cast<time_t>(when / kSecond);
  at.tv_nsec = static_cast<long>(when - static_cast<double>(at.tv_sec) * kSecond);
  clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &at, nullptr);
}

// Runs `work` in a network namespace (-1: a new one), in a thread of its own, so that ours stays in its namespace.
void Inside(int netns, const std::function<void()>& work) {
  std::thread([&] {
    CHECK((netns < 0 ? unshare(CLONE_NEWNET) : setns(netns, CLONE_NEWNET)) == 0, "%s", strerror(errno));
    work();
  }).join();
}

int NewNamespace() {
  int netns = -1;
  Inside(-1, [&] { netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC); });
  CHECK(netns >= 0, "%s", strerror(errno));
  return netns;
}

sockaddr_in Address(const char* text, uint16_t port = 0) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  inet_pton(AF_INET, text, &address.sin_addr);
  return address;
}

ifreq Request(const char* device) {
  ifreq request{};
  std::strcpy(request.ifr_name, device);
  return request;
}

// Gives the device its address and brings it up; returns a UDP socket bound to it.
int Configure(int netns, const char* device, const char* text) {
  int udp = -1;
  Inside(netns, [&] {
    // The kernel's own router solicitations would be counted with our packets. Without IPv6 there is no such file.
    const std::string file = std::string("/proc/sys/net/ipv6/conf/") + device + "/disable_ipv6";
    const int disable = open(file.c_str(), O_WRONLY | O_CLOEXEC);
    if (disable >= 0) CHECK(write(disable, "1", 1) == 1 && close(disable) == 0, "%s", strerror(errno));
    udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Address(text, 9000);
    const sockaddr_in mask = Address("255.255.255.0");
    ifreq request = Request(device);
    std::memcpy(&request.ifr_addr, &address, sizeof address);
    CHECK(ioctl(udp, SIOCSIFADDR, &request) == 0, "%s", strerror(errno));
    std::memcpy(&request.ifr_netmask, &mask, sizeof mask);
    CHECK(ioctl(udp, SIOCSIFNETMASK, &request) == 0, "%s", strerror(errno));
    // By default the device holds 500 packets: a sender that catches up after waiting for the CPU would lose some before they reach us.
    request.ifr_qlen = 20'000;
    CHECK(ioctl(udp, SIOCSIFTXQLEN, &request) == 0, "%s", strerror(errno));
    request.ifr_flags = IFF_UP;
    CHECK(ioctl(udp, SIOCSIFFLAGS, &request) == 0, "%s", strerror(errno));
    CHECK(bind(udp, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0, "%s", strerror(errno));
    const int on = 1;
    const int bytes = 64 << 20;
    setsockopt(udp, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
    setsockopt(udp, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
  });
  return udp;
}

struct Packet {
  uint32_t number;
  double sent;
  double received;
};

// The bytes are copied, not computed: under ThreadSanitizer a loop would be slower than the line.
void Fill(std::vector<uint8_t>& payload, uint32_t number, double sent) {
  constexpr size_t kShifts = 251;
  static const auto pattern = [] {
    std::vector<uint8_t> bytes(kPayload + kShifts);
    for (size_t i = 0; i < bytes.size(); i++) bytes[i] = static_cast<uint8_t>(i % kShifts);
    return bytes;
  }();
  std::memcpy(payload.data(), pattern.data() + number % kShifts, kPayload);
  std::memcpy(payload.data(), &number, sizeof number);
  std::memcpy(payload.data() + 8, &sent, sizeof sent);
}

// Sends `count` packets at `rate` bits per second on the line, and collects what arrives, until six waits in a row bring nothing.
std::vector<Packet> Transmit(int from, int to, const char* address, uint32_t count, double rate) {
  std::vector<Packet> arrived;
  std::atomic<double> end{0};
  std::thread receiver([&] {
    std::vector<uint8_t> payload(kPayload + 1), expected(kPayload);
    timeval patience{0, 50'000};
    setsockopt(to, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    // Waits are counted, not timed: the clock goes on while the whole process is stopped.
    for (int silent = 0; silent < 6;) {
      iovec part{payload.data(), payload.size()};
      alignas(cmsghdr) char control[64];
      msghdr message{};
      message.msg_iov = &part;
      message.msg_iovlen = 1;
      message.msg_control = control;
      message.msg_controllen = sizeof control;
      const ssize_t size = recvmsg(to, &message, 0);
      silent = size < 0 && end != 0 ? silent + 1 : 0;
      if (size < 0) continue;
      CHECK(size == static_cast<ssize_t>(kPayload), "%zd bytes", size);
      const cmsghdr* stamp = CMSG_FIRSTHDR(&message);
      CHECK(stamp != nullptr && stamp->cmsg_type == SO_TIMESTAMPNS, "no time stamp");
      timespec at{};
      std::memcpy(&at, CMSG_DATA(stamp), sizeof at);
      Packet packet{};
      std::memcpy(&packet.number, payload.data(), sizeof packet.number);
      std::memcpy(&packet.sent, payload.data() + 8, sizeof packet.sent);
      packet.received = static_cast<double>(at.tv_sec) * kSecond + static_cast<double>(at.tv_nsec);
      Fill(expected, packet.number, packet.sent);
      CHECK(std::memcmp(expected.data(), payload.data(), kPayload) == 0, "packet %u arrived changed", packet.number);
      CHECK(arrived.empty() || arrived.back().number < packet.number, "packet %u out of order", packet.number);
      arrived.push_back(packet);
    }
  });
  const sockaddr_in destination = Address(address, 9000);
  std::vector<uint8_t> payload(kPayload);
  const double start = Now();
  for (uint32_t i = 0; i < count; i++) {
    SleepUntil(start + i * kLineBits / rate * kSecond);
    Fill(payload, i, Now());
    sendto(from, payload.data(), payload.size(), 0, reinterpret_cast<const sockaddr*>(&destination), sizeof destination);
  }
  end = Now();
  receiver.join();
  return arrived;
}

double Percentile(std::vector<double>& values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// UDP sockets.
struct Ends {
  int first, second;
};

// A measurement is repeated if it does not fit: this process, too, may have had to wait for the CPU.
constexpr int kAttempts = 5;

void Delay(LinkEmulator& link, const Ends& ends) {
  constexpr double kRate = 100e6;
  link.Set(0, {kRate, 20'000, 1e9, 0});
  for (int attempt = 1;; attempt++) {
    const auto arrived = Transmit(ends.first, ends.second, "10.9.0.2", 20'000, 0.9 * kRate);
    CHECK(arrived.size() == 20'000, "%zu of 20000 arrived", arrived.size());
    std::vector<double> errors;
    double free_at = 0;
    for (const auto& packet : arrived) {
      free_at = std::max(free_at, packet.sent) + kLineBits / kRate * kSecond;
      errors.push_back(std::abs(packet.received - free_at - 0.020 * kSecond) / 1e6);
    }
    const double median = Percentile(errors, 0.5);
    std::printf("delay at 90 of 100 Mbit/s: error %.3f ms median, %.3f p90, %.3f p99, %.3f most\n", median, Percentile(errors, 0.9),
                Percentile(errors, 0.99), errors.back());
    if (median >= 1 && attempt < kAttempts) continue;
    CHECK(median < 1, "%.3f ms", median);
    return;
  }
}

// The sender may be stopped for longer than the queue lasts, so only moments count at which the line was certainly busy or the queue full.
void Overload(LinkEmulator& link, const Ends& ends) {
  constexpr double kRate = 100e6, kQueueBytes = 250'000, kDelay = 5e6, kMargin = 1e6;
  constexpr double kFull = kQueueBytes * 8 / kRate * kSecond + kDelay;
  link.Set(0, {kRate, kDelay / 1000, kQueueBytes, 0});
  for (int attempt = 1;; attempt++) {
    const auto arrived = Transmit(ends.first, ends.second, "10.9.0.2", 15'000, 1.3 * kRate);
    double busy = 0, packets = 0;
    std::vector<double> full, rates;
    for (size_t i = 1; i < arrived.size(); i++) {
      const auto &before = arrived[i - 1], &packet = arrived[i];
      if (packet.sent < before.received - kDelay - kMargin) {
        busy += packet.received - before.received;
        packets++;
      }
      if (packets == 100) {
        rates.push_back(packets * kLineBits / busy * kSecond);
        busy = packets = 0;
      }
      // The packet after `before` was dropped, so the queue was full.
      if (packet.number > before.number + 1) full.push_back(before.received - before.sent);
    }
    const bool enough = full.size() > 200 && rates.size() > 20;
    const bool last = attempt == kAttempts;
    if (!enough && !last) continue;
    CHECK(enough, "the line was never overloaded");
    // Medians, because this process, too, may be stopped for a while.
    const double rate = Percentile(rates, 0.5), waited = Percentile(full, 0.5);
    std::printf("overload: %.2f of 100 Mbit/s; a full queue lasts %.1f of %.1f ms\n", rate / 1e6, waited / 1e6, kFull / 1e6);
    const bool as_set = std::abs(rate / kRate - 1) < 0.02, as_long = std::abs(waited - kFull) < 2e6;
    if (!(as_set && as_long) && !last) continue;
    CHECK(as_set, "rate");
    CHECK(as_long, "queue");
    return;
  }
}

void Loss(LinkEmulator& link, const Ends& ends) {
  link.Set(1, {0, 0, 0, 0.1});
  const auto before = link.Counters(1);
  const auto arrived = Transmit(ends.second, ends.first, "10.9.0.1", 10'000, 120e6);
  const double loss = 1 - static_cast<double>(arrived.size()) / 10'000;
  std::printf("loss: %.2f of 10 %%\n", loss * 100);
  // Five standard deviations (0.3 % each).
  CHECK(loss > 0.085 && loss < 0.115, "%.4f", loss);
  const auto after = link.Counters(1);
  CHECK(after.packets - before.packets == arrived.size(), "packets");
  CHECK(after.bytes - before.bytes == arrived.size() * 1500, "bytes");
  CHECK(after.dropped - before.dropped == 10'000 - arrived.size(), "dropped");
}

void Cuts(LinkEmulator& link, const Ends& ends) {
  const auto count = [&] { return Transmit(ends.first, ends.second, "10.9.0.2", 100, 100e6).size(); };
  const LinkDirection plain{};
  link.Set(0, {0, 0, 0, 1});
  CHECK(count() == 0, "through a black hole");
  link.Set(0, plain);
  CHECK(count() == 100, "after the black hole");
  const auto has_carrier = [&] {
    ifreq request = Request("link");
    CHECK(ioctl(ends.first, SIOCGIFFLAGS, &request) == 0, "%s", strerror(errno));
    return (request.ifr_flags & IFF_RUNNING) != 0;
  };
  // The kernel reports a carrier that is lost or comes back within a second.
  const auto settles = [&](bool up) {
    for (int i = 0; i < 100 && has_carrier() != up; i++) usleep(20'000);
    return has_carrier() == up;
  };
  CHECK(link.SetCarrier(0, false) == 0, "pull");
  CHECK(settles(false), "carrier stays");
  CHECK(count() == 0, "through a pulled plug");
  CHECK(Transmit(ends.second, ends.first, "10.9.0.1", 100, 100e6).empty(), "to a pulled plug");
  CHECK(link.SetCarrier(0, true) == 0, "plug in");
  CHECK(settles(true), "carrier does not come back");
  CHECK(count() == 100, "after the plug");
}

}  // namespace

int main() {
  if (geteuid() != 0 || access("/dev/net/tun", R_OK | W_OK) != 0) {
    std::printf("skipped: needs root and /dev/net/tun\n");
    return 0;
  }
  prctl(PR_SET_TIMERSLACK, 1);
  const int first = NewNamespace(), second = NewNamespace();
  const auto path = [](int netns) { return "/proc/self/fd/" + std::to_string(netns); };
  const LinkEnd near{path(first), "link", 0}, far{path(second), "link", 1500};
  LinkFailure failure;
  auto link = LinkEmulator::Create({near, far}, {}, &failure);
  CHECK(link != nullptr, "%s: %s", failure.syscall, strerror(failure.error));
  CHECK(LinkEmulator::Create({near, far}, {}, &failure) == nullptr && failure.error == EBUSY, "a name taken");
  CHECK(LinkEmulator::Create({LinkEnd{"/nowhere", "x", 0}, far}, {}, &failure) == nullptr && failure.error == ENOENT, "no namespace");

  const Ends ends{Configure(first, "link", "10.9.0.1"), Configure(second, "link", "10.9.0.2")};
  Delay(*link, ends);
  Overload(*link, ends);
  Loss(*link, ends);
  Cuts(*link, ends);

  link.reset();
  ifreq request = Request("link");
  CHECK(ioctl(ends.first, SIOCGIFFLAGS, &request) != 0 && errno == ENODEV, "the device is left");
  for (const int fd : {ends.first, ends.second, first, second}) close(fd);
  std::printf("ok\n");
  return 0;
}
