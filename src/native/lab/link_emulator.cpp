#include "lab/link_emulator.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>
#include <random>
#include <vector>

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

namespace bondsocks {
namespace {

using Nanoseconds = int64_t;
constexpr Nanoseconds kSecond = 1'000'000'000;

// On the line a packet also has an Ethernet header, as on a veth with netem.
constexpr size_t kFraming = 14;
// Packets that are read from a device before the other direction's turn.
constexpr int kBatch = 64;
// Packets that are due within this time leave together: that halves the wake-ups at 100 Mbit/s, and is a tenth of the promised accuracy.
constexpr Nanoseconds kGrain = 100'000;
// The largest IP packet.
constexpr size_t kLargest = 65535;

Nanoseconds Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kSecond + now.tv_nsec;
}

bool Fail(LinkFailure* failure, const char* syscall) {
  *failure = {errno, syscall};
  return false;
}

// Leaves the calling thread in the namespace, so use it only in a thread that ends afterwards. The descriptor works in every namespace.
int OpenTun(const LinkEnd& end, LinkFailure* failure) {
  const int netns = open(end.netns.c_str(), O_RDONLY | O_CLOEXEC);
  if (netns < 0) return Fail(failure, "open netns"), -1;
  const bool entered = setns(netns, CLONE_NEWNET) == 0;
  if (!entered) Fail(failure, "setns");
  close(netns);
  if (!entered) return -1;

  const int tun = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (tun < 0) return Fail(failure, "open /dev/net/tun"), -1;
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  end.device.copy(request.ifr_name, IFNAMSIZ - 1);
  bool made = ioctl(tun, TUNSETIFF, &request) == 0 || Fail(failure, "TUNSETIFF");
  if (made && end.mtu > 0) {
    const int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    request.ifr_mtu = end.mtu;
    made = (control >= 0 && ioctl(control, SIOCSIFMTU, &request) == 0) || Fail(failure, "SIOCSIFMTU");
    if (control >= 0) close(control);
  }
  if (made) return tun;
  close(tun);
  return -1;
}

}  // namespace

// One direction. Packets that wait for the line and packets on their way stand in one queue, first in, first out, with their arrival times.
struct LinkEmulator::Line {
  struct Packet {
    Nanoseconds due;
    std::vector<uint8_t> bytes;
  };

  std::deque<Packet> packets;
  // When the line will have sent the last bit that was accepted. An absolute time, so that a late wake-up costs no bandwidth.
  double free_at = 0;
  std::mt19937_64 random{std::random_device{}()};
  std::atomic<uint64_t> delivered{0}, bytes{0}, dropped{0};

  void Accept(const LinkDirection& parameters, Nanoseconds now, const uint8_t* data, size_t size) {
    const double length = static_cast<double>(size + kFraming);
    const double start = std::max(free_at, static_cast<double>(now));
    if (parameters.rate > 0) {
      const double waiting = (start - static_cast<double>(now)) * parameters.rate / 8 / kSecond;
      if (waiting + length > parameters.queue_bytes && waiting > 0) return Drop();
      free_at = start + length * 8 * kSecond / parameters.rate;
    } else {
      free_at = start;
    }
    // A lost packet uses the line, too.
    if (std::generate_canonical<double, 53>(random) < parameters.loss) return Drop();
    packets.push_back({static_cast<Nanoseconds>(free_at + parameters.delay_us * 1000), {data, data + size}});
  }

  void Deliver(Nanoseconds now, int tun, bool plugged) {
    for (; !packets.empty() && packets.front().due <= now; packets.pop_front()) {
      const auto& packet = packets.front().bytes;
      // A device that is down refuses packets: they are lost.
      if (!plugged || write(tun, packet.data(), packet.size()) < 0) {
        Drop();
        continue;
      }
      delivered.fetch_add(1, std::memory_order_relaxed);
      bytes.fetch_add(packet.size(), std::memory_order_relaxed);
    }
  }

  void Drop() { dropped.fetch_add(1, std::memory_order_relaxed); }
};

LinkEmulator::LinkEmulator() {
  for (auto& line : lines_) line = std::make_unique<Line>();
  for (auto& plugged : plugged_) plugged = true;
}

std::unique_ptr<LinkEmulator> LinkEmulator::Create(const std::array<LinkEnd, 2>& ends, const std::array<LinkDirection, 2>& directions,
                                                   LinkFailure* failure) {
  std::unique_ptr<LinkEmulator> link(new LinkEmulator());
  link->parameters_ = directions;
  if (!link->Open(ends, failure)) return nullptr;
  link->thread_ = std::thread([raw = link.get()] { raw->Run(); });
  return link;
}

