#include "core/route.h"

#include <errno.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include <algorithm>

namespace {
// connect(2) takes these as the loopback address, but a route lookup of 0.0.0.0 would find the default route.
bool isUnspecified(const Address& address) {
  if (address.sa.sa_family == AF_INET6) return IN6_IS_ADDR_UNSPECIFIED(&address.in6.sin6_addr);
  return address.in.sin_addr.s_addr == htonl(INADDR_ANY);
}

// An IPv6 socket reaches a v4-mapped address over IPv4.
Address unmapped(const Address& address) {
  if (address.sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address.in6.sin6_addr)) return address;
  Address four = noAddress();
  four.in.sin_family = AF_INET;
  four.in.sin_port = address.in6.sin6_port;
  memcpy(&four.in.sin_addr, address.in6.sin6_addr.s6_addr + 12, 4);
  return four;
}

template <typename Body>
struct Question {
  explicit Question(unsigned short type) {
    memset(this, 0, sizeof *this);
    header.nlmsg_len = NLMSG_LENGTH(sizeof(Body));
    header.nlmsg_type = type;
    header.nlmsg_flags = NLM_F_REQUEST;
  }

  void add(unsigned short type, const void* data, size_t size) {
    char* const at = reinterpret_cast<char*>(this) + NLMSG_ALIGN(header.nlmsg_len);
    const rtattr attribute = {static_cast<unsigned short>(RTA_LENGTH(size)), type};
    memcpy(at, &attribute, sizeof attribute);
    memcpy(at + RTA_LENGTH(0), data, size);
    header.nlmsg_len = static_cast<uint32_t>(NLMSG_ALIGN(header.nlmsg_len) + RTA_LENGTH(size));
  }

  void addHost(unsigned short type, const Address& address) {
    if (address.sa.sa_family == AF_INET6) {
      add(type, &address.in6.sin6_addr, sizeof address.in6.sin6_addr);
    } else {
      add(type, &address.in.sin_addr, sizeof address.in.sin_addr);
    }
  }

  nlmsghdr header;
  Body body;
  char attributes[64];
};

// The attribute of an answer whose body is a `Body`; null if it has none of this type and size.
template <typename Body>
const void* attributeOf(const nlmsghdr* answer, unsigned short type, size_t size) {
  size_t left = NLMSG_PAYLOAD(answer, sizeof(Body));
  const char* at = static_cast<const char*>(NLMSG_DATA(answer)) + NLMSG_ALIGN(sizeof(Body));
  while (left >= RTA_LENGTH(0)) {
    const auto* const attribute = reinterpret_cast<const rtattr*>(at);
    if (attribute->rta_len < RTA_LENGTH(0) || attribute->rta_len > left) break;
    if (attribute->rta_type == type && attribute->rta_len == RTA_LENGTH(size)) return RTA_DATA(attribute);
    const size_t length = std::min<size_t>(RTA_ALIGN(attribute->rta_len), left);
    at += length;
    left -= length;
  }
  return nullptr;
}

Route routeOf(unsigned char type) {
  switch (type) {
    case RTN_UNICAST:
      return Route::Unicast;
    case RTN_LOCAL:
      return Route::Local;
    case RTN_BROADCAST:
      return Route::Broadcast;
    case RTN_ANYCAST:
      return Route::Anycast;
    case RTN_MULTICAST:
      return Route::Multicast;
    default:
      return Route::None;
  }
}
}  // namespace

struct Routes::Answer {
  const nlmsghdr* header() const { return reinterpret_cast<const nlmsghdr*>(data); }

  alignas(nlmsghdr) char data[4096];
};

// False: errno is the kernel's answer. The kernel answers within send(2).
template <typename Question>
bool Routes::ask(Question* question, Answer* answer) {
  if (fd_ < 0) fd_ = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  nlmsghdr& header = question->header;
  header.nlmsg_seq = ++sequence_;
  if (fd_ < 0 || send(fd_, question, header.nlmsg_len, 0) != static_cast<ssize_t>(header.nlmsg_len)) return false;
  for (;;) {
    const ssize_t size = recv(fd_, answer->data, sizeof answer->data, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < static_cast<ssize_t>(NLMSG_LENGTH(0))) return false;
    if (answer->header()->nlmsg_seq != sequence_) continue;
    if (answer->header()->nlmsg_type != NLMSG_ERROR) return true;
    errno = -static_cast<const nlmsgerr*>(NLMSG_DATA(answer->header()))->error;
    return false;
  }
}

Route Routes::to(const Address& destination, int* interface) {
  const Address address = unmapped(destination);
  if (isUnspecified(address)) return Route::Local;
  Question<rtmsg> question(RTM_GETROUTE);
  question.body.rtm_family = static_cast<unsigned char>(address.sa.sa_family);
  question.body.rtm_dst_len = address.sa.sa_family == AF_INET6 ? 128 : 32;
  question.addHost(RTA_DST, address);
  // Rules may tell ports apart (FRA_DPORT_RANGE).
  const uint8_t protocol = IPPROTO_TCP;
  question.add(RTA_IP_PROTO, &protocol, sizeof protocol);
  const uint16_t port = htons(portOf(address));
  if (port != 0) question.add(RTA_DPORT, &port, sizeof port);
  Answer answer;
  errno = 0;
  if (!ask(&question, &answer)) {
    // connect(2) would fail with the same errors: unreachable, blackhole (EINVAL), prohibit.
    const bool isRefused = errno == ENETUNREACH || errno == EHOSTUNREACH || errno == EACCES || errno == EINVAL;
    return isRefused ? Route::None : Route::Unknown;
  }
  if (answer.header()->nlmsg_type != RTM_NEWROUTE) return Route::Unknown;
  const void* const leavesBy = attributeOf<rtmsg>(answer.header(), RTA_OIF, sizeof(int));
  if (interface != nullptr && leavesBy != nullptr) memcpy(interface, leavesBy, sizeof *interface);
  return routeOf(static_cast<const rtmsg*>(NLMSG_DATA(answer.header()))->rtm_type);
}

bool Routes::macOf(const Address& neighbour, int interface, uint64_t* mac) {
  constexpr size_t kMacBytes = 6;
  const Address address = unmapped(neighbour);
  Question<ndmsg> question(RTM_GETNEIGH);
  question.body.ndm_family = static_cast<unsigned char>(address.sa.sa_family);
  question.body.ndm_ifindex = interface;
  question.addHost(NDA_DST, address);
  Answer answer;
  if (!ask(&question, &answer) || answer.header()->nlmsg_type != RTM_NEWNEIGH) return false;
  const void* const found = attributeOf<ndmsg>(answer.header(), NDA_LLADDR, kMacBytes);
  *mac = 0;
  if (found != nullptr) memcpy(mac, found, kMacBytes);
  return *mac != 0;
}
