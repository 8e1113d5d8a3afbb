#include "core/mptcp_info.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <cstddef>

// The distributions' headers lag behind the kernels that run under them, so the layouts (uapi/linux/mptcp.h, uapi/linux/tcp.h) are
// written out here; the sizes that the kernel reports say how much of them it filled in.
namespace {
constexpr int kSolMptcp = 284;
constexpr int kMptcpInfo = 1;
constexpr int kMptcpTcpInfo = 2;
constexpr int kMptcpSubflowAddresses = 3;
constexpr int kMptcpFullInfo = 4;
constexpr int kTcpIsMptcp = 43;
constexpr size_t kMaxSubflows = 16;  // at most 8 endpoints (MPTCP_PM_ADDR_MAX) on each side, and the first subflow

struct SubflowAddresses {
  // struct __kernel_sockaddr_storage: 128 bytes each
  union {
    Address address;
    char size[128];
  } local, remote;
};
static_assert(sizeof(SubflowAddresses) == 256, "struct mptcp_subflow_addrs");

struct alignas(8) SubflowInfo {
  uint32_t id;
  uint32_t padding;
  SubflowAddresses addresses;
};
static_assert(sizeof(SubflowInfo) == 264, "struct mptcp_subflow_info");

// The first part of struct tcp_info, which every kernel has. It must not be longer than the kernel's, which lays out the array by the smaller of
// the two sizes.
struct TcpInfo {
  uint8_t state;  // tcpi_state
  uint8_t congestionState;
  uint8_t timeouts;  // tcpi_retransmits
  uint8_t head[13];
  uint32_t segmentBytes;  // tcpi_snd_mss
  uint32_t peerSegmentBytes;
  uint32_t unacked;  // tcpi_unacked, segments
  uint8_t counters[28];
  uint32_t lastAckMs;  // tcpi_last_ack_recv
  uint8_t sizes[8];
  uint32_t rttUs;  // tcpi_rtt
  uint8_t middle[28];
  uint32_t sentAgain;   // tcpi_total_retrans, segments
  uint64_t pacingRate;  // tcpi_pacing_rate
  uint64_t maxPacingRate;
  uint64_t bytesAcked;     // tcpi_bytes_acked
  uint64_t bytesReceived;  // tcpi_bytes_received
  uint8_t segments[8];
  uint32_t unsent;    // tcpi_notsent_bytes
  uint32_t minRttUs;  // tcpi_min_rtt
  uint32_t dataSegmentsIn;
  uint32_t dataSegmentsOut;  // tcpi_data_segs_out, those sent again included
  uint64_t deliveryRate;     // tcpi_delivery_rate
};
static_assert(offsetof(TcpInfo, lastAckMs) == 56 && offsetof(TcpInfo, rttUs) == 68, "struct tcp_info");
static_assert(offsetof(TcpInfo, pacingRate) == 104 && offsetof(TcpInfo, bytesAcked) == 120, "struct tcp_info");
static_assert(offsetof(TcpInfo, sentAgain) == 100 && offsetof(TcpInfo, dataSegmentsOut) == 156, "struct tcp_info");
static_assert(offsetof(TcpInfo, segmentBytes) == 16 && offsetof(TcpInfo, unsent) == 144, "struct tcp_info");
static_assert(offsetof(TcpInfo, minRttUs) == 148 && sizeof(TcpInfo) == 168, "struct tcp_info");

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

struct SubflowData {
  uint32_t headSize;
  uint32_t subflows;
  uint32_t kernelSize;
  uint32_t userSize;
};
static_assert(sizeof(SubflowData) == 16, "struct mptcp_subflow_data");

// include/net/tcp_states.h
constexpr uint8_t kTcpEstablished = 1;
constexpr uint8_t kTcpSynSent = 2;
constexpr uint8_t kTcpSynReceived = 3;

// A subflow that one end has closed carries neither new bytes nor retransmissions. If its link is silent, it stays in FIN-WAIT-1 up to a quarter
// of an hour (tcp_retries2).
bool isAlive(const TcpInfo& tcp) { return tcp.state == kTcpEstablished || tcp.state == kTcpSynSent || tcp.state == kTcpSynReceived; }

// Which calls this kernel has; set by the first connection about which one of them answers.
std::atomic<SubflowSource> source{SubflowSource::Unknown};

struct Subflows {
  SubflowAddresses addresses[kMaxSubflows];
  TcpInfo tcp[kMaxSubflows];
  size_t count;

