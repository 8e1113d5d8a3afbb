/** What only a kernel with two paths or a firewall can show of redirected clients: where they wanted to go, and who is served how. */
import t from 'tap'
import { type Agent, startAgent } from '../support/agent.js'
import { needsAddon, specTo } from '../support/engine.js'
import { echoPort, events, portOf, startChild, twoPaths } from '../support/engine-paths.js'
import { settle, sleep } from '../support/hybrid.js'
import { connect, createNamespace, needsRoot } from '../support/namespaces.js'

t.test('REDIRECT: the original destination, IPv4 and IPv6', { skip: needsRoot || needsAddon }, async (t) => {
  const { cpe, client } = await twoPaths(t)
  for (const { tool, address, destination, via } of [
    { tool: 'iptables', address: '127.0.0.1', destination: '192.0.2.9', via: '10.0.1.2' },
    { tool: 'ip6tables', address: '::1', destination: '2001:db8:9::9', via: '2001:db8:1::2' },
  ]) {
    await cpe.exec('ip', 'route', 'add', destination, 'via', via)
    const spec = specTo({ address: via, port: echoPort })
    const child = startChild(t, cpe, { listen: { kind: 'redirect', address, port: 0 }, spec })
    const port = await portOf(child)
    const match = ['-p', 'tcp', '-d', destination, '--dport', '443']
    await cpe.exec(tool, '-w', '-t', 'nat', '-A', 'OUTPUT', ...match, '-j', 'REDIRECT', '--to-ports', String(port))
    t.match(await client.call('talk', { host: destination, port: 443 }, 'hello', 5), { received: 'hello' }, tool)
    const accepted = (count: number) =>
      settle(
        () => events(child).filter(({ type }) => type === 'accepted'),
        ({ length }) => length === count,
      )
    t.match((await accepted(1))[0], {
      type: 'accepted',
      destination: { address: destination, port: 443 },
      local: { address, port },
    })
    // Straight to the listener: nothing was redirected, which is how a caller knows a loop.
    await client.call('talk', { host: address, port }, 'hello', 5)
    t.match((await accepted(2))[1], { destination: { address, port }, local: { address, port } })
    await child.end('SIGKILL')
  }
})

t.test(
  'a router prohibits what a HAG has begun to read: that is no refusal of the HAG',
  { skip: needsRoot || needsAddon },
  async (t) => {
    const { cpe, hag, client } = await twoPaths(t)
    const host = '2001:db8:1::2'
    const port = 9001
    await (await startAgent(t, hag)).call('sink', port)
    await cpe.exec('sysctl', '-qw', 'net.ipv4.tcp_retries2=2')
    // Its acknowledgements are lost.
    const acknowledges = ['-p', 'tcp', '--sport', String(port), '--tcp-flags', 'SYN,ACK', 'ACK']
    await hag.exec('ip6tables', '-w', '-A', 'OUTPUT', ...acknowledges, '-j', 'DROP')
    const socks = { host: '192.0.2.9', port: 80, handshake: 'pipelined', timeoutMs: 15_000 } as const
    const spec = { ...specTo({ address: host, port }), socks }
    const child = startChild(t, cpe, { listen: { kind: 'redirect', address: '127.0.0.1', port: 0 }, spec })
    const talk = client.call('talk', { host: '127.0.0.1', port: await portOf(child) }, 'pay ten')
    await settle(
      async () => (await hag.exec('ss', '-Htn', 'state', 'established', 'sport', '=', `:${port}`)).trim(),
      (text) => text !== '',
    )
    await sleep(100)
    const words = ['-p', 'tcp', '--dport', String(port)]
    await cpe.exec('ip6tables', '-w', '-A', 'OUTPUT', ...words, '-j', 'REJECT', '--reject-with', 'icmp6-adm-prohibited')
    t.match(await talk, { ending: 'ECONNRESET' }, 'only the client knows whether that may be said again')
    // The child says so a moment after it has reset the client.
    const failed = await settle(
      () => events(child).find(({ type }) => type === 'failed'),
      (event) => event !== undefined,
    )
    t.match(failed, { stage: 'greeting', failure: { code: 'EACCES', syscall: 'recv' }, early: 7 })
  },
)