bool LinkEmulator::Open(const std::array<LinkEnd, 2>& ends, LinkFailure* failure) {
  timer_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (timer_ < 0) return Fail(failure, "timerfd_create");
  stop_ = eventfd(0, EFD_CLOEXEC);
  if (stop_ < 0) return Fail(failure, "eventfd");
  // In a thread of its own, because setns(2) moves the calling thread.
  std::thread([&] {
    for (size_t end = 0; end < 2 && (end == 0 || tun_[0] >= 0); end++) tun_[end] = OpenTun(ends[end], failure);
  }).join();
  return tun_[0] >= 0 && tun_[1] >= 0;
}

LinkEmulator::~LinkEmulator() {
  if (thread_.joinable()) {
    const uint64_t one = 1;
    while (write(stop_, &one, sizeof one) < 0 && errno == EINTR) {
    }
    thread_.join();
  }
  for (const int fd : {tun_[0], tun_[1], timer_, stop_}) {
    if (fd >= 0) close(fd);
  }
}

void LinkEmulator::Set(size_t direction, const LinkDirection& parameters) {
  const std::lock_guard<std::mutex> lock(mutex_);
  parameters_[direction] = parameters;
}

int LinkEmulator::SetCarrier(size_t end, bool up) {
  int carrier = up ? 1 : 0;
  if (ioctl(tun_[end], TUNSETCARRIER, &carrier) != 0) return errno;
  // Without carrier, the kernel stops sending on the device, but would still accept packets from us.
  plugged_[end] = up;
  return 0;
}

LinkCounters LinkEmulator::Counters(size_t direction) const {
  const auto& line = *lines_[direction];
  return {line.delivered.load(std::memory_order_relaxed), line.bytes.load(std::memory_order_relaxed), line.dropped.load(std::memory_order_relaxed)};
}

void LinkEmulator::Run() {
  prctl(PR_SET_NAME, "link");
  // A real line does not wait for the CPU. Both calls are best effort: without them, accuracy depends on the scheduler.
  prctl(PR_SET_TIMERSLACK, 1);
  sched_param priority{};
  priority.sched_priority = 1;
  sched_setscheduler(0, SCHED_FIFO | SCHED_RESET_ON_FORK, &priority);

  const int poll = epoll_create1(EPOLL_CLOEXEC);
  for (const int fd : {tun_[0], tun_[1], timer_, stop_}) {
    epoll_event interest{};
    interest.events = EPOLLIN;
    interest.data.fd = fd;
    epoll_ctl(poll, EPOLL_CTL_ADD, fd, &interest);
  }

  std::vector<uint8_t> buffer(kLargest);
  Nanoseconds armed = 0;
  for (;;) {
    std::array<epoll_event, 4> ready{};
    const int count = epoll_wait(poll, ready.data(), static_cast<int>(ready.size()), -1);
    if (count < 0 && errno != EINTR) break;
    std::array<LinkDirection, 2> parameters;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      parameters = parameters_;
    }
    bool stopping = false;
    for (int i = 0; i < count; i++) {
      const int fd = ready[static_cast<size_t>(i)].data.fd;
      if (fd == stop_) stopping = true;
      if (fd == timer_) {
        uint64_t expirations = 0;
        armed = read(timer_, &expirations, sizeof expirations) > 0 ? 0 : armed;
      }
      for (size_t end = 0; end < 2; end++) {
        if (fd != tun_[end]) continue;
        int taken = 0;
        ssize_t size = 0;
        for (; taken < kBatch && (size = read(fd, buffer.data(), buffer.size())) > 0; taken++) {
          if (plugged_[end]) lines_[end]->Accept(parameters[end], Now(), buffer.data(), static_cast<size_t>(size));
        }
        // The namespace was deleted, and the device with it. Nothing will come from there, but epoll would report it for ever.
        if (size < 0 && errno != EAGAIN && errno != EINTR) epoll_ctl(poll, EPOLL_CTL_DEL, fd, nullptr);
      }
    }
    if (stopping) break;

    const Nanoseconds now = Now();
    Nanoseconds next = 0;
    for (size_t direction = 0; direction < 2; direction++) {
      auto& line = *lines_[direction];
      line.Deliver(now, tun_[1 - direction], plugged_[1 - direction]);
      if (line.packets.empty()) continue;
      const Nanoseconds due = std::max(line.packets.front().due, now + kGrain);
      if (next == 0 || due < next) next = due;
    }
    if (next != 0 && (armed == 0 || next < armed)) {
      itimerspec at{};
      at.it_value = {next / kSecond, next % kSecond};
      timerfd_settime(timer_, TFD_TIMER_ABSTIME, &at, nullptr);
      armed = next;
    }
  }
  close(poll);
}

}  // namespace bondsocks
