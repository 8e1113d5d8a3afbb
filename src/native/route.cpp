#include "route.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>

namespace {
// `connect` takes these for the loopback address, where a route of 0.0.0.0 would be the default one.
bool isUnspecified(const Address& address) {
  if (address.sa.sa_family == AF_INET6) return IN6_IS_ADDR_UNSPECIFIED(&address.in6.sin6_addr);
  return address.in.sin_addr.s_addr == htonl(INADDR_ANY);
}

// A socket of IPv6 connects to a v4-mapped address by IPv4.
Address unmapped(const Address& address) {
  if (address.sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address.in6.sin6_addr)) return address;
  Address four = noAddress();
  four.in.sin_family = AF_INET;
  four.in.sin_port = address.in6.sin6_port;
  memcpy(&four.in.sin_addr, address.in6.sin6_addr.s6_addr + 12, 4);
  return four;
}

struct Question {
  nlmsghdr header;
  rtmsg route;
  char attributes[64];

  void add(unsigned short type, const void* data, size_t size) {
    char* const at = reinterpret_cast<char*>(this) + NLMSG_ALIGN(header.nlmsg_len);
    const rtattr attribute = {static_cast<unsigned short>(RTA_LENGTH(size)), type};
    memcpy(at, &attribute, sizeof attribute);
    memcpy(at + RTA_LENGTH(0), data, size);
    header.nlmsg_len = static_cast<uint32_t>(NLMSG_ALIGN(header.nlmsg_len) + RTA_LENGTH(size));
  }
};

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

bool Routes::ask(const Address& address) {
  Question question;
  memset(&question, 0, sizeof question);
  question.header.nlmsg_len = NLMSG_LENGTH(sizeof(rtmsg));
  question.header.nlmsg_type = RTM_GETROUTE;
  question.header.nlmsg_flags = NLM_F_REQUEST;
  question.header.nlmsg_seq = ++sequence_;
  question.route.rtm_family = static_cast<unsigned char>(address.sa.sa_family);
  if (address.sa.sa_family == AF_INET6) {
    question.route.rtm_dst_len = 128;
    question.add(RTA_DST, &address.in6.sin6_addr, sizeof address.in6.sin6_addr);
  } else {
    question.route.rtm_dst_len = 32;
    question.add(RTA_DST, &address.in.sin_addr, sizeof address.in.sin_addr);
  }
  // Rules may tell ports apart (FRA_DPORT_RANGE).
  const uint8_t protocol = IPPROTO_TCP;
  question.add(RTA_IP_PROTO, &protocol, sizeof protocol);
  const uint16_t port = htons(portOf(address));
  if (port != 0) question.add(RTA_DPORT, &port, sizeof port);
  return send(fd_, &question, question.header.nlmsg_len, 0) == static_cast<ssize_t>(question.header.nlmsg_len);
}

// The kernel answers within send().
Route Routes::answer() {
  alignas(nlmsghdr) char data[4096];
  for (;;) {
    const ssize_t size = recv(fd_, data, sizeof data, MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < static_cast<ssize_t>(NLMSG_LENGTH(0))) return Route::Unknown;
    const auto* const header = reinterpret_cast<const nlmsghdr*>(data);
    if (header->nlmsg_seq != sequence_) continue;
    if (header->nlmsg_type == RTM_NEWROUTE) return routeOf(reinterpret_cast<const rtmsg*>(NLMSG_DATA(header))->rtm_type);
    if (header->nlmsg_type != NLMSG_ERROR) continue;
    errno = -reinterpret_cast<const nlmsgerr*>(NLMSG_DATA(header))->error;
    // What these say is what connect() would: unreachable, blackhole (EINVAL), prohibit.
    const bool isRefused = errno == ENETUNREACH || errno == EHOSTUNREACH || errno == EACCES || errno == EINVAL;
    return isRefused ? Route::None : Route::Unknown;
  }
}

Route Routes::to(const Address& wanted) {
  const Address address = unmapped(wanted);
  if (isUnspecified(address)) return Route::Local;
  if (fd_ < 0) fd_ = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd_ < 0 || !ask(address)) return Route::Unknown;
  return answer();
}
