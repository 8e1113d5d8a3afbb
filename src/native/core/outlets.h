// By which device our sockets leave. Their source address alone does not decide it, because other programs' rules may stand before the rules
// that look at it.
#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/socket.h"

class Outlets {
 public:
  uint32_t mark = 0;

  // `devices`: source addresses and the device of each. Any thread may call `use` and `of`.
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
