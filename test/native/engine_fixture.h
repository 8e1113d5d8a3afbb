// For tests of the whole engine on loopback: its owner, a server, clients, and the dial specs of a CPE and a HAG.
#pragma once

#include "engine/engine.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "check.h"

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(20);

inline unsigned descriptors() {
  unsigned count = 0;
  DIR* const folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

inline bool eventually(const std::function<bool()>& holds) {
  for (const auto until = Clock::now() + kPatience; Clock::now() < until; usleep(2000)) {
    if (holds()) return true;
  }
  return holds();
}

inline Address loopback(uint16_t port = 0) {
  Address address;
  CHECK(parseAddress("127.0.0.1", port, &address));
  return address;
}

// A listener: connections wait in its queue, and nobody answers them unless the test accepts them.
inline int silentListener() {
  Protocol protocol;
  Failure failure;
  const int fd = listenSocket(loopback(), false, false, &protocol, &failure);
  CHECK(fd >= 0);
  return fd;
}

// An address that refuses connections.
inline Address nobodyThere() {
  const int fd = silentListener();
  const Address address = localAddress(fd);
  closeFd(fd);
  return address;
}

inline int dialTo(const Address& address, const Address* source = nullptr) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  const timeval patience = {20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  CHECK(source == nullptr || bind(fd, &source->sa, sizeof source->in) == 0);
  // If the connection is accepted and reset at once, its RST may come before connect() returns on a slow machine.
  CHECK(connect(fd, &address.sa, sizeof address.in) == 0 || errno == ECONNRESET);
  return fd;
}

inline bool sendAll(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t size = send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (size <= 0) return false;
    at += static_cast<size_t>(size);
  }
  return true;
}

// Returns all bytes until the FIN. *reset: whether the connection ended without one.
inline std::string receiveAll(int fd, bool* reset = nullptr) {
  std::string text;
  char data[16384];
  ssize_t size;
  while ((size = recv(fd, data, sizeof data, 0)) > 0) text.append(data, static_cast<size_t>(size));
  if (reset != nullptr) *reset = size < 0 && errno == ECONNRESET;
  return text;
}

// A client's whole exchange with a Server: the bytes that were sent must come back. Closes the socket.
inline void exchange(int fd, const std::string& text) {
  CHECK(sendAll(fd, text));
  shutdown(fd, SHUT_WR);
  bool reset;
  CHECK(receiveAll(fd, &reset) == text);
  CHECK(!reset);
  closeFd(fd);
}

// A client that may leave at any moment. It may be answered, reset or get nothing, but it must not be left waiting.
inline void comeAndGo(int fd, unsigned i) {
  sendAll(fd, std::string(1000, 'x'));
  if (i % 5 == 0) return abortFd(fd);
  shutdown(fd, SHUT_WR);
  errno = 0;
  receiveAll(fd);
  CHECK(errno != EAGAIN);
  closeFd(fd);
}

// Sends the bytes of each connection back once its FIN has come, so half-close has to work.
class Server {
 public:
  Server() {
    Protocol protocol;
    Failure failure;
    fd_ = listenSocket(loopback(), false, false, &protocol, &failure);
    CHECK(fd_ >= 0);
    address = localAddress(fd_);
    thread_ = std::thread([this] { run(); });
  }
  ~Server() {
    over_ = true;
    thread_.join();
    for (auto& one : threads_) one.join();
    closeFd(fd_);
  }
  Address address;

 private:
  void run() {
    while (!over_) {
      pollfd waiting = {fd_, POLLIN, 0};
      if (poll(&waiting, 1, 20) <= 0) continue;
      const int fd = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      threads_.emplace_back([fd] {
        sendAll(fd, receiveAll(fd));
        closeFd(fd);
      });
    }
  }
  int fd_;
  std::atomic<bool> over_{false};
  std::thread thread_;
  std::vector<std::thread> threads_;
};

// An engine with its owner's thread, which checks the order of every connection's events.
class Owner {
 public:
  using Decide = std::function<void(Engine&, const Event&)>;
  Owner(const EngineOptions& options, Decide decide)
      : decide_(std::move(decide)), engine_(std::make_unique<Engine>(options, [this] {
          const std::lock_guard<std::mutex> lock(mutex_);
          waiting_ = true;
          wake_.notify_one();
        })) {
    thread_ = std::thread([this] { run(); });
  }
  ~Owner() { close(); }

