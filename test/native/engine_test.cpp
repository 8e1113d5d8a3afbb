// The engine whole, on loopback: a `redirect` engine in front of a `socks` engine, as CPE and HAG, under clients of every kind.
#include "engine.h"

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
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>

#include "check.h"

namespace {
using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(20);

unsigned descriptors() {
  unsigned count = 0;
  DIR* const folder = opendir("/proc/self/fd");
  while (readdir(folder) != nullptr) ++count;
  closedir(folder);
  return count;
}

bool eventually(const std::function<bool()>& holds) {
  for (const auto until = Clock::now() + kPatience; Clock::now() < until; usleep(2000)) {
    if (holds()) return true;
  }
  return holds();
}

Address loopback(uint16_t port = 0) {
  Address address;
  CHECK(parseAddress("127.0.0.1", port, &address));
  return address;
}

int dialTo(const Address& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0);
  const timeval patience = {20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  CHECK(connect(fd, &address.sa, sizeof address.in) == 0);
  return fd;
}

bool sendAll(int fd, const std::string& text) {
  for (size_t at = 0; at < text.size();) {
    const ssize_t size = send(fd, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (size <= 0) return false;
    at += static_cast<size_t>(size);
  }
  return true;
}

// All until the FIN; *reset where it ended otherwise.
std::string receiveAll(int fd, bool* reset = nullptr) {
  std::string text;
  char data[16384];
  ssize_t size;
  while ((size = recv(fd, data, sizeof data, 0)) > 0) text.append(data, static_cast<size_t>(size));
  if (reset != nullptr) *reset = size < 0 && errno == ECONNRESET;
  return text;
}

// Answers each connection with what it received, turned around by its FIN: so half-close has to work.
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
  std::atomic<unsigned> seen{0}, opened{0}, failed{0}, ended{0}, limits{0}, inspected{0}, counts{0}, counted{0};

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
      for (const Event& event : engine_->takeEvents()) note(event);
    }
  }

  void note(const Event& event) {
    using Type = Event::Type;
    if (event.type == Type::Limit) {
      CHECK(event.limited == (limits % 2 == 0));  // once a change
      ++limits;
    } else if (event.type == Type::Inspected) {
      ++inspected;
    } else if (event.type == Type::Counted) {
      ++counts;
      counted += static_cast<unsigned>(event.count);
    } else if (event.type != Type::Probed) {
      CHECK(gone_.count(event.id) == 0);  // nothing follows `closed`
      if (event.type == Type::Accepted || event.type == Type::Request) ++seen;
      if (event.type == Type::Opened) ++opened;
      if (event.type == Type::Failed) ++failed;
      if (event.type == Type::Closed) {
        gone_.insert(event.id);
        ++reasons_[static_cast<size_t>(event.reason)];
        ++ended;
      }
    }
    decide_(*engine_, event);
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

EngineOptions options() { return {3, 1000, 60000, 60000}; }

Way direct(const Address& address) {
  Way way;
  way.remote = address;
  way.connectTimeoutMs = 5000;
  return way;
}

Way through(const Address& hag, const Address& destination, bool pipelined, bool withPassword, const std::string& password = "secret") {
  Way way = direct(hag);
  way.mptcp = way.socks = way.connectRequest = true;
  way.pipelined = pipelined;
  way.host = "127.0.0.1";
  way.port = portOf(destination);
  way.withPassword = withPassword;
  way.username = "home";
  way.password = password;
  way.handshakeTimeoutMs = 5000;
  return way;
}

// A HAG's owner: checks the password, opens what is asked for.
void serve(Engine& engine, const Event& event) {
  if (event.type == Event::Type::Credentials) engine.authenticate(event.id, event.username == "home" && event.password == "secret");
  if (event.type == Event::Type::Request) {
    Address to;
    if (!parseAddress(event.host, event.port, &to)) return engine.refuse(event.id, 4);
    engine.open(event.id, direct(to));
  }
  if (event.type == Event::Type::Failed) engine.refuse(event.id, 5);
}

std::string pattern(unsigned seed, size_t size) {
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

// Every other first attempt fails at a HAG that wants another password, after the early data left: the second must bring them all.
void transfers(bool pipelined, bool withPassword) {
  Server server;
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks, withPassword);
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    if (event.type == Event::Type::Accepted) {
      const bool wrong = withPassword && event.id / Worker::kMaxWorkers % 2 == 0;
      engine.open(event.id, through(entry, server.address, pipelined, withPassword, wrong ? "wrong" : "secret"));
    }
    if (event.type == Event::Type::Failed) {
      CHECK(event.stage == Stage::Authentication && event.failure.error == EACCES);
      engine.open(event.id, through(entry, server.address, pipelined, withPassword));
    }
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  constexpr unsigned kCount = 100;
  inParallel(kCount, [&](unsigned i) {
    const std::string text = pattern(i, i * 700);
    const int fd = dialTo(front);
    CHECK(sendAll(fd, text));
    shutdown(fd, SHUT_WR);
    bool reset;
    CHECK(receiveAll(fd, &reset) == text);
    CHECK(!reset);
    closeFd(fd);
  });
  CHECK(eventually([&] { return cpe.closed(Reason::End) == kCount && hag.counters().connections == 0; }));
  CHECK(cpe.opened == kCount && cpe.ended == kCount && hag.closed(Reason::End) == kCount);
  if (withPassword) CHECK(cpe.failed > 0);
  cpe.close();
  hag.close();
}

// Clients abort, owners reset, and the CPE closes while all of it goes on.
void turmoil() {
  Server server;
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks);
  std::atomic<unsigned> turn{0};
  std::mutex mutex;
  std::vector<ConnectionId> ids;
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    if (event.type == Event::Type::Accepted) {
      Way way = through(entry, server.address, event.id % 2 == 0, false);
      way.bound = true;
      way.source = loopback();
      engine.open(event.id, way);
      const std::lock_guard<std::mutex> lock(mutex);
      ids.push_back(event.id);
      if (++turn % 3 == 0) engine.reset(ids[ids.size() / 2]);
      if (turn % 16 == 0) engine.inspect(turn, {});
      if (turn % 20 == 0) engine.abandon(loopback());
      if (turn % 50 == 0) {
        engine.resetUpstreams(turn, entry);
        engine.resetStranded(turn);
      }
    }
    if (event.type == Event::Type::Opened && event.id % 5 == 0) engine.reset(event.id);
    if (event.type == Event::Type::Failed) engine.reset(event.id);
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  const auto client = [&](unsigned i) {
    const int fd = dialTo(front);
    std::mt19937 random(i);
    sendAll(fd, pattern(i, random() % 50000));
    usleep(static_cast<useconds_t>(random() % 8000));
    if (random() % 2 == 0) return abortFd(fd);
    shutdown(fd, SHUT_WR);
    errno = 0;
    receiveAll(fd);
    // The receive's own time limit: nobody told this client that it is over.
    CHECK(errno != EAGAIN);
    closeFd(fd);
  };
  inParallel(200, client);
  CHECK(eventually([&] { return cpe.counters().connections == 0 && hag.counters().connections == 0; }));
  CHECK(eventually([&] { return cpe.ended == 200; }));
  CHECK(eventually([&] { return cpe.inspected == turn / 16 && cpe.counts == 2 * (turn / 50); }));

  std::vector<int> left;
  for (unsigned i = 0; i < 40; ++i) {
    left.push_back(dialTo(front));
    sendAll(left.back(), pattern(i, 3000));
  }
  cpe.close();
  for (const int fd : left) closeFd(fd);
  CHECK(eventually([&] { return hag.counters().connections == 0; }));
  hag.close();
}

