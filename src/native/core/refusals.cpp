#include "core/refusals.h"

namespace {
// An address costs 100 bytes here. All sources beyond these are counted together.
constexpr size_t kRememberedSources = 256;
}  // namespace

bool Refusals::add(RefusalCause cause, const Address& client, const Address& destination) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto known = all_.find({cause, sourceOf(client)});
  if (known != all_.end()) {
    ++known->second.count;
  } else if (all_.size() < kRememberedSources) {
    all_[{cause, sourceOf(client)}] = {cause, client, destination, 1};
  } else {
    Refusal& others = others_[cause];
    others = {cause, noAddress(), noAddress(), others.count + 1};
  }
  return count_++ == 0;
}

std::vector<Refusal> Refusals::take() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Refusal> taken;
  for (const auto& entry : all_) taken.push_back(entry.second);
  for (const auto& entry : others_) taken.push_back(entry.second);
  all_.clear();
  others_.clear();
  count_ = 0;
  return taken;
}
