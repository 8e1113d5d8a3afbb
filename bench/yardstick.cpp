/*
 * The yardstick: the least that a redirector over MPTCP must do. One thread, epoll, splice; no policy, no timeouts, no retries, no
 * statistics, no fairness. What another program costs more than this one is the price of its features.
 *
 *   yardstick PORT HAG_ADDRESS HAG_PORT
 *
 * It accepts, reads SO_ORIGINAL_DST and connects over MPTCP. Once connected it sends SOCKS5's greeting, CONNECT (RFC 1928) and the client's
 * bytes so far in one write. Then it moves bytes through pipes, with half-close in both directions.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>
#include <vector>

namespace {

// Older systems lack these in their headers.
constexpr int kIpProtoMptcp = 262;
constexpr int kSoOriginalDst = 80;
constexpr size_t kChunk = 65536;
constexpr size_t kEarlyBytes = 16384;
constexpr size_t kGreetingAndConnect = 3 + 10;
constexpr size_t kReplyHead = 2 + 4;
constexpr size_t kReplyWithIpv4 = 2 + 10;
constexpr size_t kReplyWithIpv6 = 2 + 22;

using Pipe = std::pair<int, int>;

/** One direction. It has a pipe only while bytes are in it. */
struct Flow {
  int from = -1;
  int to = -1;
  Pipe pipe{-1, -1};
  size_t piped = 0;
  bool ended = false;
  bool shut = false;
};

enum class State { kConnecting, kNegotiating, kRelaying };

struct Connection {
  State state = State::kConnecting;
  Flow up;
  Flow down;
  sockaddr_in destination{};
  unsigned char reply[kReplyWithIpv6];
  size_t replied = 0;
  bool closed = false;

  int client() const { return up.from; }
  int hag() const { return up.to; }
};

int poller;
sockaddr_in hagAddress{};
std::vector<Pipe> pipes;
// A connection may have two events in one round, so it is freed after the round.
std::vector<Connection*> dead;

void die(const char* what) {
  perror(what);
  exit(1);
}

void giveBack(Flow& flow) {
  if (flow.pipe.first < 0) return;
  if (flow.piped == 0) {
    pipes.push_back(flow.pipe);
  } else {
    close(flow.pipe.first);
    close(flow.pipe.second);
  }
  flow.pipe = {-1, -1};
}

void finish(Connection& connection, bool abort) {
  if (connection.closed) return;
  connection.closed = true;
  for (int fd : {connection.client(), connection.hag()}) {
    if (fd < 0) continue;
    const linger now{1, 0};
    if (abort) setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
  }
  giveBack(connection.up);
  giveBack(connection.down);
  dead.push_back(&connection);
}

bool wouldBlock() { return errno == EAGAIN || errno == EINTR; }

bool takePipe(Flow& flow) {
  if (flow.pipe.first >= 0) return true;
  if (!pipes.empty()) {
    flow.pipe = pipes.back();
    pipes.pop_back();
    return true;
  }
  int ends[2];
  if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) return false;
  flow.pipe = {ends[0], ends[1]};
  return true;
}

/** Moves bytes until one side would block, as edge-triggered epoll requires. False: the connection is broken. */
bool pump(Flow& flow) {
  constexpr unsigned kFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
  while (!flow.shut) {
    bool isDry = flow.ended;
    if (!flow.ended && flow.piped == 0) {
      if (!takePipe(flow)) return false;
      const ssize_t got = splice(flow.from, nullptr, flow.pipe.second, nullptr, kChunk, kFlags);
      if (got < 0 && !wouldBlock()) return false;
      if (got == 0) flow.ended = true;
      if (got > 0) flow.piped = static_cast<size_t>(got);
      isDry = got <= 0;
    }
    if (flow.piped > 0) {
      const ssize_t sent = splice(flow.pipe.first, nullptr, flow.to, nullptr, flow.piped, kFlags);
      if (sent < 0) return wouldBlock();
      flow.piped -= static_cast<size_t>(sent);
      continue;
    }
    if (flow.ended) {
      shutdown(flow.to, SHUT_WR);
      flow.shut = true;
    }
    if (isDry) break;
  }
  giveBack(flow);
  return true;
}