// Three attempts at once: two at the HAG, one at a server that accepts and never answers. One CONNECT arrives a client, with its early data.
void races() {
  Server server;
  Protocol protocol;
  Failure failure;
  const int silent = listenSocket(loopback(), false, false, &protocol, &failure);
  CHECK(silent >= 0);
  for (const bool pipelined : {false, true}) {
    Owner hag(options(), serve);
    const Address entry = hag.listen(ListenerKind::Socks);
    Owner cpe(options(), [&](Engine& engine, const Event& event) {
      if (event.type == Event::Type::Accepted) {
        engine.open(event.id, through(localAddress(silent), server.address, false, false), 0);
        engine.open(event.id, through(entry, server.address, pipelined, false), 1);
        engine.open(event.id, through(entry, server.address, pipelined, false), 2);
        engine.open(event.id, through(entry, server.address, pipelined, false), 2);  // ignored: the number is taken
      }
      if (event.type == Event::Type::Opened) {
        CHECK(event.attempt == 1 || event.attempt == 2);
        engine.open(event.id, direct(server.address), 3);  // ignored: decided
      }
    });
    const Address front = cpe.listen(ListenerKind::Redirect);
    constexpr unsigned kCount = 100;
    inParallel(kCount, [&](unsigned i) {
      const std::string text = pattern(i, i * 300);
      const int fd = dialTo(front);
      CHECK(sendAll(fd, text));
      shutdown(fd, SHUT_WR);
      bool reset;
      CHECK(receiveAll(fd, &reset) == text);
      CHECK(!reset);
      closeFd(fd);
    });
    CHECK(eventually([&] { return cpe.closed(Reason::End) == kCount && hag.counters().connections == 0; }));
    CHECK(cpe.opened == kCount && cpe.failed == 0 && hag.seen == kCount && hag.opened == kCount);
    CHECK(cpe.counters().descriptors == 3 + 2 * cpe.counters().pipesPooled);  // its listeners
    cpe.close();
    hag.close();
  }
  closeFd(silent);
}