  Address listen(ListenerKind kind, bool authentication = false) {
    Address bound;
    Protocol protocol;
    Failure failure;
    CHECK(engine_->listen({kind, loopback(), authentication}, &bound, &protocol, &failure));
    return bound;
  }
  Engine& engine() { return *engine_; }
  const Counters& counters() const { return engine_->counters(); }

  unsigned closed(Reason reason) { return reasons_[static_cast<size_t>(reason)]; }
  std::atomic<unsigned> seen{0}, opened{0}, failed{0}, ended{0}, limits{0}, inspected{0}, counts{0}, counted{0}, batches{0};

  void close() {
    if (!thread_.joinable()) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      over_ = waiting_ = true;
      wake_.notify_one();
    }
    thread_.join();
    engine_->close();
    CHECK(counters().connections == 0 && counters().relaying == 0 && counters().pipesInUse == 0 && counters().pipesPooled == 0);
    CHECK(counters().bytesParked == 0 && counters().descriptors == 0);
  }

 private:
  void run() {
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [this] { return waiting_; });
        waiting_ = false;
        if (over_) return;
      }
      ++batches;
      for (const Event& event : engine_->takeEvents()) note(event);
    }
  }

  void note(const Event& event) {
    if (const auto* const limit = std::get_if<Limit>(&event)) {
      if (limit->cause == LimitCause::Pipes) return;
      CHECK(limit->limited == (limits % 2 == 0));  // one event for each change
      ++limits;
    }
    if (std::holds_alternative<Inspected>(event)) ++inspected;
    if (const auto* const count = std::get_if<Counted>(&event)) {
      ++counts;
      counted += static_cast<unsigned>(count->count);
    }
    if (const auto* const accepted = std::get_if<Accepted>(&event)) see(&seen, accepted->id);
    if (const auto* const credentials = std::get_if<Credentials>(&event)) CHECK(gone_.count(credentials->id) == 0);
    if (const auto* const request = std::get_if<Request>(&event)) see(&seen, request->id);
    if (const auto* const one = std::get_if<Opened>(&event)) see(&opened, one->id);
    if (const auto* const one = std::get_if<Failed>(&event)) see(&failed, one->id);
    if (const auto* const one = std::get_if<Closed>(&event)) {
      CHECK(gone_.insert(one->id).second);
      ++reasons_[static_cast<size_t>(one->reason)];
      ++ended;
    }
    decide_(*engine_, event);
  }

  // No event of a connection follows its `Closed`.
  void see(std::atomic<unsigned>* counter, ConnectionId id) {
    CHECK(gone_.count(id) == 0);
    ++*counter;
  }

  Decide decide_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool waiting_ = false;
  bool over_ = false;
  std::atomic<unsigned> reasons_[7] = {};
  std::set<ConnectionId> gone_;
  std::unique_ptr<Engine> engine_;
  std::thread thread_;
};

inline EngineOptions options() { return {3, 1000, 60000, 60000}; }

inline DialSpec direct(const Address& address) {
  DialSpec spec;
  spec.remote = address;
  spec.connectTimeoutMs = 5000;
  return spec;
}

inline DialSpec through(const Address& hag, const Address& destination, bool pipelined, bool withPassword, const std::string& password = "secret") {
  DialSpec spec = direct(hag);
  spec.mptcp = spec.socks = spec.connectRequest = true;
  spec.pipelined = pipelined;
  spec.host = "127.0.0.1";
  spec.port = portOf(destination);
  spec.withPassword = withPassword;
  spec.username = "home";
  spec.password = password;
  spec.handshakeTimeoutMs = 5000;
  return spec;
}

// A HAG's owner: checks the password, and dials the requested destination.
inline void serve(Engine& engine, const Event& event) {
  if (const auto* const it = std::get_if<Credentials>(&event)) engine.authenticate(it->id, it->username == "home" && it->password == "secret");
  if (const auto* const it = std::get_if<Request>(&event)) {
    Address to;
    if (!parseAddress(it->host, it->port, &to)) return engine.refuse(it->id, 4);
    engine.dial(it->id, direct(to));
  }
  if (const auto* const it = std::get_if<Failed>(&event)) engine.refuse(it->id, 5);
}

inline std::string pattern(unsigned seed, size_t size) {
  std::string text(size, '\0');
  std::mt19937 random(seed);
  for (char& one : text) one = static_cast<char>(random());
  return text;
}

// Runs `body(i)` for i < count on a few threads.
template <typename Body>
void inParallel(unsigned count, Body body) {
  std::atomic<unsigned> next{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (unsigned one; (one = next++) < count;) body(one);
    });
  }
  for (auto& thread : threads) thread.join();
}
