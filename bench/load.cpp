/*
 * Makes traffic and checks every byte of it, with little CPU time of its own: the machine's cores are for what is measured.
 *
 *   load serve PORT
 *   load down  HOST PORT BYTES                  one download
 *   load down-for HOST PORT FROM UNTIL STOP     a download until STOP; counts the bytes between FROM and UNTIL (all in ms)
 *   load up    HOST PORT BYTES                  one upload, counted and checked by the server
 *   load up-for   HOST PORT FROM UNTIL          an upload until UNTIL; counts the bytes that arrived between
 *   load short HOST PORT COUNT THREADS          connections with one small request and answer each
 *   load hold  HOST PORT COUNT                  opens idle connections, prints `held`, and keeps them until it is ended; then they are reset
 *
 * A client's first line says what it wants. `D seed bytes`: the server sends a stream (0 bytes: until the client ends). `U seed from until`:
 * the server receives a stream and answers `bytes windowBytes windowMs intact`. `H`: the server answers one byte and waits. Clients print a
 * line of JSON, and exit with 1 if a byte was wrong or missing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace {

// A prime number of bytes, so that no shift by a power of two maps the stream onto itself.
constexpr size_t kPeriod = 1048573;
constexpr size_t kChunk = 262144;
constexpr size_t kShortBytes = 100;
constexpr int kPatienceS = 20;
std::vector<unsigned char> pattern;

void makePattern() {
  pattern.resize(kPeriod + kChunk);
  uint64_t state = 1;
  for (size_t at = 0; at < kPeriod; at++) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    pattern[at] = static_cast<unsigned char>(state >> 56);
  }
  memcpy(pattern.data() + kPeriod, pattern.data(), kChunk);
}

/** The stream from byte `at` on. The caller may read at most kChunk bytes. */
const unsigned char* streamAt(uint64_t seed, uint64_t at) { return pattern.data() + (seed * 7919 + at) % kPeriod; }

double nowMs() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) / 1e6;
}

/** What one end has received of a stream, and how much of it between two moments. */
struct Received {
  uint64_t seed = 0;
  uint64_t bytes = 0;
  bool intact = true;
  double startedAt = nowMs();
  double firstAt = 0;
  double fromMs = 0;
  double untilMs = 0;
  uint64_t atFrom = 0;
  uint64_t atUntil = 0;

  void add(const unsigned char* data, size_t count) {
    const double at = nowMs() - startedAt;
    if (bytes == 0) firstAt = at;
    if (memcmp(data, streamAt(seed, bytes), count) != 0) intact = false;
    bytes += count;
    if (at <= fromMs) atFrom = bytes;
    if (at <= untilMs) atUntil = bytes;
  }
  uint64_t windowBytes() const { return atUntil - atFrom; }
};

void die(const char* what) {
  perror(what);
  exit(1);
}

// ---------------------------------------------------------------------------------------------------------------- server

struct Peer {
  int fd;
  char kind = 0;
  std::string line;
  Received received;
  uint64_t sent = 0;
  uint64_t wanted = 0;
};

bool reply(Peer& peer) {
  char text[128];
  const Received& got = peer.received;
  const int length = snprintf(text, sizeof text, "%llu %llu %.0f %d\n", static_cast<unsigned long long>(got.bytes),
                              static_cast<unsigned long long>(got.windowBytes()), got.untilMs - got.fromMs, got.intact);
  (void)!send(peer.fd, text, static_cast<size_t>(length), MSG_NOSIGNAL);
  return false;
}

