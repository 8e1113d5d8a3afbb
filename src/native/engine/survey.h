// What concerns all connections of a worker at once: inspections, resets when a WAN or a HAG is lost, and a slow sweep.
#pragma once

#include <vector>

#include "engine/relays.h"

class Survey {
 public:
  Survey(WorkerHost* host, Loop* loop, Relays* relays) : host_(host), loop_(loop), relays_(relays) {}

  uint64_t resetConnectionsTo(const Address& remote);
  uint64_t resetStranded();
  uint64_t countOnly(const Address& source, uint64_t olderThanMs);
  void watchConnectionsTo(const Address& remote, bool closely);
  std::vector<Inspection> inspect(const std::vector<ConnectionId>& ids);
  std::vector<Inspection> inspectBusy(const Busy& wanted);

  uint64_t nextSweepMs() const { return relays_->all().empty() ? UINT64_MAX : nextSweep_; }
  void sweepNow() { nextSweep_ = loop_->now(); }
  void sweepIdle();

 private:
  void askAboutOldSubflows(Connection* connection);
  std::vector<Inspection> inspect(const std::vector<Connection*>& connections) const;

  WorkerHost* host_;
  Loop* loop_;
  Relays* relays_;
  uint64_t nextSweep_ = 0;
};