// Attempts that fail, win and are joined late, owners' resets, and clients that leave, all at once.
void racesInTurmoil() {
  Server server;
  Protocol protocol;
  Failure failure;
  const int silent = listenSocket(loopback(), false, false, &protocol, &failure);
  const int dead = listenSocket(loopback(), false, false, &protocol, &failure);
  const Address nobody = localAddress(dead);
  closeFd(dead);
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks, true);
  std::map<ConnectionId, std::set<uint32_t>> underWay;  // as the owner knows it; aborted ones are still in it
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    const auto start = [&](uint32_t number) {
      const bool wrong = number == 3;
      Way way = number == 0 ? through(localAddress(silent), server.address, event.id % 2 == 0, true)
                : number == 1 ? through(nobody, server.address, true, true)
                              : through(entry, server.address, event.id % 3 == 0, true, wrong ? "wrong" : "secret");
      if (number == 0) way.connectTimeoutMs = way.handshakeTimeoutMs = 20;
      engine.open(event.id, way, number);
      underWay[event.id].insert(number);
    };
    if (event.type == Event::Type::Accepted) {
      for (uint32_t number = 0; number < 4; ++number) start(number);
      if (event.id % 7 == 0) engine.reset(event.id);
    }
    if (event.type == Event::Type::Failed) {
      CHECK(underWay[event.id].count(event.attempt) == 1 && event.left < 5);
      underWay[event.id].erase(event.attempt);
      if (event.left == 0) {
        underWay[event.id].clear();
        start(2);  // the good one, which may have been aborted when another went on alone
      } else if (event.attempt == 1) {
        start(4);
      }
    }
    if (event.type == Event::Type::Opened) CHECK(event.attempt == 2 || event.attempt == 4);
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  std::atomic<unsigned> whole{0};
  inParallel(300, [&](unsigned i) {
    const int fd = dialTo(front);
    std::mt19937 random(i);
    const std::string text = pattern(i, random() % 30000);
    const bool sent = sendAll(fd, text);
    if (random() % 3 == 0) {
      usleep(static_cast<useconds_t>(random() % 6000));
      return abortFd(fd);
    }
    const bool ended = shutdown(fd, SHUT_WR) == 0;
    bool reset;
    const std::string heard = receiveAll(fd, &reset);
    // The owner's reset is told once, to whatever call comes first.
    if (!sent || !ended) reset = true;
    CHECK(reset || heard == text);  // whole, once, in order
    whole += reset ? 0 : 1;
    closeFd(fd);
  });
  CHECK(eventually([&] { return cpe.ended == 300 && hag.counters().connections == 0; }));
  CHECK(whole > 0 && cpe.failed > 0);
  CHECK(cpe.counters().descriptors == 3 + 2 * cpe.counters().pipesPooled);
  cpe.close();
  hag.close();
  closeFd(silent);
}

// All that goes to a HAG ends, relayed or under way, and nothing else.
void aHagThatDied() {
  Server server;
  Protocol protocol;
  Failure failure;
  const int silent = listenSocket(loopback(), false, false, &protocol, &failure);
  const Address quiet = localAddress(silent);
  Owner hag(options(), serve);
  const Address dead = hag.listen(ListenerKind::Socks);
  const Address alive = hag.listen(ListenerKind::Socks);
  std::atomic<unsigned> lost{0};
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    if (event.type == Event::Type::Accepted) {
      const unsigned kind = static_cast<unsigned>(event.id / Worker::kMaxWorkers % 3);
      engine.open(event.id, through(kind == 0 ? dead : kind == 1 ? alive : quiet, server.address, false, false), kind);
    }
    if (event.type == Event::Type::Failed) {
      CHECK(event.attempt == 2 && event.left == 0 && event.failure.error == ECONNRESET);
      ++lost;
      engine.reset(event.id);
    }
    if (event.type == Event::Type::Closed && event.reason == Reason::UpstreamReset) CHECK(event.failure.error == ECONNRESET);
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  std::vector<int> clients;
  for (unsigned i = 0; i < 60; ++i) clients.push_back(dialTo(front));
  CHECK(eventually([&] { return cpe.seen == 60; }));
  usleep(300000);
  const unsigned relayed = cpe.opened;
  CHECK(relayed > 0);
  cpe.engine().resetUpstreams(1, dead);
  cpe.engine().resetUpstreams(2, quiet);
  CHECK(eventually([&] { return cpe.counts == 2 && cpe.ended == cpe.counted + lost; }));
  CHECK(cpe.closed(Reason::UpstreamReset) == cpe.counted && cpe.counted > 0 && cpe.counted < relayed);
  CHECK(lost == 60 - relayed && lost > 0);
  for (const int fd : clients) {
    shutdown(fd, SHUT_WR);
    receiveAll(fd);
    closeFd(fd);
  }
  CHECK(eventually([&] { return cpe.ended == 60; }));
  CHECK(cpe.closed(Reason::End) == relayed - cpe.counted);
  cpe.close();
  hag.close();
  closeFd(silent);
}

