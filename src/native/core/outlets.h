// How sockets of ours leave the machine. A source address alone does not decide that: rules of others may stand before those that go by it.
#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/socket.h"

class Outlets {
 public:
  uint32_t mark = 0;

  // Source addresses and the devices that they belong to. Any thread may call these.
  void use(std::vector<std::pair<Address, std::string>> devices, bool mptcpToo) {
    const std::lock_guard<std::mutex> lock(mutex_);
    devices_ = std::move(devices);
    mptcpToo_ = mptcpToo;
  }

  Outlet of(const Address* source, bool mptcp) const {
    if (source == nullptr) return {"", mark};
    const std::lock_guard<std::mutex> lock(mutex_);
    if (mptcp && !mptcpToo_) return {"", mark};
    for (const auto& [address, device] : devices_) {
      if (sameHost(address, *source)) return {device, mark};
    }
    return {"", mark};
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::pair<Address, std::string>> devices_;
  bool mptcpToo_ = false;
};
