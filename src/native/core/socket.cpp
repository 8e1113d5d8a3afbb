#include "core/socket.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

namespace {
constexpr int kOriginalDst = 80;  // SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST
constexpr int kBacklog = 4096;    // the kernel lowers it to net.core.somaxconn

// Options that `setOption` sets. Only some kernels take all of them on MPTCP sockets.
struct Option {
  int level;
  int option;
  const char* name;
  std::atomic<uint64_t> refused{0};
  std::atomic<int> error{0};
};
Option options[] = {
    {SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR"},
    {SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT"},
    {SOL_SOCKET, SO_KEEPALIVE, "SO_KEEPALIVE"},
    {SOL_SOCKET, SO_OOBINLINE, "SO_OOBINLINE"},
    {SOL_SOCKET, SO_RCVBUFFORCE, "SO_RCVBUFFORCE"},
    {SOL_SOCKET, SO_RCVBUF, "SO_RCVBUF"},
    {SOL_SOCKET, SO_SNDBUFFORCE, "SO_SNDBUFFORCE"},
    {SOL_SOCKET, SO_RCVLOWAT, "SO_RCVLOWAT"},
    {SOL_SOCKET, SO_MARK, "SO_MARK"},
    {SOL_SOCKET, SO_BINDTODEVICE, "SO_BINDTODEVICE"},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT"},
    {IPPROTO_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY"},
    {IPPROTO_TCP, TCP_NODELAY, "TCP_NODELAY"},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT"},
    {IPPROTO_TCP, TCP_KEEPIDLE, "TCP_KEEPIDLE"},
    {IPPROTO_TCP, TCP_KEEPINTVL, "TCP_KEEPINTVL"},
    {IPPROTO_TCP, TCP_KEEPCNT, "TCP_KEEPCNT"},
};

bool usesBbr(int fd) {
  char name[16] = "";
  socklen_t size = sizeof name;
  return getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &size) == 0 && strcmp(name, "bbr") == 0;
}

bool setCongestion(int fd, const char* name) { return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, static_cast<socklen_t>(strlen(name))) == 0; }

// Sets BBR on an MPTCP socket; joining and accepted subflows inherit it. The usual default, CUBIC, fills a path's queue until it overflows, and
// everything else on the path waits behind it. The call is made only if the kernel has BBR and it is not the default: without it, each call
// would make the kernel look for the module.
void keepQueuesShort(int fd) {
  static const bool needed = [] {
    const int any = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP);
    const bool needs = !usesBbr(any) && setCongestion(any, "bbr");
    closeFd(any);
    return needs;
  }();
  if (needed) setCongestion(fd, "bbr");
}

// The sysctl's third number (the maximum), or `usual`, Linux's own default.
int64_t largestOf(const char* sysctl, int64_t usual) {
  long long numbers[3];
  FILE* const file = fopen(sysctl, "re");
  if (file == nullptr) return usual;
  const int found = fscanf(file, "%lld %lld %lld", &numbers[0], &numbers[1], &numbers[2]);
  fclose(file);
  return found == 3 ? numbers[2] : usual;
}

int streamSocket(int family, bool mptcp, Protocol* protocol) {
  const int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (mptcp) {
    const int fd = socket(family, type, IPPROTO_MPTCP);
    // EINVAL: before Linux 5.6; EPROTONOSUPPORT: not compiled in; ENOPROTOOPT: switched off.
    if (fd >= 0 || (errno != EINVAL && errno != EPROTONOSUPPORT && errno != ENOPROTOOPT)) {
      *protocol = Protocol::Mptcp;
      return fd;
    }
  }
  *protocol = Protocol::Tcp;
  return socket(family, type, IPPROTO_TCP);
}

int fail(int fd, const char* syscall, Failure* failure) {
  *failure = {errno, syscall};
  if (fd >= 0) close(fd);
  return -1;
}
}  // namespace

static bool setBytes(int fd, int level, int option, const void* value, size_t size) {
  if (setsockopt(fd, level, option, value, static_cast<socklen_t>(size)) == 0) return true;
  const int error = errno;
  for (Option& one : options) {
    if (one.level != level || one.option != option) continue;
    one.error = error;
    ++one.refused;
  }
  errno = error;
  return false;
}