/** Sends the greeting, CONNECT and the client's bytes so far in one segment. */
bool ask(Connection& connection) {
  unsigned char message[kGreetingAndConnect + kEarlyBytes] = {5, 1, 0, 5, 1, 0, 1};
  memcpy(message + 7, &connection.destination.sin_addr, 4);
  memcpy(message + 11, &connection.destination.sin_port, 2);
  const ssize_t early = recv(connection.client(), message + kGreetingAndConnect, kEarlyBytes, MSG_DONTWAIT);
  if (early < 0 && !wouldBlock()) return false;
  const size_t length = kGreetingAndConnect + (early > 0 ? static_cast<size_t>(early) : 0);
  return send(connection.hag(), message, length, MSG_NOSIGNAL) == static_cast<ssize_t>(length);
}

/** Reads no byte beyond the reply: what follows belongs to the client. */
bool readReply(Connection& connection) {
  for (;;) {
    size_t wanted = kReplyHead;
    if (connection.replied >= kReplyHead) wanted = connection.reply[5] == 4 ? kReplyWithIpv6 : kReplyWithIpv4;
    if (connection.replied == wanted) break;
    const ssize_t got = recv(connection.hag(), connection.reply + connection.replied, wanted - connection.replied, 0);
    if (got < 0) return wouldBlock();
    if (got == 0) return false;
    connection.replied += static_cast<size_t>(got);
    if (connection.replied >= 4 && (connection.reply[1] != 0 || connection.reply[3] != 0)) return false;
  }
  connection.state = State::kRelaying;
  return true;
}

void watch(int fd, Connection* connection) {
  epoll_event event{};
  event.events = connection == nullptr ? EPOLLIN : EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.ptr = connection;
  if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) < 0) die("epoll_ctl");
}

bool advance(Connection& connection, unsigned events) {
  if (connection.state == State::kConnecting) {
    if ((events & EPOLLOUT) == 0) return true;
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection.hag(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0 || !ask(connection)) return false;
    connection.state = State::kNegotiating;
  }
  if (connection.state == State::kNegotiating) {
    if (!readReply(connection)) return false;
    // Not earlier: an event of the client would be taken for one of the HAG.
    if (connection.state == State::kRelaying) watch(connection.client(), &connection);
  }
  if (connection.state != State::kRelaying) return true;
  return pump(connection.up) && pump(connection.down);
}

void open(int client, const sockaddr_in& destination) {
  const int hag = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, kIpProtoMptcp);
  if (hag < 0) die("socket");
  const int on = 1;
  setsockopt(client, SOL_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(hag, SOL_TCP, TCP_NODELAY, &on, sizeof on);
  auto* connection = new Connection;
  connection->destination = destination;
  connection->up.from = connection->down.to = client;
  connection->up.to = connection->down.from = hag;
  if (connect(hag, reinterpret_cast<const sockaddr*>(&hagAddress), sizeof hagAddress) < 0 && errno != EINPROGRESS) {
    return finish(*connection, true);
  }
  watch(hag, connection);
}

void acceptAll(int listener) {
  for (;;) {
    const int client = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (client < 0) return;
    sockaddr_in destination{};
    socklen_t size = sizeof destination;
    if (getsockopt(client, SOL_IP, kSoOriginalDst, &destination, &size) < 0) {
      close(client);
      continue;
    }
    open(client, destination);
  }
}

int listenOn(uint16_t port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 || listen(listener, 4096) < 0) die("listen");
  return listener;
}

void run(int listener) {
  constexpr int kEvents = 256;
  epoll_event events[kEvents];
  for (;;) {
    const int count = epoll_wait(poller, events, kEvents, -1);
    for (int index = 0; index < count; index++) {
      auto* connection = static_cast<Connection*>(events[index].data.ptr);
      if (connection == nullptr) {
        acceptAll(listener);
        continue;
      }
      if (connection->closed) continue;
      if (!advance(*connection, events[index].events))
        finish(*connection, true);
      else if (connection->up.shut && connection->down.shut)
        finish(*connection, false);
    }
    for (Connection* connection : dead) delete connection;
    dead.clear();
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 4) {
    fprintf(stderr, "usage: yardstick PORT HAG_ADDRESS HAG_PORT\n");
    return 2;
  }
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  hagAddress.sin_family = AF_INET;
  hagAddress.sin_port = htons(static_cast<uint16_t>(atoi(words[3])));
  if (inet_pton(AF_INET, words[2], &hagAddress.sin_addr) != 1) die(words[2]);
  poller = epoll_create1(EPOLL_CLOEXEC);
  const int listener = listenOn(static_cast<uint16_t>(atoi(words[1])));
  watch(listener, nullptr);
  puts("yardstick listens");
  fflush(stdout);
  run(listener);
}
