/** The counters of a machine with many interfaces. */
import t from 'tap'
import { createNamespace, needsRoot } from '../support/namespaces.js'

t.test('a hundred interfaces before the WAN', { skip: needsRoot }, async (t) => {
  const machine = await createNamespace(t)
  const pairs = Array.from({ length: 50 }, (_, index) => `link add veth-of-lan-${index} type veth peer name veth-of-box-${index}`)
  const wan = [
    'link add wan type veth peer name modem',
    'link set wan up',
    'link set modem up',
    'address add 10.1.0.2/24 dev wan',
  ]
  await machine.exec('sh', '-c', `printf '%s\\n' "$@" | ip -batch -`, 'sh', ...pairs, ...wan)
  const script = `
    const { readCounters } = await import(${JSON.stringify(new URL('../../src/gateway/interface-counters.ts', import.meta.url).href)})
    const before = readCounters()
    const socket = (await import('node:dgram')).createSocket('udp4')
    await new Promise((bound) => socket.bind(0, bound))
    socket.setBroadcast(true)
    await new Promise((sent) => socket.send(Buffer.alloc(1000), 9, '10.1.0.255', sent))
    socket.close()
    console.log(JSON.stringify([before.size, readCounters().get('wan').sent - before.get('wan').sent]))`
  const printed = await machine.exec(process.execPath, '--import=tsx', '--input-type=module', '-e', script)
  const [size, sent] = JSON.parse(printed)
  t.ok(size >= 103, `${size} interfaces`)
  t.ok(sent >= 1000, `${sent} bytes were sent`)
})
