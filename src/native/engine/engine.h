// The engine: its workers, and one queue of events for the owner. No policy, no retries, no texts for people.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/worker.h"

struct EngineOptions {
  unsigned workers = 1;
  uint64_t maxConnections = 0;
  uint64_t idleTimeoutMs = 0;
  uint64_t handshakeTimeoutMs = 0;
  uint64_t decisionTimeoutMs = 60000;
  uint64_t maxConnectionsPerClient = 0;  // 0: no limit
  int64_t bufferMemory = 0;              // 0: no limit
  uint32_t mark = 0;                     // SO_MARK of all sockets that it opens; 0: none
};

struct ListenOptions {
  ListenerKind kind = ListenerKind::Redirect;
  Address address;
  bool authentication = false;
  std::shared_ptr<const std::vector<AddressRange>> clients;  // null: everyone is a client
  bool refusesLoops = false;
};

class Engine : private WorkerHost {
 public:
  // `notify` is called on a worker's thread when events wait; then not again until takeEvents().
  Engine(const EngineOptions& options, std::function<void()> notify);
  ~Engine() override;

  std::vector<Event> takeEvents();
  std::vector<Refusal> takeRefusals() { return refusals.take(); }
  // Returns the address that was bound, or the failure.
  bool listen(const ListenOptions& options, Address* bound, Protocol* protocol, Failure* failure);
  void stopListening();
  void setFastPath(const std::shared_ptr<const FastPath>& fastPath);  // null: none
  void dial(ConnectionId id, DialSpec spec, uint32_t number = 0);
  void authenticate(ConnectionId id, bool accepted);
  void refuse(ConnectionId id, uint8_t reply);
  void reset(ConnectionId id);
  void probe(uint64_t id, DialSpec spec, Purpose purpose = Purpose::Probe);
  PreparedPool::Kept keepPrepared(const std::vector<DialSpec>& specs, uint64_t max, uint64_t maxAgeMs);
  void useDevices(std::vector<std::pair<Address, std::string>> devices, bool mptcpToo) { outlets.use(std::move(devices), mptcpToo); }
  void abandon(const Address& source);
  // The answer is an event with the count.
  void resetConnectionsTo(uint64_t id, const Address& remote);
  void resetStranded(uint64_t id);
  void countOnly(uint64_t id, const Address& source, uint64_t olderThanMs);
  void watchConnectionsTo(const Address& remote, bool closely);
  void setKeepalive(int seconds);
  void inspect(uint64_t id, std::vector<ConnectionId> connections);
  void inspectBusy(uint64_t id, Busy wanted);
  const Counters& counters() const { return WorkerHost::counters; }
  void close();

 private:
  void post(std::vector<Event>* events) override;
  void pausedAccepting(LimitCause cause) override;
  void resumedAccepting() override;
  void tooMany(unsigned worker) override;
  void postOne(Event event);
  void announceLimit(bool limited, std::unique_lock<std::mutex> lock);
  Worker* workerOf(ConnectionId id);
  void inspectAll(uint64_t id, const std::function<std::vector<Inspection>(Worker&)>& look);
  void countAll(uint64_t id, const std::function<uint64_t(Worker&)>& act);

  std::function<void()> notify_;
  std::mutex mutex_;
  std::vector<Event> events_;
  bool notified_ = false;
  unsigned paused_ = 0;
  LimitCause pauseCause_ = LimitCause::Connections;
  std::vector<std::unique_ptr<Worker>> workers_;
};
