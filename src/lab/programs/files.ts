/**
 * An HTTP server. `GET /<bytes>` answers with bytes that both ends can compute; a POST is answered with the body's SHA-256. Argument: the
 * port.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { Readable } from 'node:stream'
import { streamOf } from '../files.js'

async function serve(port: number): Promise<void> {
  const server = createServer((request, response) => {
    if (request.method === 'POST') {
      const hash = createHash('sha256')
      request.on('data', (data) => hash.update(data)).on('end', () => response.end(hash.digest('hex')))
      return
    }
    const bytes = Number(/^\/(\d{1,12})$/.exec(request.url ?? '')?.[1] ?? Number.NaN)
    if (Number.isNaN(bytes)) {
      response.writeHead(404).end()
      return
    }
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': bytes })
    const body = Readable.from(streamOf(bytes), { objectMode: false })
    // A client may go away at any time.
    response.on('close', () => body.destroy())
    body.pipe(response)
  })
  server.listen(port, '::')
  await once(server, 'listening')
  process.stdout.write('serving\n')
}

await serve(Number(process.argv[2]))
