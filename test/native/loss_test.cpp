// The gateway, the HAG or the client is lost in the middle of a connection: a stream that is not whole must not end with a FIN. Clients and
// servers call recv(2) themselves, because libuv takes a RST that comes with the last bytes for the end.
#include "engine_fixture.h"

namespace {
constexpr unsigned kAtOnce = 60;
constexpr size_t kBytes = 200000;

struct Path {
  int client;
  int server;
};

int acceptFrom(int listener) {
  pollfd waiting = {listener, POLLIN, 0};
  CHECK(poll(&waiting, 1, 20000) == 1);
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  CHECK(fd >= 0);
  const timeval patience = {20, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  return fd;
}

// The end that does not send half-closes first. Then the other end sends `kBytes` and a FIN, at about the moment at which one engine is ended.
// The receiver must get either all bytes and the FIN, or a RST.
void lostBetween(bool upload, bool losesHag) {
  const int listener = silentListener();
  const Address server = localAddress(listener);
  auto hag = std::make_unique<Owner>(options(), serve);
  const Address entry = hag->listen(ListenerKind::Socks, true);
  auto gateway = std::make_unique<Owner>(options(), [entry, server](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, through(entry, server, true, true));
    if (const auto* const it = std::get_if<Failed>(&event)) engine.reset(it->id);
  });
  const Address front = gateway->listen(ListenerKind::Redirect);
  std::vector<Path> paths;
  for (unsigned i = 0; i < kAtOnce; ++i) {
    const int client = dialTo(front);
    CHECK(sendAll(client, "x"));
    paths.push_back({client, acceptFrom(listener)});
    char first;
    CHECK(recv(paths.back().server, &first, 1, 0) == 1);
    const int silent = upload ? paths.back().server : client;
    const int hearing = upload ? client : paths.back().server;
    shutdown(silent, SHUT_WR);
    CHECK(receiveAll(hearing).empty());
  }
  std::atomic<unsigned> whole{0}, lost{0};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < kAtOnce; ++i) {
    threads.emplace_back([&, i] {
      const int sending = upload ? paths[i].client : paths[i].server;
      usleep(i * 200);
      if (sendAll(sending, std::string(kBytes, 'd'))) shutdown(sending, SHUT_WR);
    });
    threads.emplace_back([&, i] {
      bool reset;
      const std::string received = receiveAll(upload ? paths[i].server : paths[i].client, &reset);
      CHECK(reset || received.size() == kBytes);
      ++(reset ? lost : whole);
    });
  }
  usleep(kAtOnce * 100);
  (losesHag ? hag : gateway).reset();
  for (auto& one : threads) one.join();
  std::printf("%s, without the %s: %u whole, %u reset\n", upload ? "uploads" : "downloads", losesHag ? "HAG" : "gateway", whole.load(), lost.load());
  for (const Path& one : paths) {
    closeFd(one.client);
    closeFd(one.server);
  }
  closeFd(listener);
}

// A client sends a request and many bytes, and resets at about the moment of the HAG's answer. Often the send(2) of the answer is the call that
// reports the RST. What can still be read from the client must not be passed on with a FIN then.
void goneBeforeTheAnswer() {
  const int listener = silentListener();
  const Address server = localAddress(listener);
  Owner hag({1, 1000, 60000, 60000}, serve);
  const Address entry = hag.listen(ListenerKind::Socks);
  std::string words("\5\1\0\5\1\0\1\x7f\0\0\1", 11);
  const uint16_t port = portOf(server);
  words += {static_cast<char>(port >> 8), static_cast<char>(port & 255)};
  words += std::string(2000000, 'u');
  std::atomic<bool> over{false};
  std::atomic<unsigned> came{0}, ended{0};
  std::thread serving([&] {
    while (!over) {
      pollfd waiting = {listener, POLLIN, 0};
      if (poll(&waiting, 1, 20) <= 0) continue;
      const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      const timeval patience = {20, 0};
      setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
      bool reset = !sendAll(fd, "!");  // if send(2) reports the RST, recv(2) does not report it again
      if (!reset) receiveAll(fd, &reset);
      ++came;
      if (!reset) ++ended;
      closeFd(fd);
    }
  });
  inParallel(4000, [&](unsigned i) {
    const int fd = dialTo(entry);
    send(fd, words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    for (const auto until = Clock::now() + std::chrono::microseconds(i % 100 * 20); Clock::now() < until;) {
    }
    abortFd(fd);
  });
  CHECK(eventually([&] { return hag.counters().connections == 0; }));
  over = true;
  serving.join();
  std::printf("gone before the answer: %u came to the server, %u with a FIN\n", came.load(), ended.load());
  CHECK(came > 0 && ended == 0);
  closeFd(listener);
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  for (const bool upload : {false, true}) {
    for (const bool losesHag : {false, true}) lostBetween(upload, losesHag);
  }
  goneBeforeTheAnswer();
  CHECK(descriptors() == before);
  return passed();
}
