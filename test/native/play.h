// Plays a schedule on one connection, over any path, and judges by what TCP promises whether both ends saw what they should.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "core/socket.h"
#include "peer.h"
#include "schedule.h"

constexpr auto kSettling = std::chrono::seconds(15);
// A connection that does not settle fails after kSettling and this many looks, because the machine may stand still for longer.
constexpr unsigned kLooks = 500;
class Play {
 public:
  // `dial` connects the client's bound socket; the server's end comes out of `listener`.
  Play(const Schedule& schedule, int client, int listener, const std::function<bool(int)>& dial) : listener_(listener) {
    peers_[0].fd = client;
    peers_[1].who = 1;
    for (const Deed& deed : schedule) {
      const int fd = deed.who == 0 ? client : listener;  // the server's end inherits it
      const int value = deed.act == Act::Small ? 2048 : 1;
      if (deed.act == Act::Small) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, sizeof value);
      if (deed.act == Act::Inline) setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &value, sizeof value);
      if (deed.act == Act::Inline) peers_[deed.who].isInline = true;
    }
    if (!dial(client)) complain("the client could not connect");
    if (!complaint_.empty()) return;
    fcntl(client, F_SETFL, O_NONBLOCK);
    for (const Deed& deed : schedule) {
      play(deed);
      if (!complaint_.empty()) return;
    }
    finish();
    if (complaint_.empty()) judge();
  }
  ~Play() {
    for (Peer& one : peers_) {
      if (!one.isClosed) closeFd(one.fd);
    }
  }
  Play(const Play&) = delete;
  Play& operator=(const Play&) = delete;

  const std::string& complaint() const { return complaint_; }
  const Peer& peer(unsigned who) const { return peers_[who]; }
  // True if nothing was left to chance: then another connection must end in the same way.
  bool isCertain() const { return isCertain_; }
  std::string outcome() const {
    std::string text;
    for (const Peer& one : peers_) {
      text += one.who == 0 ? "client: " : "; server: ";
      if (one.isClosed) {
        text += "closed";
        continue;
      }
      const Peer& other = peers_[1 - one.who];
      text +=
          std::to_string(matched(one.received, other.sent)) + " of " + std::to_string(other.sent.size()) + ", " + kEnds[static_cast<size_t>(one.end)];
      if (one.isKilled) text += " (RST)";
    }
    return text;
  }

 private:
  using Clock = std::chrono::steady_clock;

  void complain(const std::string& what) {
    if (complaint_.empty()) complaint_ = what;
  }

  void play(const Deed& deed) {
    Peer& peer = peers_[deed.who];
    if (deed.act == Act::Settle) return settle("settle");
    if (deed.act == Act::Pause) {
      for (const auto until = Clock::now() + std::chrono::milliseconds(deed.amount); Clock::now() < until;) turn(1);
      return;
    }
    if (deed.act == Act::Small || deed.act == Act::Inline) return;
    if (deed.who == 1 && peer.fd < 0) awaitServer();
    if (!peer.isLive()) return;
    if (peer.wantsShut && (deed.act == Act::Send || deed.act == Act::Urgent)) return;
    if (deed.act == Act::Send) peer.waiting.push_back({deed.amount, false});
    if (deed.act == Act::Urgent) peer.waiting.push_back({1, true});
    if (deed.act == Act::Shut) peer.wantsShut = true;
    if (deed.act == Act::Stop) peer.isReading = false;
    if (deed.act == Act::ReadOn) peer.isReading = true;
    if (deed.act == Act::Reset || deed.act == Act::Close) leave(&peer, deed.act == Act::Reset);
    turn(0);
  }

  void awaitServer() {
    const bool must = peers_[0].aborts == Aborts::No;
    const auto until = Clock::now() + (must ? kSettling : std::chrono::milliseconds(100));
    for (unsigned looks = 0; peers_[1].fd < 0 && (Clock::now() < until || (must && looks < kLooks)); ++looks) turn(5);
    if (peers_[1].fd < 0 && peers_[0].aborts == Aborts::No) complain("nobody came to the server");
  }

  void leave(Peer* peer, bool reset) {
    const Peer& other = peers_[1 - peer->who];
    int unread = 0;
    ioctl(peer->fd, FIONREAD, &unread);
    const bool isAllRead = static_cast<size_t>(matched(peer->received, other.sent)) >= other.sent.size();
    const bool hasUrgent = other.sent.find(kUrgentByte) != std::string::npos;
    if (peer->isKilled || (hasUrgent && !reset)) {
      peer->aborts = Aborts::Perhaps;  // if killed, no connection is left that it could reset
    } else if (reset || unread > 0) {
      peer->aborts = Aborts::Surely;
      peer->isReset = !peer->isShut;
    } else if (!isAllRead) {
      peer->aborts = Aborts::Surely;
    }
    if (peer->aborts == Aborts::Perhaps) isCertain_ = false;
    peer->isClosed = true;
    peer->waiting.clear();
    reset ? abortFd(peer->fd) : closeFd(peer->fd);
  }

  // Sends and receives what is possible now, or within `ms`.
  void turn(int ms) {
    move(ms);
    for (Peer& one : peers_) {
      if (!one.wantsShut || one.isShut || !one.waiting.empty() || !one.isLive()) continue;
      shutdown(one.fd, SHUT_WR);
      one.isShut = true;
    }
  }

  void move(int ms) {
    pollfd waiting[3] = {};
    waiting[2] = {peers_[1].fd < 0 ? listener_ : -1, POLLIN, 0};
    for (const Peer& one : peers_) {
      pollfd& here = waiting[one.who];
      here.fd = one.isLive() && (one.end == End::Open || (!one.isKilled && !one.isShut)) ? one.fd : -1;
      if (one.isReading && one.end == End::Open) here.events |= POLLIN;
      if (!one.waiting.empty()) here.events |= POLLOUT;
    }
    if (poll(waiting, 3, ms) <= 0) return;
    if (waiting[2].revents != 0) {
      peers_[1].fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      return;
    }
    bool progress = false;
    for (Peer& one : peers_) {
      const short events = waiting[one.who].revents;
      if (events == 0) continue;
      if ((events & POLLERR) != 0) one.isKilled = true;
      if (one.isReading && one.end == End::Open) progress |= read(&one);
      progress |= write(&one);
    }
    // poll() reports a hang-up again and again if nobody acts on it.
    if (!progress && ms > 0) usleep(500);
  }

  bool read(Peer* peer) {
    char data[65536];
    const ssize_t size = recv(peer->fd, data, sizeof data, 0);
    if (size > 0) {
      peer->received.append(data, static_cast<size_t>(size));
      return true;
    }
    if (size < 0 && errno == EAGAIN) return false;
    if (size == 0) {
      peer->end = peer->error == ECONNRESET ? End::Reset : End::Fin;
      return true;
    }
    if (errno != ECONNRESET) complain(std::string("recv() says ") + errnoName(errno));
    peer->error = errno;
    peer->end = End::Reset;
    peer->isKilled = true;
    return true;
  }

  bool write(Peer* peer) {
    bool progress = false;
    Peer& other = peers_[1 - peer->who];
    while (!peer->waiting.empty()) {
      char data[65536];
      Peer::Waiting& next = peer->waiting.front();
      const size_t length = std::min(next.bytes, sizeof data);
      for (size_t i = 0; i < length; ++i) data[i] = next.isUrgent ? kUrgentByte : byteAt(peer->who, peer->sent.size() + i);
      const ssize_t size = peer->isKilled ? 0 : send(peer->fd, data, length, MSG_NOSIGNAL | (next.isUrgent ? MSG_OOB : 0));
      if (size < 0 && errno == EAGAIN) return progress;
      progress = true;
      if (size <= 0) {
        // send() took the error, so recv() will not report it.
        if (size < 0) peer->error = errno;
        peer->isKilled = true;
        peer->waiting.clear();
        break;
      }
      if (other.isClosed && other.aborts == Aborts::No) other.aborts = next.isUrgent ? Aborts::Perhaps : Aborts::Surely;
      if (other.aborts == Aborts::Perhaps) isCertain_ = false;
      peer->sent.append(data, static_cast<size_t>(size));
      next.bytes -= static_cast<size_t>(size);
      if (next.bytes == 0) peer->waiting.pop_front();
    }
    return progress;
  }

  // Why the direction from `from` has not settled yet; nullptr: it has. *arrived: how many bytes are known to have arrived.
  const char* unsettled(const Peer& from, size_t* arrived) {
    const Peer& to = peers_[1 - from.who];
    if (to.isClosed) return from.isKilled || from.isShut || from.waiting.empty() ? nullptr : "cannot send";
    if (to.fd < 0) {
      if (from.aborts == Aborts::No) return "is not connected";
      isCertain_ = false;  // a client that was gone at once need not reach the server
      return nullptr;
    }
    if (from.isLive() && !from.isKilled && !from.waiting.empty() && to.isReading) return "cannot send";
    if (from.aborts == Aborts::Surely && !to.isShut && !to.isKilled) {
      if (to.isReading || from.arrived == from.sent.size()) return "left by a RST that did not come";
      // If the receive buffer has no room for the bytes before a RST, the RST is outside the window and ignored (RFC 5961 section 3).
      isCertain_ = false;
      return nullptr;
    }
    const ssize_t count = matched(to.received, from.sent);
    if (count < 0) return nullptr;  // for judge() to say
    *arrived = static_cast<size_t>(count);
    if (from.aborts == Aborts::Perhaps || to.isKilled) {
      // Bytes that were on the way when it left may arrive or not.
      if (to.isReading && to.isKilled && to.end == End::Open) return "left, and its end did not come";
      if (!to.isReading) isCertain_ = false;
      return nullptr;
    }
    if (to.isReading) {
      if (from.aborts != Aborts::Surely && *arrived < from.sent.size()) return "sent what did not come";
      if ((from.isShut || from.isClosed) && to.end == End::Open) return "ended, and it did not come";
      return nullptr;
    }
    const size_t left = from.sent.size() - *arrived;
    if (left > 1500 || !from.waiting.empty() || (!to.isInline && from.sent.find(kUrgentByte) != std::string::npos)) {
      isCertain_ = false;
      return nullptr;
    }
    int queued = 0;
    ioctl(to.fd, FIONREAD, &queued);
    if (static_cast<size_t>(queued) < left) return "sent what did not come to one who does not read";
    pollfd ended = {to.fd, POLLRDHUP, 0};
    if ((from.isShut || from.isClosed) && poll(&ended, 1, 0) == 0) return "ended, and it did not come to one who does not read";
    *arrived += left;
    return nullptr;
  }

  void settle(const char* when) {
    const char* reason[2] = {};
    size_t moved = 0;
    unsigned looks = 0;
    for (auto until = Clock::now() + kSettling;;) {
      turn(2);
      const size_t before = std::exchange(moved, peers_[0].received.size() + peers_[1].received.size());
      if (moved > before) {
        until = Clock::now() + kSettling;
        looks = 0;
      }
      size_t arrived[2] = {};
      for (const Peer& one : peers_) reason[one.who] = unsettled(one, &arrived[one.who]);
      if (reason[0] == nullptr && reason[1] == nullptr) {
        for (Peer& one : peers_) one.arrived = std::max(one.arrived, arrived[one.who]);
        return;
      }
      if (++looks >= kLooks && Clock::now() >= until) break;
    }
    for (unsigned who = 0; who < 2; ++who) {
      if (reason[who] != nullptr) complain(std::string(when) + ": the " + (who == 0 ? "client " : "server ") + reason[who]);
    }
  }

  void finish() {
    for (Peer& one : peers_) one.isReading = true;
    settle("reading to the end");
    if (!complaint_.empty()) return;
    for (Peer& one : peers_) one.wantsShut = true;
    turn(0);
    settle("the ends");
  }

  void judge() {
    for (const Peer& from : peers_) {
      const Peer& to = peers_[1 - from.who];
      const std::string name = from.who == 0 ? "the client's" : "the server's";
      const ssize_t count = matched(to.received, from.sent);
      if (count < 0) return complain(name + " bytes are not those that came");
      if (!to.isLive()) continue;
      if (from.aborts == Aborts::No) {
        if (static_cast<size_t>(count) < from.sent.size()) return complain(name + " bytes did not all come");
        if (to.end != End::Fin) return complain(name + " FIN came as " + kEnds[static_cast<size_t>(to.end)]);
        if (to.isKilled) return complain(name + " FIN came, and a RST that nobody sent");
        continue;
      }
      if (static_cast<size_t>(count) < from.arrived) return complain(name + " bytes were lost that had come");
      if (from.isReset && to.end != End::Reset) return complain(name + " RST came as " + kEnds[static_cast<size_t>(to.end)]);
    }
  }

  int listener_;
  Peer peers_[2];
  bool isCertain_ = true;
  std::string complaint_;
};