/** False: the peer can be closed. */
bool readPeer(Peer& peer, unsigned char* buffer) {
  for (;;) {
    const ssize_t got = recv(peer.fd, buffer, kChunk, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN;
    if (got == 0) return peer.kind == 'U' ? reply(peer) : false;
    size_t skipped = 0;
    while (peer.kind == 0 && skipped < static_cast<size_t>(got)) {
      peer.line += static_cast<char>(buffer[skipped++]);
      if (peer.line.back() != '\n') continue;
      unsigned long long seed = 0;
      double first = 0;
      double second = 0;
      if (sscanf(peer.line.c_str(), "%c %llu %lf %lf", &peer.kind, &seed, &first, &second) < 1) return false;
      peer.received.seed = seed;
      peer.received.fromMs = first;
      peer.received.untilMs = second;
      peer.wanted = static_cast<uint64_t>(first);
      if (peer.kind == 'H') (void)!send(peer.fd, "h", 1, MSG_NOSIGNAL);
    }
    if (peer.kind == 'U') peer.received.add(buffer + skipped, static_cast<size_t>(got) - skipped);
  }
}

bool writePeer(Peer& peer) {
  while (peer.kind == 'D') {
    size_t count = kChunk;
    if (peer.wanted > 0) {
      if (peer.sent == peer.wanted) return false;
      if (peer.wanted - peer.sent < count) count = peer.wanted - peer.sent;
    }
    const ssize_t sent = send(peer.fd, streamAt(peer.received.seed, peer.sent), count, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN;
    peer.sent += static_cast<uint64_t>(sent);
  }
  return true;
}

void serve(const char* port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(atoi(port)));
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0 || listen(listener, 4096) < 0) die("listen");
  const int poller = epoll_create1(0);
  epoll_event event{};
  event.events = EPOLLIN;
  epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
  puts("serving");
  fflush(stdout);
  std::vector<unsigned char> buffer(kChunk);
  for (;;) {
    epoll_event events[256];
    const int count = epoll_wait(poller, events, 256, -1);
    for (int index = 0; index < count; index++) {
      auto* peer = static_cast<Peer*>(events[index].data.ptr);
      if (peer == nullptr) {
        const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
        if (fd < 0) continue;
        setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on);
        event.events = EPOLLIN | EPOLLOUT | EPOLLET;
        event.data.ptr = new Peer{fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
      } else if (!readPeer(*peer, buffer.data()) || !writePeer(*peer)) {
        close(peer->fd);
        delete peer;
      }
    }
  }
}

// --------------------------------------------------------------------------------------------------------------- clients

struct Target {
  const char* host;
  const char* port;
};

int dial(const Target& target) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int on = 1;
  setsockopt(fd, SOL_TCP, TCP_NODELAY, &on, sizeof on);
  const timeval patience{kPatienceS, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(atoi(target.port)));
  if (inet_pton(AF_INET, target.host, &address.sin_addr) != 1) die(target.host);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
  close(fd);
  return -1;
}

bool say(int fd, const std::string& text) { return send(fd, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size()); }

std::string request(char kind, uint64_t seed, double first, double second) {
  char text[96];
  snprintf(text, sizeof text, "%c %llu %.0f %.0f\n", kind, static_cast<unsigned long long>(seed), first, second);
  return text;
}

int report(bool isIntact, const Received& got, double ms, uint64_t windowBytes) {
  printf("{\"intact\":%s,\"bytes\":%llu,\"firstMs\":%.3f,\"ms\":%.3f,\"windowBytes\":%llu}\n", isIntact ? "true" : "false",
         static_cast<unsigned long long>(got.bytes), got.firstAt, ms, static_cast<unsigned long long>(windowBytes));
  return isIntact ? 0 : 1;
}

/** Reads to the end. If `stopMs` is not 0, asks the server to end then. */
bool receive(int fd, Received& got, unsigned char* buffer, double stopMs) {
  bool isStopped = stopMs == 0;
  for (;;) {
    const ssize_t count = recv(fd, buffer, kChunk, 0);
    if (count <= 0) return count == 0;
    got.add(buffer, static_cast<size_t>(count));
    if (!isStopped && nowMs() - got.startedAt > stopMs) {
      shutdown(fd, SHUT_WR);
      isStopped = true;
    }
  }
}

int down(const Target& target, double bytes, double fromMs, double untilMs, double stopMs) {
  std::vector<unsigned char> buffer(kChunk);
  Received got;
  got.seed = static_cast<uint64_t>(getpid());
  got.fromMs = fromMs;
  got.untilMs = untilMs;
  const int fd = dial(target);
  bool isIntact = fd >= 0 && say(fd, request('D', got.seed, bytes, 0)) && receive(fd, got, buffer.data(), stopMs);
  const double ms = nowMs() - got.startedAt;
  isIntact = isIntact && got.intact && (bytes > 0 ? got.bytes == static_cast<uint64_t>(bytes) : got.bytes > 0);
  return report(isIntact, got, ms, got.windowBytes());
}