  // False for plain TCP and before Linux 5.16.
  bool read(int fd) {
    const SubflowSource known = source.load(std::memory_order_relaxed);
    if (known != SubflowSource::Separate && readAtOnce(fd)) return found(SubflowSource::AtOnce);
    // A connection that fell back answers neither call, so this does not tell which one the kernel has.
    if (known != SubflowSource::AtOnce && readSeparately(fd)) return found(SubflowSource::Separate);
    return false;
  }

 private:
  static bool found(SubflowSource one) {
    if (source.load(std::memory_order_relaxed) != one) source.store(one, std::memory_order_relaxed);
    return true;
  }

  // Linux 6.5 and later.
  bool readAtOnce(int fd) {
    SubflowInfo info[kMaxSubflows] = {};
    memset(tcp, 0, sizeof tcp);
    FullInfo full;
    memset(&full, 0, sizeof full);
    full.tcpInfoUser = sizeof tcp[0];
    full.subflowInfoUser = sizeof info[0];
    full.arrayUser = kMaxSubflows;
    full.subflowInfo = reinterpret_cast<uintptr_t>(info);
    full.tcpInfo = reinterpret_cast<uintptr_t>(tcp);
    socklen_t size = sizeof full;
    if (getsockopt(fd, kSolMptcp, kMptcpFullInfo, &full, &size) != 0) return false;
    count = std::min<size_t>(full.subflows, kMaxSubflows);
    for (size_t i = 0; i < count; ++i) addresses[i] = info[i].addresses;
    return true;
  }

  // Linux 5.16 and later. Both lists are in the kernel's order, newest last. If a subflow joins or leaves between the two calls, the lengths
  // differ, and both are read again.
  bool readSeparately(int fd) {
    constexpr int kTries = 4;
    for (int left = kTries; left > 0; --left) {
      size_t other = 0;
      if (!readList(fd, kMptcpSubflowAddresses, addresses, &count) || !readList(fd, kMptcpTcpInfo, tcp, &other)) return false;
      if (count == other) break;
      count = 0;
    }
    count = std::min(count, kMaxSubflows);
    return true;
  }

  template <typename Item>
  static bool readList(int fd, int option, Item (&items)[kMaxSubflows], size_t* total) {
    struct {
      SubflowData head;
      Item items[kMaxSubflows];
    } list;
    memset(&list, 0, sizeof list);
    list.head.headSize = sizeof list.head;
    list.head.userSize = sizeof(Item);
    socklen_t size = sizeof list;
    if (getsockopt(fd, kSolMptcp, option, &list, &size) != 0) return false;
    static_assert(offsetof(decltype(list), items) == sizeof(SubflowData), "the array follows its head");
    memcpy(items, list.items, sizeof list.items);
    *total = list.head.subflows;
    return true;
  }
};
}  // namespace

void readSubflowsFrom(SubflowSource wanted) { source = wanted; }

Protocol protocolOf(int fd) {
  int isMptcp = 0;
  socklen_t size = sizeof isMptcp;
  if (getsockopt(fd, IPPROTO_TCP, kTcpIsMptcp, &isMptcp, &size) == 0) return isMptcp != 0 ? Protocol::Mptcp : Protocol::Tcp;
  uint8_t info[256];
  size = sizeof info;
  if (getsockopt(fd, kSolMptcp, kMptcpInfo, info, &size) == 0) return Protocol::Mptcp;
  // If the connection fell back, Linux 5.16 to 6.9 answer EOPNOTSUPP (IPv4) or ENOPROTOOPT (IPv6). Older kernels have no MPTCP_INFO and always
  // answer EOPNOTSUPP.
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
  Subflows subflows;
  std::vector<Subflow> found;
  if (!subflows.read(fd)) return found;
  for (size_t i = 0; i < subflows.count; ++i) {
    const TcpInfo& tcp = subflows.tcp[i];
    if (!isAlive(tcp)) continue;
    found.push_back({subflows.addresses[i].local.address, subflows.addresses[i].remote.address, tcp.bytesAcked, tcp.bytesReceived, tcp.rttUs,
                     tcp.unacked, tcp.lastAckMs, tcp.timeouts, tcp.minRttUs, tcp.pacingRate, tcp.deliveryRate,
                     uint64_t{tcp.unacked} * tcp.segmentBytes + tcp.unsent, tcp.state != kTcpEstablished, tcp.dataSegmentsOut, tcp.sentAgain});
  }
  return found;
}

