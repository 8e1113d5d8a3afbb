// TCP's urgent data, as FTP's ABOR and telnet's interrupt send it: every byte arrives in its place, whatever follows it.
#include "engine_fixture.h"

#include <netinet/tcp.h>

#include <algorithm>

namespace {
struct Said {
  std::string text;
  bool urgent = false;  // whether the last byte is urgent
};
using Speech = std::vector<Said>;

enum class Ending { None, Fin, Reset };

std::string all(const Speech& speech) {
  std::string text;
  for (const Said& one : speech) text += one.text;
  return text;
}

void say(int fd, const Speech& speech, unsigned pauseUs, Ending ending) {
  const int atOnce = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &atOnce, sizeof atOnce);
  for (const Said& one : speech) {
    if (!one.urgent) {
      CHECK(sendAll(fd, one.text));
    } else {
      CHECK(send(fd, one.text.data(), one.text.size(), MSG_OOB | MSG_NOSIGNAL) == static_cast<ssize_t>(one.text.size()));
    }
    if (pauseUs > 0) usleep(pauseUs);
  }
  if (ending == Ending::Fin) shutdown(fd, SHUT_WR);
  if (ending == Ending::Reset) abortFd(fd);
}

void receives(int fd, const std::string& expected, Ending ending, unsigned pauseUs) {
  std::string received;
  char data[65536];
  while (received.size() < expected.size()) {
    const ssize_t size = recv(fd, data, std::min(sizeof data, expected.size() - received.size()), 0);
    if (size <= 0) break;
    received.append(data, static_cast<size_t>(size));
  }
  if (received != expected) {
    std::fprintf(stderr, "%zu of %zu bytes, ending %d, pause %u: %.40s\n", received.size(), expected.size(), static_cast<int>(ending), pauseUs,
                 received.c_str());
  }
  CHECK(received == expected);
  errno = 0;
  if (ending == Ending::Fin) CHECK(recv(fd, data, 1, 0) == 0);
  if (ending == Ending::Reset) CHECK(recv(fd, data, 1, 0) < 0 && errno == ECONNRESET);
}

const Speech kSpeeches[] = {
    {{"one "}, {"!", true}, {"two "}, {"three"}},
    {{"!", true}, {"one "}, {"two "}},  // urgent: the first byte
    {{"one "}, {"two"}, {"!", true}},   // the last byte
    {{"!", true}},                      // the only byte
    {{"one "}, {"!", true}, {"?", true}, {"two "}, {"!", true}, {"three"}},
    {{"one "}, {"ABOR\r\n!", true}, {"?", true}},
    {{std::string(300000, 'x')}, {"!", true}, {std::string(300000, 'y')}, {"!", true}},
};

int acceptFrom(int listener) {
  pollfd waiting = {listener, POLLIN, 0};
  CHECK(poll(&waiting, 1, 20000) == 1);
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  const timeval patience = {5, 0};
  CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
  return fd;
}

// Plays every speech in both directions of connections that `dial` makes to `listener`.
template <typename Dial>
void everySpeech(int listener, const Owner& owner, Dial dial, bool withResets) {
  for (const Speech& speech : kSpeeches) {
    for (const unsigned pauseUs : {0U, 3000U}) {
      for (const Ending ending : {Ending::None, Ending::Fin, Ending::Reset}) {
        if (ending == Ending::Reset && !withResets) continue;
        if (ending == Ending::Reset && all(speech).size() > 1000) continue;  // before a RST only as much is passed on as the target takes at once
        for (const bool fromClient : {true, false}) {
          // Early: the speech may come before the connection is relayed.
          for (const bool isEarly : {true, false}) {
            const unsigned opened = owner.opened;
            int client = dial();
            if (isEarly && fromClient) say(client, speech, pauseUs, ending == Ending::Reset ? Ending::None : ending);
            int server = acceptFrom(listener);
            // If a client resets before that, its bytes reach nobody.
            if (!isEarly || ending == Ending::Reset) CHECK(eventually([&] { return owner.opened > opened; }));
            int& speaker = fromClient ? client : server;
            int& receiver = fromClient ? server : client;
            if (!isEarly || !fromClient) say(speaker, speech, pauseUs, ending);
            if (isEarly && fromClient && ending == Ending::Reset) say(speaker, {}, 0, ending);
            if (ending == Ending::Reset) speaker = -1;
            receives(receiver, all(speech), ending, pauseUs);
            closeFd(client);
            closeFd(server);
          }
        }
      }
    }
  }
}

// The target reads nothing for a while: no byte before or after the urgent one gets lost.
template <typename Dial>
void blockedTarget(int listener, Dial dial) {
  const int client = dial();
  const int server = acceptFrom(listener);
  const Speech speech = {{pattern(1, 12 << 20)}, {"!", true}, {pattern(2, 12 << 20)}, {"!", true}, {"the end"}};
  for (const bool fromClient : {true, false}) {
    std::thread speaker([&] { say(fromClient ? client : server, speech, 0, Ending::Fin); });
    usleep(150000);
    receives(fromClient ? server : client, all(speech), Ending::Fin, 0);
    speaker.join();
  }
  closeFd(client);
  closeFd(server);
}

void direct() {
  const int listener = silentListener();
  Owner owner(options(), [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, ::direct(localAddress(listener)));
  });
  const Address front = owner.listen(ListenerKind::Redirect);
  everySpeech(
      listener, owner, [&] { return dialTo(front); }, true);
  blockedTarget(listener, [&] { return dialTo(front); });
  owner.close();
  closeFd(listener);
}

void throughHag(bool pipelined) {
  const int listener = silentListener();
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks);
  Owner cpe(options(), [&](Engine& engine, const Event& event) {
    if (const auto* const it = std::get_if<Accepted>(&event)) engine.dial(it->id, through(entry, localAddress(listener), pipelined, false));
  });
  const Address front = cpe.listen(ListenerKind::Redirect);
  everySpeech(
      listener, cpe, [&] { return dialTo(front); }, false);
  blockedTarget(listener, [&] { return dialTo(front); });
  cpe.close();
  hag.close();
  closeFd(listener);
}

// A plain TCP client of the HAG, whose first bytes follow its request at once.
void socksClient() {
  const int listener = silentListener();
  Owner hag(options(), serve);
  const Address entry = hag.listen(ListenerKind::Socks);
  const auto dial = [&] {
    const int fd = dialTo(entry);
    const uint16_t port = portOf(localAddress(listener));
    const std::string request = {5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, static_cast<char>(port >> 8), static_cast<char>(port)};
    CHECK(sendAll(fd, request));
    return fd;
  };
  for (const Speech& speech : kSpeeches) {
    // When an urgent byte comes, the kernel may drop an earlier one that still waits.
    if (std::count_if(speech.begin(), speech.end(), [](const Said& one) { return one.urgent; }) > 1) continue;
    const int client = dial();
    say(client, speech, 0, Ending::Fin);
    const int server = acceptFrom(listener);
    receives(server, all(speech), Ending::Fin, 0);
    char answers[12];
    CHECK(recv(client, answers, sizeof answers, MSG_WAITALL) == sizeof answers);
    say(server, speech, 0, Ending::Fin);
    receives(client, all(speech), Ending::Fin, 0);
    closeFd(client);
    closeFd(server);
  }
  hag.close();
  closeFd(listener);
}
}  // namespace

int main() {
  const unsigned before = descriptors();
  direct();
  throughHag(false);
  throughHag(true);
  socksClient();
  CHECK(descriptors() == before);
  return passed();
}