int up(const Target& target, double bytes, double fromMs, double untilMs) {
  Received got;
  got.seed = static_cast<uint64_t>(getpid());
  const int fd = dial(target);
  // Few unsent bytes in the socket, because at the end they would only prolong the run.
  const int unsent = 131072;
  setsockopt(fd, SOL_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
  bool isIntact = fd >= 0 && say(fd, request('U', got.seed, fromMs, untilMs));
  uint64_t sent = 0;
  while (isIntact && (bytes > 0 ? sent < static_cast<uint64_t>(bytes) : nowMs() - got.startedAt < untilMs)) {
    size_t count = kChunk;
    if (bytes > 0 && static_cast<uint64_t>(bytes) - sent < count) count = static_cast<uint64_t>(bytes) - sent;
    const ssize_t done = send(fd, streamAt(got.seed, sent), count, MSG_NOSIGNAL);
    if (done <= 0)
      isIntact = false;
    else
      sent += static_cast<uint64_t>(done);
  }
  shutdown(fd, SHUT_WR);
  char answer[128] = {};
  unsigned long long received = 0;
  unsigned long long windowBytes = 0;
  double windowMs = 0;
  int wasIntact = 0;
  isIntact = isIntact && recv(fd, answer, sizeof answer - 1, 0) > 0 &&
             sscanf(answer, "%llu %llu %lf %d", &received, &windowBytes, &windowMs, &wasIntact) == 4;
  got.bytes = received;
  return report(isIntact && wasIntact == 1 && received == sent, got, nowMs() - got.startedAt, windowBytes);
}

int shortOnes(const Target& target, long count, long threads) {
  std::atomic<long> next{0};
  std::atomic<long> failed{0};
  std::vector<std::thread> all;
  const double started = nowMs();
  for (long index = 0; index < threads; index++) {
    all.emplace_back([&] {
      std::vector<unsigned char> buffer(kChunk);
      for (long number = next++; number < count; number = next++) {
        Received got;
        got.seed = static_cast<uint64_t>(number);
        const int fd = dial(target);
        const bool isIntact = fd >= 0 && say(fd, request('D', got.seed, kShortBytes, 0)) && receive(fd, got, buffer.data(), 0) && got.intact &&
                              got.bytes == kShortBytes;
        if (!isIntact) failed++;
        if (fd >= 0) close(fd);
      }
    });
  }
  for (std::thread& one : all) one.join();
  printf("{\"intact\":%s,\"failed\":%ld,\"ms\":%.3f}\n", failed == 0 ? "true" : "false", failed.load(), nowMs() - started);
  return failed == 0 ? 0 : 1;
}

int hold(const Target& target, long count) {
  for (long index = 0; index < count; index++) {
    const int fd = dial(target);
    char answer = 0;
    if (fd < 0 || !say(fd, "H\n") || recv(fd, &answer, 1, 0) != 1 || answer != 'h') {
      printf("{\"intact\":false,\"held\":%ld,\"errno\":\"%s\"}\n", index, strerror(errno));
      return 1;
    }
    // Close with a RST: so many connections in TIME_WAIT would leave the next ones no source port.
    const linger abort{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  }
  puts("held");
  fflush(stdout);
  pause();
  return 0;
}

}  // namespace

int main(int count, char** words) {
  const std::string verb = count > 2 ? words[1] : "";
  const auto number = [&](int index) { return index < count ? atof(words[index]) : 0; };
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  makePattern();
  if (verb == "serve") serve(words[2]);
  if (count < 5) {
    fprintf(stderr, "usage: see the head of load.cpp\n");
    return 2;
  }
  const Target target{words[2], words[3]};
  if (verb == "down") return down(target, number(4), 0, 0, 0);
  if (verb == "down-for") return down(target, 0, number(4), number(5), number(6));
  if (verb == "up") return up(target, number(4), 0, 0);
  if (verb == "up-for") return up(target, 0, number(4), number(5));
  if (verb == "short") return shortOnes(target, static_cast<long>(number(4)), static_cast<long>(number(5)));
  if (verb == "hold") return hold(target, static_cast<long>(number(4)));
  return 2;
}
