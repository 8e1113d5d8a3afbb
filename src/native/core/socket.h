// Sockets and addresses: what the engine asks of the kernel, with every option best effort where a kernel may lack it.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>
#include <vector>

// 28 bytes, where sockaddr_storage takes 128 of every idle connection.
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
bool sameHost(const Address& one, const Address& other);                   // whatever their ports
bool sameSocket(const Address& one, const Address& other);                 // host and port
bool sharesBits(const Address& one, const Address& other, unsigned bits);  // of one family, and the first bits are the same
Address localAddress(int fd);
Address remoteAddress(int fd);

// Sets one as far as this kernel takes it; false, and counted, where it does not.
bool setOption(int fd, int level, int option, int value);
struct RefusedOption {
  const char* name;
  int error;  // of the last time
  uint64_t count;
};
std::vector<RefusedOption> refusedOptions();

// Where a client that iptables REDIRECT diverted wanted to go; false where conntrack knows no diversion.
bool originalDestination(int fd, int family, Address* destination);

// Of plain TCP; it is what keeps 1 Gbit/s busy over 2 ms or so, as in a LAN.
constexpr int kReceiveBuffer = 512 * 1024;

// A listening socket; port 0 lets the kernel choose. `shared`: SO_REUSEPORT, one socket a worker. Returns -1 and the failure.
int listenSocket(const Address& address, bool mptcp, bool shared, Protocol* protocol, Failure* failure);

struct Outlet {
  std::string device;  // empty: as the routes say
  uint32_t mark = 0;   // SO_MARK; 0: none
};

// A non-blocking socket whose connect() is under way. Returns -1 and the failure. *protocol is Tcp where the kernel has no MPTCP. The device
// counts for MPTCP's first subflow only: those that join leave by their endpoints' devices.
int dialSocket(const Address& remote, const Address* source, bool mptcp, Protocol* protocol, Failure* failure, const Outlet& outlet = {});

void sendAtOnce(int fd);  // TCP_NODELAY
// Urgent data stays in its place, as RFC 6093 advises: an FTP server would miss a part of the telnet command in front of ABOR.
void readUrgentInline(int fd);
// MPTCP has no TCP_USER_TIMEOUT: without keepalive, a peer that vanished would hold its connection for ever.
void keepAliveInLan(int fd);
constexpr int kWanIdleS = 300;  // seldom, because LTE volume costs money
void keepAlive(int fd, int idleS = kWanIdleS);
void askWhenIdle(int fd, int seconds);  // until `keepAlive` says otherwise
void askOften(int fd, int seconds);     // so often, too, where no answer comes: the question may be lost

// BBR that has not seen the least round trip for ten seconds looks for it again, with four segments on the way for 200 ms
// (bbr_update_min_rtt). Set anew it takes what TCP has seen for it, and looks for the path's rate as on a new connection; the window stays.
void resetBbrFilter(int fd);

// BBR, or CUBIC instead of it where the kernel has it. Only for connections that began with BBR.
void yieldToLoss(int fd, bool yields);
// A connection that has waited for so long would soon begin to look, in the middle of what it was waiting for: 1 MB took 0.45 instead of 0.30 s.
constexpr uint64_t kWaitedLongMs = 5000;

// Bytes, and one for the end; 0 also where the kernel does not tell (MPTCP before Linux 5.17).
int unacknowledged(int fd);

// Of plain TCP, for which the meter does nothing: what is not sent yet waits where it still holds up the other end. On the fastest links
// less costs processor time.
void boundUnsent(int fd, int bytes = 1024 * 1024);
// Bytes that the kernel may make the buffers of one direction: what it receives, and what it sends.
int64_t kernelBuffers();

int socketError(int fd);
void closeFd(int fd);
// Whether closing it, by whomever, aborts the connection (linger 0) or ends it.
void resetOnClose(int fd, bool reset);
void abortFd(int fd);  // RST; on MPTCP an MP_FASTCLOSE
const char* errnoName(int error);
