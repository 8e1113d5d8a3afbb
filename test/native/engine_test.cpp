// A `redirect` engine in front of a `socks` engine, as CPE and HAG, with clients of every kind.
#include "engine_fixture.h"

#include <signal.h>
#include <sys/wait.h>

namespace {
// Every other first attempt has a wrong password and fails after the early data left: the second attempt must send all of them again.
void transfers(bool pipelined, bool withPassword) {
  Server server;
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks, withPassword);
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) {
      const bool wrong = withPassword && it->id / Acceptor::kMaxWorkers % 2 == 0;
      engine.dial(it->id, through(entry, server.address, pipelined, withPassword, wrong ? "wrong" : "secret"));
    }
    if (const auto* const it = std::get_if<Failed>(&event)) {
      CHECK(it->stage == Stage::Authentication && it->failure.error == EACCES);
      engine.dial(it->id, through(entry, server.address, pipelined, withPassword));
    }
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  constexpr unsigned kCount = 100;
  inParallel(kCount, [&](unsigned i) { exchange(dialTo(front), pattern(i, i * 700)); });
  // The owner gets the event of an end after the counters have changed.
  CHECK(eventually([&] { return cpe.closed(Reason::End) == kCount && hag.closed(Reason::End) == kCount; }));
  CHECK(cpe.opened == kCount && cpe.ended == kCount && hag.counters().connections == 0);
  if (withPassword) CHECK(cpe.failed > 0);
  cpe.close();
  hag.close();
}

// Clients abort, owners reset, and the CPE closes meanwhile.
void turmoil() {
  Server server;
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks);
  std::atomic<unsigned> turn{0};
  std::mutex mutex;
  std::vector<ConnectionId> ids;
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) {
      DialSpec spec = through(entry, server.address, it->id % 2 == 0, false);
      spec.bound = true;
      spec.source = loopback();
      engine.dial(it->id, spec);
      const std::lock_guard<std::mutex> lock(mutex);
      ids.push_back(it->id);
      if (++turn % 3 == 0) engine.reset(ids[ids.size() / 2]);
      if (turn % 16 == 0) engine.inspect(turn, {});
      if (turn % 20 == 0) engine.abandon(loopback());
      if (turn % 50 == 0) {
        engine.resetConnectionsTo(turn, entry);
        engine.resetStranded(turn);
        engine.watchConnectionsTo(entry, turn % 100 == 0);
      }
    }
    if (const auto* const it = std::get_if<Opened>(&event); it != nullptr && it->id % 5 == 0) engine.reset(it->id);
    if (const auto* const it = std::get_if<Failed>(&event)) engine.reset(it->id);
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
    // EAGAIN is the timeout of recv(): then nobody has told this client that its connection is over.
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

void clientsThatDoNotBelong() {
  Owner hag(options(), serve);
  const Address open = hag.listen(ListenerKind::Socks);
  const Address guarded = hag.listen(ListenerKind::Socks, true);
  const auto ask = [](const Address& where, const std::string& text) {
    const int fd = dialTo(where);
    sendAll(fd, text);
    std::string answer = receiveAll(fd);
    closeFd(fd);
    return answer;
  };
  CHECK(ask(open, "GET / HTTP/1.1\r\n\r\n").empty());
  CHECK(ask(guarded, std::string("\5\1\0", 3)) == "\5\xff");
  CHECK(ask(guarded, std::string("\5\1\2\1\4home\5wrong", 15)) == std::string("\5\2\1\1", 4));
  CHECK(ask(open, std::string("\5\1\0\5\1\0\3\1x\0\1", 11)).substr(0, 4) == std::string("\5\0\5\4", 4));
  CHECK(ask(open, std::string("\5\1\0\5\2\0\1\1\2\3\4\0\1", 13)).substr(0, 4) == std::string("\5\0\5\7", 4));
  CHECK(eventually([&] { return hag.ended == 5; }));
  CHECK(hag.closed(Reason::Handshake) == 1 && hag.closed(Reason::Refused) == 4);
  CHECK(hag.counters().descriptors == 6);  // its listeners
  hag.close();

  EngineOptions impatient = options();
  impatient.handshakeTimeoutMs = 150;
  Owner other(impatient, serve);
  CHECK(ask(other.listen(ListenerKind::Socks), std::string("\5\1", 2)).empty());  // nothing follows, so the handshake times out
  CHECK(eventually([&] { return other.closed(Reason::Handshake) == 1; }));
  other.close();
}

