#include "core/pipe_pool.h"

#include <fcntl.h>
#include <unistd.h>

namespace {
// Holds the burst of one turn at 1 Gbit/s, and less than a second of a DSL line.
constexpr int kPipeBytes = 256 * 1024;
constexpr size_t kIdlePipes = 32;
}  // namespace

PipePool::~PipePool() {
  for (const Pipe& pipe : idle_) {
    close(pipe.readEnd);
    close(pipe.writeEnd);
  }
  counters_->pipesPooled -= idle_.size();
  counters_->descriptors -= 2 * idle_.size();
}

Pipe PipePool::take() {
  if (!idle_.empty()) {
    const Pipe pipe = idle_.back();
    idle_.pop_back();
    --counters_->pipesPooled;
    ++counters_->pipesInUse;
    return pipe;
  }
  const uint64_t pipes = counters_->pipesInUse + counters_->pipesPooled;
  int ends[2];
  ranOut_ = 2 * (pipes + 1) > descriptorLimit_ / 4 || counters_->descriptors + 2 > descriptorLimit_ || pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0;
  if (ranOut_) return {};
  // Best effort: without CAP_SYS_RESOURCE, pipes stay small if the user's exceed pipe-user-pages-soft (pipe(7)).
  fcntl(ends[1], F_SETPIPE_SZ, kPipeBytes);
  counters_->descriptors += 2;
  ++counters_->pipesInUse;
  return {ends[0], ends[1]};
}

void PipePool::release(Pipe pipe) {
  if (idle_.size() >= kIdlePipes) {
    discard(pipe);
    return;
  }
  idle_.push_back(pipe);
  --counters_->pipesInUse;
  ++counters_->pipesPooled;
}

void PipePool::discard(Pipe pipe) {
  close(pipe.readEnd);
  close(pipe.writeEnd);
  // In this order, so that another thread never sees more pipes than descriptors.
  --counters_->pipesInUse;
  counters_->descriptors -= 2;
}

char* PipePool::buffer() {
  if (buffer_ == nullptr) buffer_.reset(new char[kBufferBytes]);
  return buffer_.get();
}
