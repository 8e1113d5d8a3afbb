// Sockets and addresses. A socket option that a kernel may lack is best effort.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

// 28 bytes; with sockaddr_storage each address of an idle connection would take 128.
union Address {
  sockaddr sa;
  sockaddr_in in;
  sockaddr_in6 in6;
};

enum class Protocol : uint8_t { Unknown, Tcp, Mptcp };

// A failed system call, or one of the engine's own codes (then `error` is the nearest errno).
struct Failure {
  int error = 0;
  const char* syscall = "";
  const char* code = nullptr;  // overrides the errno's name
};

Address noAddress();
bool parseAddress(const std::string& text, uint16_t port, Address* address);
std::string formatAddress(const Address& address);  // v4-mapped addresses become IPv4
uint16_t portOf(const Address& address);
socklen_t sizeOf(const Address& address);
bool sameHost(const Address& one, const Address& other);                   // ports do not matter
bool sameSocket(const Address& one, const Address& other);                 // host and port
bool sharesBits(const Address& one, const Address& other, unsigned bits);  // same family and same first bits
Address localAddress(int fd);
Address remoteAddress(int fd);

// Sets an option. If this kernel refuses it, that is counted, and the result is false.
bool setOption(int fd, int level, int option, int value);
struct RefusedOption {
  const char* name;
  int error;  // the last one
  uint64_t count;
};
std::vector<RefusedOption> refusedOptions();

// Where a client wanted to go whom iptables REDIRECT diverted. False if conntrack knows of no diversion.
bool originalDestination(int fd, int family, Address* destination);

// The first receive buffer of plain TCP. It suffices for 1 Gbit/s over a round trip of 2 ms, as in a LAN.
constexpr int kReceiveBuffer = 512 * 1024;

// A listening socket; port 0 lets the kernel choose. `shared`: SO_REUSEPORT, one socket a worker. Returns -1 and the failure.
int listenSocket(const Address& address, bool mptcp, bool shared, Protocol* protocol, Failure* failure);

struct Outlet {
  std::string device;  // empty: as the routes say
  uint32_t mark = 0;   // SO_MARK; 0: none
};

// A non-blocking socket whose connect(2) is under way. Returns -1 and the failure. *protocol is Tcp if the kernel has no MPTCP. With MPTCP, the
// device is for the first subflow only: joining subflows leave by their endpoints' devices.
int dialSocket(const Address& remote, const Address* source, bool mptcp, Protocol* protocol, Failure* failure, const Outlet& outlet = {});

void sendAtOnce(int fd);  // TCP_NODELAY
// Keeps urgent data in its place in the stream, as RFC 6093 advises. Otherwise an FTP server would miss a part of the telnet command before
// ABOR.
void readUrgentInline(int fd);
// Without keepalive, a peer that vanished would hold its connection for ever (MPTCP has no TCP_USER_TIMEOUT).
void keepAliveInLan(int fd);
constexpr int kWanIdleS = 300;  // rarely, because LTE volume costs money
void keepAlive(int fd, int idleS = kWanIdleS);
void askWhenIdle(int fd, int seconds);  // sets only the idle time before the first probe
void askOften(int fd, int seconds);     // also the interval between probes, because one may be lost
uint32_t silentMs(int fd);              // since something was acknowledged over plain TCP, milliseconds

// If BBR has not seen its smallest round trip for ten seconds, it probes for it: for 200 ms it keeps only four segments in flight
// (bbr_update_min_rtt). When BBR is set anew, it takes TCP's own smallest round trip, and searches for the path's rate as on a new connection;
// the window stays.
void resetBbrFilter(int fd);

// Sets CUBIC, if the kernel has it, or BBR. Only for connections that began with BBR.
void yieldToLoss(int fd, bool yields);
// After so long an idle time BBR would soon probe for its round trip, in the middle of the transfer that follows: 1 MB took 0.45 s instead of
// 0.30 s.
constexpr uint64_t kWaitedLongMs = 5000;

// Bytes that were sent and not acknowledged; our FIN counts as one. 0 if the kernel does not tell (MPTCP before Linux 5.17).
int unacknowledged(int fd);

// For plain TCP, which the meter does not bound: unsent bytes above this stay in the source's buffer, and so hold up the sender. A lower bound
// costs processor time on the fastest links.
void boundUnsent(int fd, int bytes = 1024 * 1024);
// The largest receive buffer plus the largest send buffer that the kernel may give one direction, bytes.
int64_t kernelBuffers();

int socketError(int fd);
void closeFd(int fd);
// Whether close(2), whoever calls it, aborts the connection (linger 0) or ends it.
void resetOnClose(int fd, bool reset);
void abortFd(int fd);  // RST; on MPTCP an MP_FASTCLOSE
const char* errnoName(int error);
