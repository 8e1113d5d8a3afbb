// Pipes for splice(): a flow holds one only while it has bytes under way, so an idle connection costs two descriptors, not six.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

struct Pipe {
  int readEnd = -1;
  int writeEnd = -1;
  bool open() const { return readEnd >= 0; }
};

// What all workers share; read by stats() and by the descriptor limit.
struct Counters {
  std::atomic<uint64_t> connections{0};
  std::atomic<uint64_t> waiting{0};  // of them those that make room when others need it
  std::atomic<uint64_t> relaying{0};
  std::atomic<uint64_t> descriptors{0};
  std::atomic<uint64_t> pipesInUse{0};
  std::atomic<uint64_t> pipesPooled{0};
  std::atomic<int64_t> bytesParked{0};
  std::atomic<uint64_t> pipesNoticeMs{0};  // before that the owner is not told again that there were too few
};

class PipePool {
 public:
  // `descriptorLimit`: no pipe is made that would take Counters::descriptors above it, or pipes' part above a quarter of it: those whose bytes
  // nobody reads would take the places of other connections.
  PipePool(Counters* counters, uint64_t descriptorLimit) : counters_(counters), descriptorLimit_(descriptorLimit) {}
  ~PipePool();
  PipePool(const PipePool&) = delete;
  PipePool& operator=(const PipePool&) = delete;

  // A closed pipe where the descriptors ran out: the flow then goes on through `buffer`.
  Pipe take();
  // Takes an empty pipe back.
  void release(Pipe pipe);
  // Closes a pipe with bytes in it.
  void discard(Pipe pipe);
  // Whether none could be taken since this was asked last.
  bool ranOut() { return std::exchange(ranOut_, false); }
  // Nothing stays in it.
  char* buffer();
  static constexpr size_t kBufferBytes = 64 * 1024;

 private:
  Counters* counters_;
  uint64_t descriptorLimit_;
  bool ranOut_ = false;
  std::vector<Pipe> idle_;
  std::unique_ptr<char[]> buffer_;
};
