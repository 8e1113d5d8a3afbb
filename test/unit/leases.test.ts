/** What DHCP clients write down, in the formats of the usual ones. */
import { appendFileSync, mkdirSync, utimesSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { parseLeases, readLeases, watchLeases } from '../../src/network/kernel/leases.js'
import { settle } from '../support/wait.js'

const dhclient = `default-duid "\\000\\001";
lease {
  interface "lte";
  fixed-address 10.2.0.2;
  option subnet-mask 255.255.255.0;
  option routers 10.2.0.1,10.2.0.254;
  renew 6 2026/11/28 21:00:00;
}
lease {
  interface "lte";
  fixed-address 10.2.0.3;
  option dhcp-lease-time 3600;
}
lease {
  interface "lte";
  fixed-address 10.2.0.77;
  option routers 10.2.0.9;
}
`
const networkd = 'ADDRESS=10.3.0.2\nNETMASK=255.255.255.0\nROUTER=10.3.0.1 10.3.0.9\n'

/** What dhcpcd keeps: a BOOTREPLY for 10.4.0.2. */
function reply(...options: number[]): Buffer {
  const head = Buffer.alloc(236)
  head.set([10, 4, 0, 2], 16)
  return Buffer.concat([head, Buffer.from([99, 130, 83, 99, ...options])])
}

t.test('formats', async (t) => {
  const parse = (content: string | Buffer) => parseLeases(Buffer.from(content))
  t.same(parse(dhclient), [
    { address: '10.2.0.2', gateway: '10.2.0.1' },
    { address: '10.2.0.77', gateway: '10.2.0.9' },
  ])
  t.same(parse(networkd), [{ address: '10.3.0.2', gateway: '10.3.0.1' }])
  t.same(parse(reply(53, 1, 5, 0, 0, 1, 4, 255, 255, 255, 0, 3, 8, 10, 4, 0, 1, 10, 4, 0, 9, 255)), [
    { address: '10.4.0.2', gateway: '10.4.0.1' },
  ])
  for (const other of ['', 'lease {', 'lease { fixed-address 999.1.1.1; option routers 10.2.0.1; }', 'ROUTER=10.3.0.1', '{}'])
    t.same(parse(other), [], other)
  for (const other of [reply(), reply(53, 1, 5), reply(3, 200, 10), reply(3), reply(53, 1, 5, 255, 3, 4, 1, 2, 3, 4)])
    t.same(parse(other), [])
})

t.test('all places, the latest last, and whatever else lies there', async (t) => {
  const root = t.testdir({})
  const files: [path: string, content: string, minute: number][] = [
    ['run/systemd/netif/leases/3', networkd, 1],
    ['var/lib/dhcp/dhclient.lte.leases', dhclient, 2],
    ['var/lib/NetworkManager/internal-1234-lte.lease', networkd.replaceAll('10.3', '10.6'), 0],
    ['var/lib/NetworkManager/secret_key', '\0\0', 3],
  ]
  for (const [path, content, minute] of files) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), content)
    utimesSync(join(root, path), 60 * minute, 60 * minute)
  }
  mkdirSync(join(root, 'var/lib/dhcpcd/folder'), { recursive: true })
  t.same(
    (await readLeases(root)).map(({ gateway }) => gateway),
    ['10.6.0.1', '10.3.0.1', '10.2.0.1', '10.2.0.9'],
  )
  t.same(await readLeases(join(root, 'nowhere')), [])
})

t.test('one that is written is told, because dhclient writes it after all that the kernel reports', async (t) => {
  const root = t.testdir({ var: { lib: { dhcp: { 'dhclient.lte.leases': '' } } } })
  const stop = new AbortController()
  let changes = 0
  const watching = watchLeases(() => changes++, stop.signal, root)
  const isTold = async (write: () => void) => {
    const before = changes
    write()
    await settle(
      () => changes,
      (now) => now > before,
      2000,
    )
    t.ok(changes > before)
  }
  // The watch begins a moment later.
  await new Promise((resolve) => setTimeout(resolve, 100))
  await isTold(() => appendFileSync(join(root, 'var/lib/dhcp/dhclient.lte.leases'), dhclient))
  await isTold(() => writeFileSync(join(root, 'var/lib/dhcp/dhclient.dsl.leases'), dhclient))
  stop.abort()
  await watching
  await watchLeases(() => {}, new AbortController().signal, join(root, 'nowhere'))
})
