// One of those that a connection goes through is gone in the middle of it: what is not whole must not end with a FIN. The clients and the
// servers read by recv(2) itself: libuv takes a RST that comes with the last bytes for the end.
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

// The end that does not send takes leave first; then the other one sends `kBytes` and its FIN, at moments around the one at which `lose` ends
// an engine. Whole with a FIN, or reset: nothing else may come.
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

// A client that asks, sends much and is gone around the moment of the HAG's answer: often the answer is what hears of its RST first, and
// what could be read behind it was passed on with a FIN.
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
      bool reset = !sendAll(fd, "!");  // what it says of a RST recv(2) does not say again
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
