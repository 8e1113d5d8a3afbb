// Pipes for splice(2). A flow holds one only while bytes are in it, so an idle connection costs two descriptors, not six.
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

// Shared by all workers, for stats() and the limits.
struct Counters {
  std::atomic<uint64_t> connections{0};
  std::atomic<uint64_t> waiting{0};  // those of `connections` that make room if others need it
  std::atomic<uint64_t> relaying{0};
  std::atomic<uint64_t> descriptors{0};
  std::atomic<uint64_t> pipesInUse{0};
  std::atomic<uint64_t> pipesPooled{0};
  std::atomic<int64_t> bytesParked{0};
  std::atomic<uint64_t> activeMs{0};       // when a client came or a byte of payload moved last
  std::atomic<uint64_t> pipesNoticeMs{0};  // until then the owner is not told again that pipes ran out
};

class PipePool {
 public:
  // No pipe is made that would bring Counters::descriptors above `descriptorLimit`, or the pipes' share above a quarter of it: otherwise pipes
  // whose bytes nobody reads would leave no descriptors for other connections.
  PipePool(Counters* counters, uint64_t descriptorLimit) : counters_(counters), descriptorLimit_(descriptorLimit) {}
  ~PipePool();
  PipePool(const PipePool&) = delete;
  PipePool& operator=(const PipePool&) = delete;

  // Returns a closed pipe if descriptors ran out; then the flow goes on through `buffer`.
  Pipe take();
  // Takes an empty pipe back.
  void release(Pipe pipe);
  // Closes a pipe with bytes in it.
  void discard(Pipe pipe);
  // Whether `take` failed since the last call.
  bool ranOut() { return std::exchange(ranOut_, false); }
  // For one call; nothing may stay in it.
  char* buffer();
  static constexpr size_t kBufferBytes = 64 * 1024;

 private:
  Counters* counters_;
  uint64_t descriptorLimit_;
  bool ranOut_ = false;
  std::vector<Pipe> idle_;
  std::unique_ptr<char[]> buffer_;
};