bool goesOver(int fd, const Address& local) {
  Subflows subflows;
  if (!subflows.read(fd)) return false;
  for (size_t i = 0; i < subflows.count; ++i) {
    if (subflows.tcp[i].state == kTcpEstablished && sameHost(subflows.addresses[i].local.address, local)) return true;
  }
  return false;
}

// After so many retransmissions of a join's SYN, which take six or seven seconds, something drops it. Since Linux 6.5 they are a second apart at
// first (tcp_syn_linear_timeouts), and three in a row are lost on a full line, too. Before that each waits twice as long as the last one. That
// kernel is also the first with MPTCP_FULL_INFO.
uint8_t vainJoins() { return source.load(std::memory_order_relaxed) == SubflowSource::Separate ? 3 : 5; }

// Seen on Linux 6.18: if the first subflow is reset, or its endpoint deleted, it stays in MPTCP_FULL_INFO with its addresses and last figures,
// in a closing state; a joined one leaves the list. The connection stays ESTABLISHED for net.mptcp.close_timeout and takes bytes. If a subflow
// joins within that time (an endpoint is added), it delivers them, and all goes on.
bool hasNoSubflow(int fd, uint32_t silentMs) {
  Subflows subflows;
  if (!subflows.read(fd)) return false;
  for (size_t i = 0; i < subflows.count; ++i) {
    const TcpInfo& tcp = subflows.tcp[i];
    if (tcp.state == kTcpSynSent && tcp.timeouts >= vainJoins()) continue;
    if (isAlive(tcp) && tcp.lastAckMs < silentMs) return false;
  }
  return protocolOf(fd) == Protocol::Mptcp;
}

bool isFull(int fd) {
  uint8_t info[256] = {};
  socklen_t size = sizeof info;
  return getsockopt(fd, kSolMptcp, kMptcpInfo, info, &size) == 0 && info[0] >= info[3];  // mptcpi_subflows, mptcpi_subflows_max
}

uint8_t joinedSubflows(int fd) {
  uint8_t info[256] = {};
  socklen_t size = sizeof info;
  return getsockopt(fd, kSolMptcp, kMptcpInfo, info, &size) == 0 ? info[0] : uint8_t{0};  // mptcpi_subflows
}

bool hasOnly(int fd, const Address& local) {
  // Most connections have more subflows. From Linux 6.8 on, this count tells it without reading each of them.
  constexpr socklen_t kTotal = 80;  // mptcpi_subflows_total
  uint8_t info[256] = {};
  socklen_t size = sizeof info;
  if (getsockopt(fd, kSolMptcp, kMptcpInfo, info, &size) != 0 || (size > kTotal && info[kTotal] != 1)) return false;
  const std::vector<Subflow> subflows = subflowsOf(fd);
  return subflows.size() == 1 && sameHost(subflows.front().local, local);
}

bool sharesRemoteHost(int fd) {
  Subflows subflows;
  if (!subflows.read(fd)) return false;
  for (size_t i = 0; i < subflows.count; ++i) {
    for (size_t j = 0; j < i; ++j) {
      if (sameHost(subflows.addresses[i].remote.address, subflows.addresses[j].remote.address)) return true;
    }
  }
  return false;
}

bool hasReceivedEnd(int fd) {
  pollfd ended = {fd, POLLRDHUP, 0};
  return poll(&ended, 1, 0) != 0;
}