t.test('what would come back to us gets a RST, without an event of its own', { skip: needsRoot || needsAddon }, async (t) => {
  const { cpe, hag, client } = await twoPaths(t)
  const lan = await startAgent(t, hag)
  await hag.exec('ip', 'route', 'add', '198.51.100.0/24', 'via', '10.0.1.1')
  // Whole networks of ours, which no interface has (AnyIP), and an address without carrier.
  await cpe.exec('ip', 'route', 'add', 'local', '198.51.100.0/25', 'dev', 'lo')
  await cpe.exec('ip', 'link', 'set', 'wan2', 'up')
  await hag.exec('ip', 'link', 'set', 'wan2', 'down')
  const spec = specTo({ address: '10.0.1.2', port: echoPort })
  const child = startChild(t, cpe, { listen: { kind: 'redirect', address: '0.0.0.0', port: 0, refuseLoops: true }, spec })
  const port = await portOf(child)
  const toUs = ['-p', 'tcp', '-j', 'REDIRECT', '--to-ports', String(port)]
  await cpe.exec('iptables', '-w', '-t', 'nat', '-A', 'PREROUTING', '-i', 'wan1', ...toUs)
  await cpe.exec('iptables', '-w', '-t', 'nat', '-A', 'OUTPUT', '-d', '192.0.2.9', ...toUs)
  await cpe.exec('ip', 'route', 'add', '192.0.2.9', 'via', '10.0.1.2')

  t.match(await lan.call('talk', { host: '198.51.100.200', port: 443 }, 'hello', 5), { received: 'hello' }, 'a client')
  t.match(await lan.call('talk', { host: '198.51.100.200', port }, 'hello', 5), { received: 'hello' }, 'to such a port elsewhere')
  const served = () => events(child).filter(({ type }) => type === 'accepted').length
  t.equal(await settle(served, (count) => count === 2), 2)
  const isReset = async (agent: Agent, host: string, port: number, what: string) => {
    const { received } = (await agent.call('talk', { host, port }, 'hello', 5)) as { received: string }
    t.equal(received, '', what)
  }
  await isReset(lan, '10.0.1.1', port, 'to the listener')
  await isReset(lan, '198.51.100.7', port, 'to the listener by a local route')
  await isReset(lan, '10.0.2.1', port, 'to the listener by an address without carrier')
  await isReset(client, '192.0.2.9', 443, 'our own connection')
  t.equal(served(), 2)
  for (const cause of ['not-redirected', 'loop']) await child.waitFor(new RegExp(`"cause":"${cause}"`))
  await child.end('SIGKILL')
})

t.test('a device has one share for all its addresses', { skip: needsRoot || needsAddon }, async (t) => {
  const { cpe, hag: device } = await twoPaths(t)
  await device.exec('ip', 'address', 'add', '2001:db8:1::3/64', 'dev', 'wan1', 'nodad')
  const other = await createNamespace(t, 'other')
  const peer = ['link', 'wan1', 'name', 'lan', 'netns', other.name, 'type', 'macvlan', 'mode', 'bridge']
  await device.exec('ip', 'link', 'add', ...peer)
  await other.exec('ip', 'address', 'add', '2001:db8:1::4/64', 'dev', 'lan', 'nodad')
  await other.exec('ip', 'link', 'set', 'lan', 'up')
  // Two behind it, as behind another router: what is no neighbour is told apart by its network.
  await other.exec('sysctl', '-qw', 'net.ipv6.conf.all.forwarding=1')
  const behind = await createNamespace(t, 'behind')
  await connect(
    { namespace: other, device: 'below', addresses: ['2001:db8:7::1/64', '2001:db8:8::1/64'] },
    { namespace: behind, device: 'up', addresses: ['2001:db8:7::2/64', '2001:db8:7::3/64', '2001:db8:8::2/64'] },
  )
  await behind.exec('ip', 'route', 'add', 'default', 'via', '2001:db8:7::1')
  for (const network of [7, 8]) await cpe.exec('ip', 'route', 'add', `2001:db8:${network}::/64`, 'via', '2001:db8:1::4')
  const spec = specTo({ address: '10.0.1.2', port: echoPort })
  const listen = { kind: 'redirect', address: '2001:db8:1::1', port: 0 } as const
  const child = startChild(t, cpe, { options: { maxConnectionsPerClient: 4 }, listen, spec })
  const target = { host: '2001:db8:1::1', port: await portOf(child) }
  const hello = async (agent: Agent, host: number | string, received: string, what: string) =>
    t.match(await agent.call('talk', { ...target, localAddress: `2001:db8:${host}` }, 'hello', 5), { received }, what)
  const [greedy, neighbour, distant] = await Promise.all([device, other, behind].map((one) => startAgent(t, one)))
  t.equal(await greedy?.call('hold', { ...target, localAddress: '2001:db8:1::2' }, 4), 4)
  await hello(greedy as Agent, '1::2', '', 'one above its share')
  await hello(greedy as Agent, '1::3', '', 'and by another address')
  await hello(neighbour as Agent, '1::4', 'hello', 'another device of the same network')
  t.equal(await distant?.call('hold', { ...target, localAddress: '2001:db8:7::2' }, 4), 4)
  await hello(distant as Agent, '7::3', '', 'another address of a network behind a router')
  await hello(distant as Agent, '8::2', 'hello', 'another network behind it')
  await hello(neighbour as Agent, '1::4', 'hello', 'the router itself')
  await child.end('SIGKILL')
})