bool setOption(int fd, int level, int option, int value) { return setBytes(fd, level, option, &value, sizeof value); }

std::vector<RefusedOption> refusedOptions() {
  std::vector<RefusedOption> refused;
  for (const Option& one : options) {
    const uint64_t count = one.refused;
    if (count > 0) refused.push_back({one.name, one.error, count});
  }
  return refused;
}

Address noAddress() {
  Address address;
  memset(&address, 0, sizeof address);
  return address;
}

bool parseAddress(const std::string& text, uint16_t port, Address* address) {
  *address = noAddress();
  if (inet_pton(AF_INET, text.c_str(), &address->in.sin_addr) == 1) {
    address->in.sin_family = AF_INET;
    address->in.sin_port = htons(port);
    return true;
  }
  if (inet_pton(AF_INET6, text.c_str(), &address->in6.sin6_addr) == 1) {
    address->in6.sin6_family = AF_INET6;
    address->in6.sin6_port = htons(port);
    return true;
  }
  return false;
}

std::string formatAddress(const Address& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.sa.sa_family == AF_INET) {
    inet_ntop(AF_INET, &address.in.sin_addr, text, sizeof text);
  } else if (address.sa.sa_family == AF_INET6) {
    const in6_addr& six = address.in6.sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&six)) {
      inet_ntop(AF_INET, six.s6_addr + 12, text, sizeof text);
    } else {
      inet_ntop(AF_INET6, &six, text, sizeof text);
    }
  }
  return text;
}

uint16_t portOf(const Address& address) { return ntohs(address.sa.sa_family == AF_INET6 ? address.in6.sin6_port : address.in.sin_port); }

socklen_t sizeOf(const Address& address) { return address.sa.sa_family == AF_INET6 ? sizeof address.in6 : sizeof address.in; }

bool sameHost(const Address& one, const Address& other) {
  if (one.sa.sa_family != other.sa.sa_family) return false;
  if (one.sa.sa_family == AF_INET6) return memcmp(&one.in6.sin6_addr, &other.in6.sin6_addr, sizeof one.in6.sin6_addr) == 0;
  return one.in.sin_addr.s_addr == other.in.sin_addr.s_addr;
}

bool sameSocket(const Address& one, const Address& other) { return sameHost(one, other) && portOf(one) == portOf(other); }

bool sharesBits(const Address& one, const Address& other, unsigned bits) {
  if (one.sa.sa_family != other.sa.sa_family) return false;
  const bool isSix = one.sa.sa_family == AF_INET6;
  const auto bytesOf = [isSix](const Address& address) {
    return isSix ? address.in6.sin6_addr.s6_addr : reinterpret_cast<const uint8_t*>(&address.in.sin_addr.s_addr);
  };
  const unsigned length = std::min(bits, isSix ? 128U : 32U);
  const unsigned whole = length / 8;
  if (memcmp(bytesOf(one), bytesOf(other), whole) != 0) return false;
  const unsigned rest = length % 8;
  return rest == 0 || ((bytesOf(one)[whole] ^ bytesOf(other)[whole]) >> (8 - rest)) == 0;
}

Address localAddress(int fd) {
  Address address = noAddress();
  socklen_t size = sizeof address;
  getsockname(fd, &address.sa, &size);
  return address;
}

Address remoteAddress(int fd) {
  Address address = noAddress();
  socklen_t size = sizeof address;
  getpeername(fd, &address.sa, &size);
  return address;
}

bool originalDestination(int fd, int family, Address* destination) {
  *destination = noAddress();
  socklen_t size = sizeof *destination;
  const int level = family == AF_INET6 ? static_cast<int>(IPPROTO_IPV6) : static_cast<int>(IPPROTO_IP);
  return getsockopt(fd, level, kOriginalDst, destination, &size) == 0;
}

