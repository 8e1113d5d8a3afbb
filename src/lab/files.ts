/** Test data that both ends can compute. */
import { createCipheriv, createHash } from 'node:crypto'

const chunkBytes = 65536

/** A key stream: no two places are alike, so every lost, doubled or moved byte is noticed. */
export class KnownBytes {
  readonly #cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16))
  readonly #zeros = Buffer.alloc(chunkBytes)

  /** The next bytes, at most 64 KB. */
  next(bytes: number): Buffer {
    return this.#cipher.update(this.#zeros.subarray(0, bytes))
  }

  /** True if these are the next bytes. */
  matches(data: Buffer): boolean {
    for (let at = 0; at < data.length; at += chunkBytes) {
      const piece = data.subarray(at, at + chunkBytes)
      if (!this.next(piece.length).equals(piece)) return false
    }
    return true
  }
}

export function* streamOf(bytes: number): Generator<Buffer> {
  const known = new KnownBytes()
  for (let left = bytes; left > 0; left -= chunkBytes) yield known.next(Math.min(left, chunkBytes))
}

export function sha256Of(bytes: number): string {
  const hash = createHash('sha256')
  for (const chunk of streamOf(bytes)) hash.update(chunk)
  return hash.digest('hex')
}