// Sockets for the owner: each arrives once; those that are not fetched in time are closed with the engine (main counts descriptors).
void handedOver() {
  Server server;
  Protocol protocol;
  Failure failure;
  const int dead = listenSocket(loopback(), false, false, &protocol, &failure);
  const Address nobody = localAddress(dead);
  closeFd(dead);
  std::atomic<unsigned> usable{0};
  std::atomic<unsigned> refused{0};
  Owner owner(options(), [&](Engine&, const Event& event) {
    if (event.type != Event::Type::Probed) return;
    if (event.fd < 0) {
      CHECK(event.failure.error == ECONNREFUSED && event.stage == Stage::Connect);
      ++refused;
      return;
    }
    CHECK(send(event.fd, "x", 1, MSG_NOSIGNAL) == 1);
    shutdown(event.fd, SHUT_WR);
    pollfd answered = {event.fd, POLLIN, 0};
    char answer = 0;
    CHECK(poll(&answered, 1, 5000) == 1 && recv(event.fd, &answer, 1, 0) == 1 && answer == 'x');
    closeFd(event.fd);
    ++usable;
  });
  for (unsigned i = 1; i <= 60; ++i) owner.engine().probe(i, direct(i % 3 == 0 ? nobody : server.address), true);
  CHECK(eventually([&] { return usable == 40 && refused == 20; }));
  CHECK(owner.counters().descriptors == 0);
  for (unsigned i = 1; i <= 60; ++i) owner.engine().probe(i, direct(server.address), true);
  owner.close();
}

void clientsThatDoNotBelong() {
  EngineOptions few = options();
  few.handshakeTimeoutMs = 150;
  Owner hag(few, serve);
  const Address open = hag.listen(ListenerKind::Socks);
  const Address guarded = hag.listen(ListenerKind::Socks, true);
  const auto ask = [](const Address& where, const std::string& text) {
    const int fd = dialTo(where);
    sendAll(fd, text);
    const std::string answer = receiveAll(fd);
    closeFd(fd);
    return answer;
  };
  CHECK(ask(open, "GET / HTTP/1.1\r\n\r\n").empty());
  CHECK(ask(open, std::string("\5\1", 2)).empty());  // and no more: the handshake times out
  CHECK(ask(guarded, std::string("\5\1\0", 3)) == "\5\xff");
  CHECK(ask(guarded, std::string("\5\1\2\1\4home\5wrong", 15)) == std::string("\5\2\1\1", 4));
  CHECK(ask(open, std::string("\5\1\0\5\1\0\3\1x\0\1", 11)).substr(0, 4) == std::string("\5\0\5\4", 4));
  CHECK(ask(open, std::string("\5\1\0\5\2\0\1\1\2\3\4\0\1", 13)).substr(0, 4) == std::string("\5\0\5\7", 4));
  CHECK(eventually([&] { return hag.ended == 6; }));
  CHECK(hag.closed(Reason::Handshake) == 2 && hag.closed(Reason::Refused) == 4);
  CHECK(hag.counters().descriptors == 6);  // its listeners
  hag.close();
}

