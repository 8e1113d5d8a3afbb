// The receive buffer of a flow's source: how much may wait in it, and when it grows.
#include "core/relay.h"

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

#include "tcp_pair.h"

namespace {
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

// If the source is fast and the target slow, few bytes wait, but always some. If the target is fast too, the buffer grows.
void backlog(const Pair& pair, Flow& flow, const Side& source) {
  std::atomic<bool> over{false};
  std::thread sender([&] {
    const std::string text(64 * 1024, 'x');
    while (!over) {
      if (send(pair.far, text.data(), text.size(), MSG_DONTWAIT) < 0) poll(nullptr, 0, 1);
    }
  });
  std::string received(1 << 20, '\0');
  uint64_t cameMs = nowMs();
  uint64_t longestPauseMs = 0;
  const auto take = [&](size_t maxBytes) {
    const ssize_t size = recv(pair.near, received.data(), maxBytes, MSG_DONTWAIT);
    if (size > 0) flow.bytes += static_cast<uint64_t>(size);
    if (size > 0) cameMs = nowMs();
    longestPauseMs = std::max(longestPauseMs, nowMs() - cameMs);
  };
  int maxQueued = 0;
  uint64_t lookMs = nowMs();
  for (const uint64_t untilMs = lookMs + 1500; nowMs() < untilMs; poll(nullptr, 0, 10)) {
    take(20000);
    if (nowMs() < lookMs + 100) continue;
    lookMs += 100;
    int queued = 0;
    CHECK(ioctl(pair.near, SIOCINQ, &queued) == 0);
    maxQueued = std::max(maxQueued, queued);
    look(&flow, source);
  }
  CHECK(maxQueued > 0 && maxQueued <= kReceiveBuffer && receiveBuffer(pair.near) == kReceiveBuffer);
  CHECK(longestPauseMs < 500);
  // Like a fast target: many bytes have moved, though some always wait.
  flow.bytes += 10 * kReceiveBuffer;
  look(&flow, source);
  CHECK(receiveBuffer(pair.near) == 2 * kReceiveBuffer);
  over = true;
  sender.join();
  while (recv(pair.near, received.data(), received.size(), MSG_DONTWAIT) > 0) poll(nullptr, 0, 5);
  // Like a distant server: all bytes that the window lets through have been read.
  for (int i = 0; i < 3; ++i) {
    flow.bytes += static_cast<uint64_t>(receiveBuffer(pair.near));
    look(&flow, source);
  }
  CHECK(receiveBuffer(pair.near) == 16 * kReceiveBuffer);
}

// A target that reads on takes at once the bytes that have waited for it. They are no sign of a fast source.
void whatHasWaited(const Pair& pair, Flow& flow, const Side& source) {
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
  std::string received(kReceiveBuffer, '\0');
  for (ssize_t size; (size = recv(pair.near, received.data(), received.size(), MSG_DONTWAIT)) > 0;) flow.bytes += static_cast<uint64_t>(size);
  look(&flow, source);
  CHECK(receiveBuffer(pair.near) == kReceiveBuffer);
}

void withBoundedBacklog(void (*test)(const Pair&, Flow&, const Side&)) {
  const Pair pair = tcpPair();
  Flow flow;
  Side source = {pair.near, true, true};
  source.protocol = Protocol::Tcp;
  boundBacklog(source);
  // Without CAP_NET_ADMIN the kernel refuses it.
  if (receiveBuffer(pair.near) == kReceiveBuffer) test(pair, flow, source);
  for (const int fd : {pair.near, pair.far}) closeFd(fd);
}

// Drops the capability of this thread, as a HAG that does not run as root lacks it.
void dropNetAdmin() {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2];
  CHECK(syscall(SYS_capget, &header, data) == 0);
  data[0].effective &= ~(1U << CAP_NET_ADMIN);
  CHECK(syscall(SYS_capset, &header, data) == 0);
}

// Without CAP_NET_ADMIN a held buffer may become smaller than asked for, but never larger.
void heldByWhomever() {
  for (const bool isMptcp : {false, true}) {
    const Pair pair = tcpPair(isMptcp);
    Flow flow;
    Side source = {pair.near, true, true};
    source.protocol = isMptcp ? Protocol::Mptcp : Protocol::Tcp;
    const int size = 512 * 1024;
    const std::string text(size, 'x');
    std::string received(size, '\0');
    const auto sendMuch = [&](bool isRead) {
      for (int i = 0; i < 100; ++i) {
        send(pair.far, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
        poll(nullptr, 0, 2);
        while (isRead && recv(pair.near, received.data(), received.size(), MSG_DONTWAIT) > 0) continue;
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
  withBoundedBacklog(backlog);
  withBoundedBacklog(whatHasWaited);
  heldByWhomever();
  return passed();
}
