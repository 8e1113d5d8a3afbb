// A worker: one thread, one epoll, its own listening sockets, and its connections from accept to close. Each part knows only the parts that are
// declared above it.
#pragma once

#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/dialler.h"
#include "engine/fast_paths.h"
#include "engine/loop.h"
#include "engine/relays.h"
#include "engine/survey.h"
#include "listeners/acceptor.h"
#include "listeners/socks_server.h"

class Worker {
 public:
  Worker(WorkerHost* host, unsigned index);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void start();
  void stop();
  // Commands run on the worker's thread, in order.
  void command(std::function<void(Worker&)> command);

 private:
  void run();
  uint64_t dueMs() const;
  void handle(uint64_t tag, uint32_t events);
  void clientEvent(Connection* connection, uint32_t events);
  void runCommands();
  void runTimers();
  void expired(Connection* connection);

  int wake_;
  std::thread thread_;
  bool stopping_ = false;
  std::mutex mutex_;
  std::vector<std::function<void(Worker&)>> commands_;
  Loop loop_;

 public:
  // Only on the worker's thread:
  Relays relays;
  Survey survey;
  FastPaths fastPaths;
  Dialler dialler;
  SocksServer socks;
  Acceptor acceptor;
};
