// pump(): one direction between two sockets.
#include "core/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "check.h"
#include "tcp_pair.h"

namespace {
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
  // Waits until sent bytes, or an abort, have arrived: even on loopback that may take a moment.
  void arrives(const Side& side) {
    pollfd here = {side.fd, static_cast<short>(&side == &source ? POLLIN : 0), 0};
    CHECK(poll(&here, 1, 5000) == 1);
  }
  // Waits as epoll would. True if something changed.
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

// Without a pipe, bytes that the target does not take stay in the source's socket: the flow itself holds none.
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

// All pipes together take at most a quarter of the descriptors, even if nobody reads what is in them.
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

// send(2) to the source has reported its reset, and recv(2) does not report it again.
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
    // The source ends after the target was lost: that is no normal end.
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
  return passed();
}
