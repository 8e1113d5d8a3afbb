// pump(): one direction between two sockets.
#include "core/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>

#include "check.h"
#include "core/socket.h"

namespace {
struct Pair {
  int near = -1;
  int far = -1;
};

// Over loopback TCP: only there is a reset what it is in service.
Pair tcpPair(bool mptcp = false) {
  Address address;
  Protocol protocol;
  Failure failure;
  CHECK(parseAddress("127.0.0.1", 0, &address));
  const int listener = listenSocket(address, mptcp, false, &protocol, &failure);
  CHECK(listener >= 0);
  const int near = dialSocket(localAddress(listener), nullptr, mptcp, &protocol, &failure);
  CHECK(near >= 0);
  pollfd waiting = {listener, POLLIN, 0};
  CHECK(poll(&waiting, 1, 5000) == 1);
  const int far = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
  CHECK(far >= 0);
  closeFd(listener);
  return {near, far};
}

std::string pattern(size_t size) {
  std::string text(size, '\0');
  uint32_t state = 1;
  for (char& one : text) one = static_cast<char>((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

// A flow from `in.far` to `out.near`; the test writes to in.near and reads from out.far.
struct World {
  explicit World(uint64_t descriptorLimit = 100, bool mptcp = false) : pipes(&counters, descriptorLimit), in(tcpPair(mptcp)), out(tcpPair(mptcp)) {
    source.fd = in.far;
    target.fd = out.near;
    source.readable = target.writable = true;
  }
  ~World() {
    discardFlow(&flow, &pipes, &counters);
    for (const int fd : {in.near, in.far, out.near, out.far}) closeFd(fd);
  }
  Pumped pump(int64_t budget = 1 << 30) { return ::pump(&flow, &source, &target, budget, &pipes, &counters); }
  // Until what was sent, or an abort, has arrived: also on loopback that may take a moment.
  void arrives(const Side& side) {
    pollfd here = {side.fd, static_cast<short>(&side == &source ? POLLIN : 0), 0};
    CHECK(poll(&here, 1, 5000) == 1);
  }
  // Waits as epoll would; true where something changed.
  bool wait(int timeout = 5000) {
    pollfd both[] = {{source.readable ? -1 : source.fd, POLLIN, 0}, {target.writable ? -1 : target.fd, POLLOUT, 0}};
    if (poll(both, 2, timeout) <= 0) return false;
    source.readable |= both[0].revents != 0;
    target.writable |= both[1].revents != 0;
    return true;
  }
  Counters counters;
  PipePool pipes;
  Pair in;
  Pair out;
  Side source;
  Side target;
  Flow flow;
};

void bytesAndEnd(bool withPipe, bool mptcp) {
  World world(withPipe ? 100 : 0, mptcp);
  const std::string sent = pattern(8 << 20);
  fcntl(world.in.near, F_SETFL, 0);
  fcntl(world.out.far, F_SETFL, 0);
  std::thread writer([&] {
    for (size_t at = 0; at < sent.size();) {
      const ssize_t size = send(world.in.near, sent.data() + at, sent.size() - at, MSG_NOSIGNAL);
      CHECK(size > 0);
      at += static_cast<size_t>(size);
    }
    shutdown(world.in.near, SHUT_WR);
  });
  std::string received;
  std::thread reader([&] {
    char data[65536];
    for (ssize_t size; (size = recv(world.out.far, data, sizeof data, 0)) > 0;) received.append(data, static_cast<size_t>(size));
  });
  while (!world.flow.done) {
    const Pumped pumped = world.pump();
    CHECK(pumped == Pumped::Waiting);
    if (!world.flow.done) CHECK(world.wait());
  }
  writer.join();
  reader.join();
  CHECK(received == sent);
  CHECK(world.flow.bytes == sent.size());
  // Only this direction has ended.
  CHECK(send(world.out.far, "x", 1, MSG_NOSIGNAL) == 1);
  pollfd answer = {world.target.fd, POLLIN, 0};
  CHECK(poll(&answer, 1, 5000) == 1);
  char one;
  CHECK(recv(world.target.fd, &one, 1, 0) == 1);
  CHECK(world.counters.pipesInUse == 0 && world.counters.pipesPooled == (withPipe ? 1 : 0) && world.counters.bytesParked == 0);
  CHECK(world.counters.descriptors == (withPipe ? 2 : 0));
}

void budget() {
  World world;
  const std::string sent = pattern(100000);
  CHECK(send(world.in.near, sent.data(), sent.size(), 0) == static_cast<ssize_t>(sent.size()));
  world.arrives(world.source);
  CHECK(world.pump(1) == Pumped::More);
  CHECK(world.source.readable && world.flow.bytes > 0 && !world.flow.pipe.open());
  CHECK(world.pump() == Pumped::Waiting);
  CHECK(!world.source.readable && !world.flow.pipe.open());
}

// What its target does not take stays in the source: such a flow holds nothing.
void slowTargetWithoutPipe() {
  World world(0);
  const std::string sent = pattern(1 << 20);
  size_t in = 0;
  for (int i = 0; i < 1000; ++i) {
    const ssize_t size = send(world.in.near, sent.data(), sent.size(), MSG_NOSIGNAL);
    if (size > 0) in += static_cast<size_t>(size);
    CHECK(world.pump() == Pumped::Waiting);
    pollfd room = {world.target.fd, POLLOUT, 0};
    if (!world.target.writable && poll(&room, 1, 50) == 0) break;
    world.source.readable = world.target.writable = true;
  }
  CHECK(!world.target.writable && world.source.readable && world.flow.bytes < in);
  CHECK(world.flow.parked == 0 && world.counters.bytesParked == 0 && world.counters.pipesInUse == 0 && world.counters.descriptors == 0);
}

// Pipes whose bytes nobody reads leave most descriptors to others.
void pipesShare() {
  Counters counters;
  PipePool pipes(&counters, 100);
  std::vector<Pipe> taken;
  for (Pipe pipe; (pipe = pipes.take()).open();) taken.push_back(pipe);
  CHECK(taken.size() == 12 && counters.descriptors == 24);
  pipes.release(taken.back());
  taken.back() = pipes.take();
  CHECK(taken.back().open() && !pipes.take().open());
  for (const Pipe& pipe : taken) pipes.release(pipe);
}

void slowTargetParks() {
  World world;
  const std::string sent = pattern(1 << 20);
  for (int i = 0; i < 1000; ++i) {
    send(world.in.near, sent.data(), sent.size(), MSG_NOSIGNAL);
    CHECK(world.pump() == Pumped::Waiting);
    pollfd room = {world.target.fd, POLLOUT, 0};
    if (world.flow.parked > 0 && poll(&room, 1, 50) == 0) break;
    world.source.readable = world.target.writable = true;
  }
  CHECK(!world.target.writable && world.flow.parked > 0 && world.counters.pipesInUse == 1);
  CHECK(world.counters.bytesParked == world.flow.parked);
  discardFlow(&world.flow, &world.pipes, &world.counters);
  CHECK(world.counters.bytesParked == 0 && world.counters.pipesInUse == 0 && world.counters.descriptors == 0);
}

void room(bool withPipe) {
  World world(withPipe ? 100 : 0);
  const std::string sent = pattern(100000);
  CHECK(send(world.in.near, sent.data(), sent.size(), 0) == static_cast<ssize_t>(sent.size()));
  world.arrives(world.source);
  world.flow.room = 1000;
  CHECK(world.pump() == Pumped::Waiting && world.flow.bytes == 1000 && world.flow.room == 0 && world.target.writable);
  CHECK(world.pump() == Pumped::Waiting && world.flow.bytes == 1000);
  CHECK(withPipe ? world.flow.parked > 0 : world.source.readable);
  world.flow.room = -1;
  CHECK(world.pump() == Pumped::Waiting && world.flow.bytes == sent.size() && world.flow.room == -1);
}

// A send(2) to the source heard of its reset, and recv(2) does not say it again.
void resetThatWasTold(bool withPipe) {
  World world(withPipe ? 100 : 0);
  const std::string sent = pattern(3000);
  CHECK(send(world.in.near, sent.data(), sent.size(), 0) == static_cast<ssize_t>(sent.size()));
  abortFd(world.in.near);
  world.in.near = -1;
  pollfd waiting = {world.in.far, POLLERR, 0};
  CHECK(poll(&waiting, 1, 5000) == 1);
  CHECK(send(world.in.far, "x", 1, MSG_NOSIGNAL) == -1);
  world.source.error = errno;
  CHECK(world.pump() == Pumped::SourceFailed && errno == world.source.error);
  CHECK(!world.flow.ended && world.flow.bytes == sent.size());
}

void resets() {
  {
    World world;
    abortFd(world.in.near);
    world.in.near = -1;
    world.arrives(world.source);
    CHECK(world.pump() == Pumped::SourceFailed && errno == ECONNRESET);
  }
  {
    World world;
    CHECK(send(world.in.near, "hello", 5, 0) == 5);
    abortFd(world.out.far);
    world.out.far = -1;
    world.arrives(world.source);
    world.arrives(world.target);
    CHECK(world.pump() == Pumped::TargetFailed);
  }
  {
    // The source ends when the target is lost already: no normal end.
    World world;
    shutdown(world.in.near, SHUT_WR);
    abortFd(world.out.far);
    world.out.far = -1;
    world.arrives(world.source);
    world.arrives(world.target);
    CHECK(world.pump() == Pumped::TargetFailed);
    CHECK(!world.flow.done);
  }
}

int receiveBuffer(int fd) {
  int size = 0;
  socklen_t length = sizeof size;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &length) == 0);
  return size;
}

uint64_t nowMs() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000 + static_cast<uint64_t>(time.tv_nsec) / 1000000;
}

void look(Flow* flow, const Side& source) {
  const int size = widerBacklog(flow, source);
  if (size > 0) enlargeReceiveBuffer(*flow, source, size);
}

// A fast source whose bytes go on slowly: little waits, and always something. Where they go on quickly there is more room.
void backlog() {
  const Pair pair = tcpPair();
  Flow flow;
  Side source = {pair.near, true, true};
  source.protocol = Protocol::Tcp;
  boundBacklog(source);
  if (receiveBuffer(pair.near) != kReceiveBuffer) return;  // not without CAP_NET_ADMIN
  std::atomic<bool> over{false};
  std::thread sender([&] {
    const std::string text(64 * 1024, 'x');
    while (!over) {
      if (send(pair.far, text.data(), text.size(), MSG_DONTWAIT) < 0) poll(nullptr, 0, 1);
    }
  });
  std::string heard(1 << 20, '\0');
  uint64_t cameMs = nowMs();
  uint64_t longestPauseMs = 0;
  const auto take = [&](size_t most) {
    const ssize_t size = recv(pair.near, heard.data(), most, MSG_DONTWAIT);
    if (size > 0) flow.bytes += static_cast<uint64_t>(size);
    if (size > 0) cameMs = nowMs();
    longestPauseMs = std::max(longestPauseMs, nowMs() - cameMs);
  };
  int most = 0;
  uint64_t lookMs = nowMs();
  for (const uint64_t untilMs = lookMs + 1500; nowMs() < untilMs; poll(nullptr, 0, 10)) {
    take(20000);
    if (nowMs() < lookMs + 100) continue;
    lookMs += 100;
    int queued = 0;
    CHECK(ioctl(pair.near, SIOCINQ, &queued) == 0);
    most = std::max(most, queued);
    look(&flow, source);
  }
  CHECK(most > 0 && most <= kReceiveBuffer && receiveBuffer(pair.near) == kReceiveBuffer);
  CHECK(longestPauseMs < 500);
  // As through a fast path: what waits is always a little, and gone at once.
  flow.bytes += 10 * kReceiveBuffer;
  look(&flow, source);
  CHECK(receiveBuffer(pair.near) == 2 * kReceiveBuffer);
  over = true;
  sender.join();
  while (recv(pair.near, heard.data(), heard.size(), MSG_DONTWAIT) > 0) poll(nullptr, 0, 5);
  // As from a distant server: all that its window lets through has been read.
  for (int i = 0; i < 3; ++i) {
    flow.bytes += static_cast<uint64_t>(receiveBuffer(pair.near));
    look(&flow, source);
  }
  CHECK(receiveBuffer(pair.near) == 16 * kReceiveBuffer);
  for (const int fd : {pair.near, pair.far}) closeFd(fd);
}
// A target that goes on reading takes at once what has waited for it: no sign of a fast source.
void whatHasWaited() {
  const Pair pair = tcpPair();
  Flow flow;
  Side source = {pair.near, true, true};
  source.protocol = Protocol::Tcp;
  boundBacklog(source);
  if (receiveBuffer(pair.near) != kReceiveBuffer) return;  // not without CAP_NET_ADMIN
  flow.bytes = flow.looked = 1 << 20;
  const std::string text(kReceiveBuffer, 'x');
  int queued = 0;
  for (int tries = 0; tries < 100 && queued < kReceiveBuffer / 4 + 32 * 1024; ++tries) {
    send(pair.far, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    poll(nullptr, 0, 5);
    CHECK(ioctl(pair.near, SIOCINQ, &queued) == 0);
  }
  CHECK(queued >= kReceiveBuffer / 4 + 32 * 1024);
  look(&flow, source);
  std::string heard(kReceiveBuffer, '\0');
  for (ssize_t size; (size = recv(pair.near, heard.data(), heard.size(), MSG_DONTWAIT)) > 0;) flow.bytes += static_cast<uint64_t>(size);
  look(&flow, source);
  CHECK(receiveBuffer(pair.near) == kReceiveBuffer);
  for (const int fd : {pair.near, pair.far}) closeFd(fd);
}

// Of this thread: as a HAG that does not run as root.
void dropNetAdmin() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  CHECK(syscall(SYS_capget, &header, data) == 0);
  data[0].effective &= ~(1U << CAP_NET_ADMIN);
  CHECK(syscall(SYS_capset, &header, data) == 0);
}

// Without CAP_NET_ADMIN a buffer that is to be held may become smaller than it should be, never larger.
void heldByWhomever() {
  for (const bool isMptcp : {false, true}) {
    const Pair pair = tcpPair(isMptcp);
    Flow flow;
    Side source = {pair.near, true, true};
    source.protocol = isMptcp ? Protocol::Mptcp : Protocol::Tcp;
    const int size = 512 * 1024;
    const std::string text(size, 'x');
    std::string heard(size, '\0');
    const auto sendMuch = [&](bool isRead) {
      for (int i = 0; i < 100; ++i) {
        send(pair.far, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        poll(nullptr, 0, 2);
        while (isRead && recv(pair.near, heard.data(), heard.size(), MSG_DONTWAIT) > 0) continue;
      }
    };
    std::thread([&] {
      dropNetAdmin();
      holdReceiveBuffer(&flow, source, size);
      if (flow.isHeld) enlargeReceiveBuffer(flow, source, 2 * size);
    }).join();
    CHECK(receiveBuffer(source) <= 2 * size);
    if (!flow.isHeld) continue;  // MPTCP before Linux 6.9
    sendMuch(true);
    CHECK(receiveBuffer(source) <= 2 * size);
    sendMuch(false);
    int queued = 0;
    CHECK(ioctl(pair.near, SIOCINQ, &queued) == 0 && queued > 0 && queued <= 2 * size);
    for (const int fd : {pair.near, pair.far}) closeFd(fd);
  }
}
}  // namespace

int main() {
  signal(SIGPIPE, SIG_IGN);  // as on the engine's threads
  for (const bool withPipe : {true, false}) {
    bytesAndEnd(withPipe, false);
    bytesAndEnd(withPipe, true);
    room(withPipe);
  }
  budget();
  slowTargetParks();
  slowTargetWithoutPipe();
  pipesShare();
  resets();
  for (const bool withPipe : {true, false}) resetThatWasTold(withPipe);
  backlog();
  whatHasWaited();
  heldByWhomever();
  return passed();
}