t.test('the fast path: clients who need no decision, and those who do', { skip: needsRoot || needsAddon }, async (t) => {
  const { cpe, hag, client } = await twoPaths(t)
  await (await startAgent(t, hag)).call('echo', 443)
  const hagChild = startChild(t, hag, { listen: { kind: 'socks', address: '10.0.1.2', port: 0 } })
  const remote = { address: '10.0.1.2', port: await portOf(hagChild) }
  const nobody = { address: '10.0.1.2', port: 9 }
  for (const { tool, address, plain, excepted } of [
    {
      tool: 'iptables',
      address: '127.0.0.1',
      plain: '192.0.2.9',
      excepted: { address: '192.0.2.129', network: { address: '192.0.2.128', bits: 25 } },
    },
    {
      tool: 'ip6tables',
      address: '::1',
      plain: '2001:db8:9::9',
      excepted: { address: '2001:db8:9::8001', network: { address: '2001:db8:9::8000', bits: 113 } },
    },
  ]) {
    for (const to of [plain, excepted.address]) {
      await hag.exec('ip', 'address', 'add', `${to}/${tool === 'iptables' ? 32 : 128}`, 'dev', 'lo', 'nodad')
      await cpe.exec('ip', 'route', 'add', to, 'via', tool === 'iptables' ? '10.0.1.2' : '2001:db8:1::2')
    }
    for (const isThere of [true, false]) {
      const socks = { handshake: 'pipelined', timeoutMs: 5000 } as const
      const fastPath = {
        id: 5,
        protocol: 'tcp' as const,
        remote: isThere ? remote : nobody,
        connectTimeoutMs: 5000,
        patienceMs: 3000,
        socks,
        askAboutDestinations: [excepted.network],
      } as const
      const spec = { ...fastPath, remote, socks: { ...socks, host: '10.0.1.2', port: 443 } }
      const child = startChild(t, cpe, { listen: { kind: 'redirect', address, port: 0 }, spec, fastPath })
      const port = await portOf(child)
      const redirect = ['OUTPUT', '-p', 'tcp', '--dport', '443', '-j', 'REDIRECT', '--to-ports', String(port)]
      await cpe.exec(tool, '-w', '-t', 'nat', '-A', ...redirect)
      for (const to of [plain, excepted.address]) {
        t.match(await client.call('talk', { host: to, port: 443 }, 'hello', 5), { received: 'hello' }, `${to} ${isThere}`)
      }
      const seen = await settle(
        () => events(child),
        (all) => all.filter(({ type }) => type === 'closed').length === 2,
      )
      const accepted = seen.flatMap((event) => (event.type === 'accepted' ? [event] : []))
      const asked = { destination: { address: excepted.address, port: 443 }, viaFastPath: undefined }
      const failed = { destination: { address: plain, port: 443 }, viaFastPath: { id: 5, timedOut: false } }
      t.match(accepted, isThere ? [asked] : [failed, asked])
      t.equal(accepted.length, isThere ? 1 : 2)
      // Each has one end, and what the fast path served is told of as well.
      const closed = seen.flatMap((event) => (event.type === 'closed' ? [event] : []))
      const end = (to: string) => closed.find(({ destination }) => destination?.address === to)
      t.match(end(plain), { fastPath: isThere ? 5 : undefined, reason: 'end', sent: 5, received: 5 })
      t.match(end(excepted.address), { fastPath: undefined, reason: 'end', sent: 5, received: 5 })
      await cpe.exec(tool, '-w', '-t', 'nat', '-D', ...redirect)
      await child.end('SIGKILL')
    }
  }
})
