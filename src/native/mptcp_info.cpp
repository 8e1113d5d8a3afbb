#include "mptcp_info.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>

#include <algorithm>
#include <cstddef>

// The distributions' headers lag behind the kernels that run under them, so the layouts (uapi/linux/mptcp.h, uapi/linux/tcp.h) are
// written out here; the sizes that the kernel reports say how much of them it filled in.
namespace {
constexpr int kSolMptcp = 284;
constexpr int kMptcpInfo = 1;
constexpr int kMptcpFullInfo = 4;
constexpr int kTcpIsMptcp = 43;
constexpr size_t kMaxSubflows = 16;  // 8 endpoints on each side at most, and the first subflow

struct SubflowInfo {
  uint32_t id;
  uint32_t padding;
  // struct __kernel_sockaddr_storage: 128 bytes each
  union {
    Address address;
    char size[128];
  } local, remote;
};
static_assert(sizeof(SubflowInfo) == 264, "struct mptcp_subflow_info");

// The first part of it, which every kernel has. No more than a kernel's own: it lays out the array by the smaller of the two sizes.
struct TcpInfo {
  uint8_t head[68];
  uint32_t rttUs;  // tcpi_rtt
  uint8_t middle[48];
  uint64_t bytesAcked;     // tcpi_bytes_acked
  uint64_t bytesReceived;  // tcpi_bytes_received
};
static_assert(offsetof(TcpInfo, bytesAcked) == 120 && sizeof(TcpInfo) == 136, "struct tcp_info");

struct FullInfo {
  uint32_t tcpInfoKernel;
  uint32_t tcpInfoUser;
  uint32_t subflowInfoKernel;
  uint32_t subflowInfoUser;
  uint32_t subflows;
  uint32_t arrayUser;
  uint64_t subflowInfo;
  uint64_t tcpInfo;
  uint8_t mptcpInfo[256];
};
static_assert(offsetof(FullInfo, subflowInfo) == 24, "struct mptcp_full_info");
}  // namespace

Protocol protocolOf(int fd) {
  int isMptcp = 0;
  socklen_t size = sizeof isMptcp;
  if (getsockopt(fd, IPPROTO_TCP, kTcpIsMptcp, &isMptcp, &size) == 0) return isMptcp != 0 ? Protocol::Mptcp : Protocol::Tcp;
  uint8_t info[256];
  size = sizeof info;
  if (getsockopt(fd, kSolMptcp, kMptcpInfo, info, &size) == 0) return Protocol::Mptcp;
  // 5.16 to 6.9 answer a connection that fell back with EOPNOTSUPP (IPv4) or ENOPROTOOPT (IPv6); older ones know no MPTCP_INFO at all
  // and say EOPNOTSUPP of every connection.
  static const bool known = [] {
    const int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 262);
    if (probe < 0) return false;
    uint8_t buffer[256];
    socklen_t length = sizeof buffer;
    const bool answered = getsockopt(probe, kSolMptcp, kMptcpInfo, buffer, &length) == 0;
    closeFd(probe);
    return answered;
  }();
  return known ? Protocol::Tcp : Protocol::Unknown;
}

std::vector<Subflow> subflowsOf(int fd) {
  SubflowInfo subflows[kMaxSubflows];
  TcpInfo tcp[kMaxSubflows];
  memset(subflows, 0, sizeof subflows);
  memset(tcp, 0, sizeof tcp);
  FullInfo info;
  memset(&info, 0, sizeof info);
  info.tcpInfoUser = sizeof tcp[0];
  info.subflowInfoUser = sizeof subflows[0];
  info.arrayUser = kMaxSubflows;
  info.subflowInfo = reinterpret_cast<uintptr_t>(subflows);
  info.tcpInfo = reinterpret_cast<uintptr_t>(tcp);
  socklen_t size = sizeof info;
  std::vector<Subflow> found;
  if (getsockopt(fd, kSolMptcp, kMptcpFullInfo, &info, &size) != 0) return found;
  const size_t count = std::min<size_t>(info.subflows, kMaxSubflows);
  for (size_t i = 0; i < count; ++i) {
    found.push_back({subflows[i].local.address, subflows[i].remote.address, tcp[i].bytesAcked, tcp[i].bytesReceived, tcp[i].rttUs});
  }
  return found;
}

bool hasNoSubflow(int fd) {
  FullInfo info;
  memset(&info, 0, sizeof info);
  info.tcpInfoUser = sizeof(TcpInfo);
  info.subflowInfoUser = sizeof(SubflowInfo);
  socklen_t size = sizeof info;
  if (getsockopt(fd, kSolMptcp, kMptcpFullInfo, &info, &size) != 0) return false;
  return info.subflows == 0 && protocolOf(fd) == Protocol::Mptcp;
}
