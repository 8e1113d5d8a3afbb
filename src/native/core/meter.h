// How much an MPTCP socket is given, so that what waits in it for its subflows is near what keeps them busy.
#pragma once

#include <cstdint>
#include <vector>

#include "core/crowd.h"
#include "core/mptcp_info.h"
#include "core/relay.h"

// Bytes that they lack, beside those that wait for all of them; -1: no bound, where there are none, or where they are so fast that what the
// send buffer holds is gone in no time.
int64_t roomOf(const std::vector<Subflow>& subflows, uint64_t waiting);

// Sets the flow's `room` for this target, and keeps congestion control from pauses. To be called every few milliseconds while bytes flow.
// `peer`: connections with the same one share their paths.
void meter(Flow* flow, const Side& target, uint64_t nowMs, Crowds* crowds, const Source& peer);