// An owner that never answers: whatever a connection waits for, its client is reset.
void lostAnswers() {
  EngineOptions few = options();
  few.decisionTimeoutMs = 150;
  const Address nobody = nobodyThere();
  std::atomic<bool> opens{false};
  Owner owner(few, [&](Engine& engine, const Event& event) {
    if (!opens) return;
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, direct(nobody));
    if (const auto* const it = std::get_if<Request>(&event)) engine.dial(it->id, direct(nobody));
  });
  const Address front = owner.listen(ListenerKind::Redirect);
  const Address open = owner.listen(ListenerKind::Socks);
  const Address guarded = owner.listen(ListenerKind::Socks, true);
  const std::string request("\5\1\0\5\1\0\1\x7f\0\0\1\0\7", 13);
  const std::string credentials("\5\1\2\1\1u\1p", 8);
  unsigned ended = 0;
  const auto isReset = [&](const Address& where, const std::string& words) {
    const int fd = dialTo(where);
    bool reset = false;
    if (sendAll(fd, words))
      receiveAll(fd, &reset);
    else
      reset = errno == ECONNRESET;
    closeFd(fd);
    ++ended;
    return reset && eventually([&] { return owner.closed(Reason::Reset) == ended; });
  };
  CHECK(isReset(front, "x"));            // accepted
  CHECK(isReset(open, request));         // request
  CHECK(isReset(guarded, credentials));  // credentials
  opens = true;
  CHECK(isReset(front, "x"));     // failed
  CHECK(isReset(open, request));  // failed
  CHECK(owner.failed == 2);
  owner.close();
}

// A server answers and resets with the request unread: the client gets the answer, and then the RST, not a FIN.
void lastWords() {
  Protocol protocol;
  Failure failure;
  const int server = listenSocket(loopback(), false, false, &protocol, &failure);
  CHECK(server >= 0);
  Owner owner(options(), [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, direct(localAddress(server)));
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

// The owner starts programs. Until such a child calls exec it has a copy of every descriptor, so sockets that are closed here stay open there. A
// relayed connection and an attempt end while a child has copies; what their other ends send then must reach no freed connection.
void endedDuringFork() {
  Protocol protocol;
  Failure failure;
  const int server = listenSocket(loopback(), false, false, &protocol, &failure);
  std::atomic<ConnectionId> id{0};
  std::atomic<bool> socks{false};
  EngineOptions one = options();
  one.workers = 1;
  Owner owner(one, [&](Engine& engine, const Event& event) {
    const auto* const it = std::get_if<Accepted>(&event);
    if (it == nullptr) return;
    engine.dial(it->id, socks ? through(localAddress(server), loopback(9), false, false) : direct(localAddress(server)));
    id = it->id;
  });
  const Address front = owner.listen(ListenerKind::Redirect);
  for (unsigned i = 0; i < 2; ++i) {
    socks = i == 1;
    const int client = dialTo(front);
    pollfd waiting = {server, POLLIN, 0};
    CHECK(poll(&waiting, 1, 5000) == 1);
    const int other = accept4(server, nullptr, nullptr, SOCK_CLOEXEC);
    CHECK(eventually([&] { return socks ? id != 0 : owner.opened == 1; }));
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      for (;;) pause();
    }
    owner.engine().reset(id);
    CHECK(eventually([&] { return owner.ended == i + 1; }));
    CHECK(sendAll(client, "anybody there?"));
    CHECK(sendAll(other, "\5"));
    usleep(50000);
    kill(child, SIGKILL);
    CHECK(waitpid(child, nullptr, 0) == child);
    bool reset = false;
    receiveAll(client, &reset);
    CHECK(reset);
    closeFd(client);
    closeFd(other);
    id = 0;
  }
  closeFd(server);
  owner.close();
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  for (const bool pipelined : {false, true}) {
    for (const bool withPassword : {false, true}) transfers(pipelined, withPassword);
  }
  turmoil();
  clientsThatDoNotBelong();
  lostAnswers();
  lastWords();
  endedDuringFork();
  CHECK(descriptors() == before);
  return passed();
}