int listenSocket(const Address& address, bool mptcp, bool shared, Protocol* protocol, Failure* failure) {
  const int fd = streamSocket(address.sa.sa_family, mptcp, protocol);
  if (fd < 0) return fail(fd, "socket", failure);
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (shared) setOption(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (address.sa.sa_family == AF_INET6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  // Sockets accepted from plain TCP inherit all of this; those from MPTCP do not on every kernel.
  if (mptcp) {
    keepQueuesShort(fd);
  } else {
    sendAtOnce(fd);
    boundUnsent(fd);
    readUrgentInline(fd);  // before a client's first words are looked at
    keepAliveInLan(fd);
    // LAN clients come to plain TCP listeners; megabytes would gather here before slower WANs. The kernel doubles the number.
    setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, kReceiveBuffer / 2);
  }
  if (bind(fd, &address.sa, sizeOf(address)) != 0) return fail(fd, "bind", failure);
  if (listen(fd, kBacklog) != 0) return fail(fd, "listen", failure);
  return fd;
}

int dialSocket(const Address& remote, const Address* source, bool mptcp, Protocol* protocol, Failure* failure, const Outlet& outlet) {
  const int fd = streamSocket(remote.sa.sa_family, mptcp, protocol);
  if (fd < 0) return fail(fd, "socket", failure);
  if (outlet.mark != 0) setOption(fd, SOL_SOCKET, SO_MARK, static_cast<int>(outlet.mark));
  // If the device is gone, the connection must not leave by another one. Other errors mean that this kernel does not let us choose.
  const std::string& device = outlet.device;
  const bool leavesByIt = device.empty() || setBytes(fd, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(), device.size());
  if (!leavesByIt && errno == ENODEV) return fail(fd, "setsockopt", failure);
  if (source != nullptr) {
    setOption(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (bind(fd, &source->sa, sizeOf(*source)) != 0) return fail(fd, "bind", failure);
  }
  sendAtOnce(fd);
  if (mptcp) {
    keepQueuesShort(fd);
  } else {
    boundUnsent(fd);
    readUrgentInline(fd);  // not later: if more urgent data comes, the kernel drops the earlier byte
  }
  if (connect(fd, &remote.sa, sizeOf(remote)) != 0 && errno != EINPROGRESS) return fail(fd, "connect", failure);
  return fd;
}

void sendAtOnce(int fd) { setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

void readUrgentInline(int fd) { setOption(fd, SOL_SOCKET, SO_OOBINLINE, 1); }

void keepAliveInLan(int fd) {
  askWhenIdle(fd, 60);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 5);
}

// The connection must survive some minutes without its WAN, however often the kernel asks.
void keepAlive(int fd, int idleS) {
  constexpr int kGoneS = 450;
  const int everyS = std::min(30, idleS);
  askWhenIdle(fd, idleS);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, everyS);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, std::clamp((kGoneS - idleS) / everyS, 5, 127));
}

void askWhenIdle(int fd, int seconds) {
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
}

void askOften(int fd, int seconds) {
  askWhenIdle(fd, seconds);
  setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
  setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 30);
}

uint32_t silentMs(int fd) {
  tcp_info info = {};
  socklen_t size = sizeof info;
  getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size);
  return info.tcpi_last_ack_recv;
}

void resetBbrFilter(int fd) {
  if (!usesBbr(fd)) return;
  setCongestion(fd, "reno");
  setCongestion(fd, "bbr");
}

int unacknowledged(int fd) {
  int bytes = 0;
  return ioctl(fd, SIOCOUTQ, &bytes) == 0 ? bytes : 0;
}

void yieldToLoss(int fd, bool yields) {
  if (usesBbr(fd) == yields) setCongestion(fd, yields ? "cubic" : "bbr");
}

void boundUnsent(int fd, int bytes) { setOption(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, bytes); }

// First called when the first connection is relayed: by then the owner has set its sysctls.
int64_t kernelBuffers() {
  static const int64_t bytes = largestOf("/proc/sys/net/ipv4/tcp_rmem", 32 << 20) + largestOf("/proc/sys/net/ipv4/tcp_wmem", 4 << 20);
  return bytes;
}

int socketError(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

void closeFd(int fd) {
  if (fd >= 0) close(fd);
}

void resetOnClose(int fd, bool reset) {
  const linger how = {reset ? 1 : 0, 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &how, sizeof how);
}

void abortFd(int fd) {
  if (fd < 0) return;
  resetOnClose(fd, true);
  close(fd);
}

const char* errnoName(int error) {
  const char* name = strerrorname_np(error);
  return name == nullptr ? "EUNKNOWN" : name;
}