// A server that answers and closes with the request unread: the answer is heard, and behind it comes the reset, not an end.
void lastWords() {
  Protocol protocol;
  Failure failure;
  const int server = listenSocket(loopback(), false, false, &protocol, &failure);
  CHECK(server >= 0);
  Owner owner(options(), [&](Engine& engine, const Event& event) {
    if (event.type == Event::Type::Accepted) engine.open(event.id, direct(localAddress(server)));
  });
  const Address front = owner.listen(ListenerKind::Redirect);
  for (unsigned i = 0; i < 100; ++i) {
    const int client = dialTo(front);
    CHECK(sendAll(client, "a request that is too large"));
    pollfd waiting = {server, POLLIN, 0};
    CHECK(poll(&waiting, 1, 5000) == 1);
    const int answering = accept4(server, nullptr, nullptr, SOCK_CLOEXEC);
    waiting = {answering, POLLIN, 0};
    CHECK(poll(&waiting, 1, 5000) == 1);
    CHECK(sendAll(answering, pattern(i, 2000)));
    abortFd(answering);
    bool reset = false;
    CHECK(receiveAll(client, &reset) == pattern(i, 2000));
    CHECK(reset);
    closeFd(client);
  }
  CHECK(eventually([&] { return owner.closed(Reason::UpstreamReset) == 100; }));
  closeFd(server);
  owner.close();
}

void idle() {
  Server server;
  EngineOptions few = options();
  few.idleTimeoutMs = 200;
  Owner owner(few, [&](Engine& engine, const Event& event) {
    if (event.type == Event::Type::Accepted) engine.open(event.id, direct(server.address));
  });
  const int fd = dialTo(owner.listen(ListenerKind::Redirect));
  CHECK(sendAll(fd, "x"));
  bool reset = false;
  receiveAll(fd, &reset);
  CHECK(reset);
  CHECK(eventually([&] { return owner.closed(Reason::Idle) == 1; }));
  closeFd(fd);
  owner.close();
}

// No pipe to be had while a connection idles out: it must not be pumped after its end.
void starvedAndIdle() {
  Server server;
  EngineOptions few = options();
  few.workers = 1;
  few.idleTimeoutMs = 100;
  // What the engine keeps for its owner (64, and 2 a worker), and 4: a listener, two ends, and too little for a pipe.
  rlimit files;
  CHECK(getrlimit(RLIMIT_NOFILE, &files) == 0);
  const rlimit low = {descriptors() + 64 + 2 + 4, files.rlim_max};
  CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
  Owner owner(few, [&](Engine& engine, const Event& event) {
    if (event.type == Event::Type::Accepted) engine.open(event.id, direct(server.address));
  });
  CHECK(setrlimit(RLIMIT_NOFILE, &files) == 0);
  const Address front = owner.listen(ListenerKind::Redirect);
  const int fd = dialTo(front);
  CHECK(eventually([&] { return owner.opened == 1; }));
  CHECK(sendAll(fd, "x"));
  receiveAll(fd);
  closeFd(fd);
  CHECK(eventually([&] { return owner.closed(Reason::Idle) == 1; }));
  usleep(50000);
  CHECK(owner.counters().pipesPooled == 0);
  owner.close();
}

void limits() {
  Server server;
  EngineOptions few = options();
  few.maxConnections = 4;
  Owner owner(few, [&](Engine& engine, const Event& event) {
    if (event.type == Event::Type::Accepted) engine.open(event.id, direct(server.address));
  });
  const Address front = owner.listen(ListenerKind::Redirect);
  std::vector<int> clients;
  for (unsigned i = 0; i < 20; ++i) clients.push_back(dialTo(front));
  CHECK(eventually([&] { return owner.limits == 1; }));
  usleep(300000);
  // Every worker may be one ahead of the count.
  CHECK(owner.limits == 1 && owner.counters().connections <= 4 + 2);
  // All of them first: those that wait are let in only when others end.
  for (const int fd : clients) shutdown(fd, SHUT_WR);
  for (const int fd : clients) {
    receiveAll(fd);
    closeFd(fd);
  }
  CHECK(eventually([&] { return owner.ended == 20 && owner.limits % 2 == 0; }));
  // A listener that stops while it is paused.
  clients.clear();
  for (unsigned i = 0; i < 20; ++i) clients.push_back(dialTo(front));
  CHECK(eventually([&] { return owner.limits % 2 == 1; }));
  owner.engine().stopListening();
  CHECK(eventually([&] { return owner.limits % 2 == 0; }));
  for (const int fd : clients) closeFd(fd);
  CHECK(eventually([&] { return owner.counters().connections == 0; }));
  owner.close();
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  for (const bool pipelined : {false, true}) {
    for (const bool withPassword : {false, true}) transfers(pipelined, withPassword);
  }
  turmoil();
  races();
  racesInTurmoil();
  aHagThatDied();
  handedOver();
  clientsThatDoNotBelong();
  lastWords();
  idle();
  starvedAndIdle();
  limits();
  CHECK(descriptors() == before);
  return passed();
}
