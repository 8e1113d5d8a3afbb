/** Bytes that both ends can compute, and, run as a program, an HTTP server of them: `GET /<bytes>`, on the port given. */
import { createCipheriv, createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'

const chunkBytes = 65536

/** A key stream: no two places are alike, so a lost, doubled or moved byte changes what is read. */
export class KnownBytes {
  readonly #cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, 1), Buffer.alloc(16))
  readonly #zeros = Buffer.alloc(chunkBytes)

  /** The next bytes of it, at most 64 KB. */
  next(bytes: number): Buffer {
    return this.#cipher.update(this.#zeros.subarray(0, bytes))
  }

  /** True where these are the next bytes. */
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

async function serve(port: number): Promise<void> {
  const server = createServer((request, response) => {
    const bytes = Number(/^\/(\d{1,12})$/.exec(request.url ?? '')?.[1] ?? Number.NaN)
    if (Number.isNaN(bytes)) {
      response.writeHead(404).end()
      return
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes })
    const body = Readable.from(streamOf(bytes), { objectMode: false })
    // A client that went away is its own business.
    response.on('close', () => body.destroy())
    body.pipe(response)
  })
  server.listen(port, '::')
  await once(server, 'listening')
  process.stdout.write('serving\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await serve(Number(process.argv[2]))
