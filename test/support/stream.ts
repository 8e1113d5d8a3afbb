/** Deterministic byte streams: both ends know every byte, so a lost, doubled or moved one is found where it happened. */
import { createHash } from 'node:crypto'

/** A prime number of bytes, so that no power of two (a pipe, a page, a buffer) shifts the stream onto itself. */
const period = 1_048_573
const block = (() => {
  const parts: Buffer[] = []
  for (let index = 0; index * 32 < period; index++) parts.push(createHash('sha256').update(`block ${index}`).digest())
  return Buffer.concat(parts).subarray(0, period)
})()
// Doubled, so that any slice of up to one period is one view.
const pattern = Buffer.concat([block, block])

/** Bytes `from` to `from + length` of the stream of `seed`, as a view that must not be written to; at most 1 MB. */
export function streamSlice(seed: number, from: number, length: number): Buffer {
  const start = (seed * 7919 + from) % period
  return pattern.subarray(start, start + length)
}

/** Compares a stream with what it should be, chunk by chunk. */
export class Check {
  bytes = 0
  /** Offset of the first chunk that differs. */
  differsAt: number | undefined
  private readonly hash = createHash('sha256')

  constructor(readonly seed: number) {}

  add(chunk: Buffer): void {
    if (this.differsAt === undefined && !chunk.equals(streamSlice(this.seed, this.bytes, chunk.length)))
      this.differsAt = this.bytes
    this.hash.update(chunk)
    this.bytes += chunk.length
  }

  /** True where exactly `bytes` bytes came, all of them right. */
  isIntact(bytes: number): boolean {
    return this.differsAt === undefined && this.bytes === bytes
  }

  sha256(): string {
    return this.hash.digest('hex')
  }
}

/** The checksum of the first `bytes` bytes of the stream of `seed`. */
export function streamSha256(seed: number, bytes: number): string {
  const check = new Check(seed)
  for (let at = 0; at < bytes; at += 65536) check.add(streamSlice(seed, at, Math.min(65536, bytes - at)))
  return check.sha256()
}
