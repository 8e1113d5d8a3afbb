// How many bytes an MPTCP socket is given, so that only about as many wait in it as keep its subflows busy.
#pragma once

#include <cstdint>
#include <vector>

#include "core/crowd.h"
#include "core/mptcp_info.h"
#include "core/relay.h"

// Bytes that the subflows lack, without those that wait in the connection's own queue. -1: no bound, because there are no subflows, or because
// they are so fast that they empty the send buffer at once.
int64_t roomOf(const std::vector<Subflow>& subflows, uint64_t waiting);

// Sets the flow's `room` for this target, and keeps congestion control from pauses. To be called every few milliseconds while bytes flow.
// `peer`: connections with the same one share their paths.
void meter(Flow* flow, const Side& target, uint64_t nowMs, Crowds* crowds, const Source& peer);
