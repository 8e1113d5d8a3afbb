/** Whatever ends `run`, clients go straight to their servers within a second, and the machine is as it was found. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, existsSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ports, settle, sleep, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { bondsocks, cleanEnvironment, type Program, start } from '../support/process.js'
import { snapshot, stillness } from '../support/snapshot.js'

const commandOf = (pid: string) => {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').join(' ')
  } catch {
    return ''
  }
}

/** Programs of ours in the CPE's namespace. */
function programs(world: World): string[] {
  const pids = execFileSync('ip', ['netns', 'pids', world.lab.hosts.cpe ?? ''], { encoding: 'utf8' }).split('\n')
  return pids.filter((pid) => /bondsocks|dist\/main\.js|ip -o monitor|nft monitor|ip -batch/.test(commandOf(pid)))
}

/**
 * Milliseconds until a new client gets to the server without the gateway. One after the other begins, whatever became of the one before: a
 * SYN that meets a listener which is just being closed is dropped, and comes again after a second.
 */
async function untilDirect(world: World, gateway: Program): Promise<number> {
  const startedAt = performance.now()
  let ms = 20_000
  const begin = async (hasEnded: boolean) => {
    const { received } = await world.client.call('talk', { host: world.lab.addresses.server, port: ports.greeter }, '', 1)
    if (hasEnded && received.startsWith('220')) ms = Math.min(ms, performance.now() - startedAt)
  }
  const clients = []
  while (performance.now() - startedAt < ms) {
    clients.push(begin(!gateway.running))
    await sleep(10)
  }
  await Promise.all(clients)
  return ms
}

t.test('ends of every kind', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false, gateway: { on_hag_down: 'reject' } })
  await world.startHag()
  const cpe = world.execute('cpe')
  const before = await stillness(cpe)
  const asBefore = async (t: Test, what: string) => {
    const after = await settle(
      async () => (programs(world).length === 0 ? await snapshot(cpe) : 'programs are left'),
      (text) => text === before,
    )
    t.equal(after, before, `${what}: the network is as before`)
    t.same(programs(world).map(commandOf), [], `${what}: nothing is left running`)
  }

  const signals = ['SIGKILL', 'SIGSEGV', 'SIGABRT', 'SIGQUIT', 'SIGALRM', 'SIGUSR2', 'SIGBUS'] as const
  for (const signal of signals) {
    t.test(signal, async (t) => {
      const gateway = await world.startGateway()
      t.not(await snapshot(cpe), before)
      await world.client.call('hold', { host: world.lab.addresses.server, port: ports.echo }, 5)
      gateway.kill(signal)
      const ms = await untilDirect(world, gateway)
      t.comment(`direct after ${ms.toFixed(0)} ms`)
      t.ok(ms < 1000, `direct after ${ms.toFixed(0)} ms`)
      await gateway.exited
      await asBefore(t, signal)
      t.match(gateway.output, /bondsocks: the gateway ended unexpectedly: clients go straight to their servers/)
      await world.client.call('release', 'rst')
    })
  }

  t.test('an orderly end needs no guardian', async (t) => {
    const gateway = await world.startGateway()
    t.same(await gateway.end(), { code: 0, signal: null })
    t.notMatch(gateway.output, /ended unexpectedly|guardian/)
    await asBefore(t, 'SIGTERM')
  })

  t.test('SIGHUP and SIGUSR1 do no harm', async (t) => {
    const gateway = await world.startGateway()
    for (const signal of ['SIGHUP', 'SIGUSR1'] as const) gateway.kill(signal)
    await gateway.waitFor(/SIGHUP is ignored/)
    await sleep(300)
    t.ok(gateway.running)
    t.notMatch(gateway.output, /[Dd]ebugger/)
    t.notMatch(await cpe('ss', '-ltnH'), /:9229\b/)
    t.same(await gateway.end(), { code: 0, signal: null })
    await asBefore(t, 'and then SIGTERM')
  })

  /** With something at fault in it, which a signal sets off. */
  const faulty = async (fault: string): Promise<Program> => {
    const argv = bondsocks('run', '-c', world.config('gateway'))
    const code = `process.on('SIGUSR2', () => { ${fault} })`
    const gateway = start(
      t,
      world.lab.argv(
        'cpe',
        argv.toSpliced(argv.indexOf(process.execPath) + 1, 0, '--import', `data:text/javascript,${encodeURIComponent(code)}`),
      ),
    )
    await gateway.waitFor(/gateway runs/)
    return gateway
  }

  t.test('a fault in a forgotten promise is logged', async (t) => {
    const gateway = await faulty("Promise.reject(new Error('forgotten'))")
    gateway.kill('SIGUSR2')
    await gateway.waitFor(/"error".*unexpected error in what nobody waits for: forgotten/)
    t.match(await world.client.call('talk', { host: world.lab.addresses.server, port: ports.greeter }, '', 1), { ending: 'open' })
    t.same(await gateway.end(), { code: 0, signal: null })
    await asBefore(t, 'and then SIGTERM')
  })

  t.test('an uncaught exception ends it in good order', async (t) => {
    const gateway = await faulty("setImmediate(() => { throw new Error('nobody caught me') })")
    gateway.kill('SIGUSR2')
    t.same(await gateway.exited, { code: 1, signal: null })
    t.match(gateway.output, /"error".*the end follows: nobody caught me.*network is as before/s)
    t.match(gateway.output, /^bondsocks: unexpected error: nobody caught me/m)
    t.notMatch(gateway.output, /ended unexpectedly/)
    await asBefore(t, 'exit')
  })

  t.test('memory that cannot be had', async (t) => {
    // What a bad_alloc in the addon becomes, and V8's own end for want of memory.
    const gateway = await faulty('process.abort()')
    gateway.kill('SIGUSR2')
    const ms = await untilDirect(world, gateway)
    t.ok(ms < 1000, `direct after ${ms.toFixed(0)} ms`)
    await gateway.exited
    await asBefore(t, 'abort')
  })

  t.test('process.exit in the middle of all', async (t) => {
    const gateway = await faulty('process.exit(3)')
    gateway.kill('SIGUSR2')
    const ms = await untilDirect(world, gateway)
    t.ok(ms < 1000, `direct after ${ms.toFixed(0)} ms`)
    await gateway.exited
    await asBefore(t, 'exit')
  })

  t.test('handed on to the next one, which begins at once', async (t) => {
    const first = await world.startGateway()
    first.kill('SIGKILL')
    const second = await world.startGateway()
    await first.exited
    t.match(await world.client.call('talk', { host: world.lab.addresses.server, port: ports.greeter }, '', 1), { ending: 'open' })
    // The first one's guardian has been done before.
    await sleep(1000)
    t.match(await cpe('iptables-save', '-t', 'nat'), /-A BONDSOCKS -i br0 -p tcp -j REDIRECT/)
    t.same((await world.endpoints()).length, 2)
    t.same(await second.end(), { code: 0, signal: null })
    await asBefore(t, 'and then SIGTERM')
  })

  t.test('a guardian that is killed is replaced', async (t) => {
    const gateway = await world.startGateway()
    const guardian = () => programs(world).find((pid) => /bondsocks-guardian/.test(commandOf(pid)))
    const first = guardian()
    process.kill(Number(first), 'SIGTERM')
    await sleep(200)
    t.equal(guardian(), first, 'SIGTERM, as a service manager sends it to all, leaves it')
    process.kill(Number(first), 'SIGKILL')
    await gateway.waitFor(/the guardian ended and is started again: SIGKILL/)
    await settle(guardian, (pid) => pid !== undefined && pid !== first)
    gateway.kill('SIGKILL')
    const ms = await untilDirect(world, gateway)
    t.ok(ms < 1000, `direct after ${ms.toFixed(0)} ms`)
    await gateway.exited
    await asBefore(t, 'SIGKILL')
  })

  t.test('killed with its guardian', async (t) => {
    const gateway = await world.startGateway()
    for (const pid of programs(world)) if (/bondsocks/.test(commandOf(pid))) process.kill(Number(pid), 'SIGKILL')
    await gateway.exited
    t.not(await snapshot(cpe), before, 'all of it stays')
    await cpe(...bondsocks('remove'))
    await asBefore(t, 'remove')
    const again = await world.startGateway()
    t.same(await again.end(), { code: 0, signal: null })
    await asBefore(t, 'and a run in peace')
  })

  t.test('what it removes with is ended, as by a service manager that ends all of a failed unit', async (t) => {
    const gateway = await world.startGateway()
    gateway.kill('SIGKILL')
    let removal: string | undefined
    for (let tries = 0; tries < 1000 && removal === undefined; tries++) {
      await sleep(2)
      removal = programs(world).find((pid) => /^\S*node .*main\.js remove/.test(commandOf(pid)))
    }
    process.kill(Number(removal), 'SIGTERM')
    await gateway.exited
    await asBefore(t, 'tried again')
  })

  t.test('nobody reads what it says', async (t) => {
    const path = join(t.testdir({}), 'pipe')
    execFileSync('mkfifo', [path])
    const pipe = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
    t.throws(() => {
      for (;;) writeSync(pipe, 'x'.repeat(4096))
    })
    const full = openSync(path, constants.O_WRONLY)
    const [file = '', ...rest] = world.lab.argv('cpe', bondsocks('run', '-c', world.config('gateway')))
    const gateway = spawn(file, rest, { stdio: ['ignore', 'pipe', full], env: cleanEnvironment() })
    closeSync(full)
    try {
      let output = ''
      gateway.stdout?.on('data', (data: Buffer) => (output += data.toString()))
      const isUp = (text: string) => /gateway runs/.test(text)
      t.ok(isUp(await settle(() => output, isUp)))
      gateway.kill('SIGKILL')
      const next = await world.startGateway()
      t.same(await next.end(), { code: 0, signal: null })
    } finally {
      gateway.kill('SIGKILL')
      closeSync(pipe)
    }
    await asBefore(t, 'the next one')
  })

  /** In the place of iptables-restore: waits for a second, and leaves a file that says so. */
  const slowRestore = (folder: string): string => {
    const text = `#!/bin/sh\n: >${folder}/begun\nsleep 1\nPATH=\${PATH#*:} exec iptables-restore "$@"\n`
    writeFileSync(join(folder, 'iptables-restore'), text, { mode: 0o755 })
    return `PATH=${folder}:${process.env.PATH}`
  }

  t.test('killed while iptables-restore waits', async (t) => {
    const folder = t.testdir({})
    const argv = bondsocks('run', '-c', world.config('gateway'))
    const gateway = start(t, world.lab.argv('cpe', ['env', slowRestore(folder), ...argv]))
    t.ok(
      await settle(
        () => existsSync(join(folder, 'begun')),
        (has) => has,
      ),
    )
    gateway.kill('SIGKILL')
    await sleep(1500)
    await gateway.exited
    await asBefore(t, 'what it was about to do')
  })

  t.test('Ctrl-C twice, which a terminal sends to all of its group', async (t) => {
    const path = slowRestore(t.testdir({}))
    const argv = ['env', path, ...bondsocks('run', '-c', world.config('gateway'))]
    const [file = '', ...rest] = world.lab.argv('cpe', argv)
    const gateway = spawn(file, rest, { stdio: ['ignore', 'pipe', 'pipe'], env: cleanEnvironment(), detached: true })
    t.teardown(() => gateway.kill())
    const exit = once(gateway, 'close')
    let output = ''
    for (const stream of [gateway.stdout, gateway.stderr]) stream.on('data', (data: Buffer) => (output += data.toString()))
    const isUp = (text: string) => /gateway runs/.test(text)
    t.ok(isUp(await settle(() => output, isUp)))
    for (const ms of [500, 0]) {
      process.kill(-Number(gateway.pid), 'SIGINT')
      await sleep(ms)
    }
    t.same(await exit, [0, null], output)
    t.notMatch(output, /SIGINT|stays|could not|ended/)
    await asBefore(t, 'Ctrl-C')
  })

  t.test('a PATH with no sh in it', async (t) => {
    const folder = t.testdir({})
    for (const name of [
      'ip',
      'iptables',
      'ip6tables',
      'iptables-save',
      'ip6tables-save',
      'iptables-restore',
      'ip6tables-restore',
    ]) {
      const found = execFileSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).trim()
      writeFileSync(join(folder, name), `#!/bin/sh\nexec ${found} "$@"\n`, { mode: 0o755 })
    }
    const argv = bondsocks('run', '-c', world.config('gateway'))
    const gateway = start(t, world.lab.argv('cpe', ['/usr/bin/env', `PATH=${folder}`, ...argv]))
    await gateway.waitFor(/gateway runs/)
    gateway.kill('SIGKILL')
    const ms = await untilDirect(world, gateway)
    t.ok(ms < 1000, `direct after ${ms.toFixed(0)} ms`)
    await gateway.exited
    await asBefore(t, 'SIGKILL')
  })

  t.test('a second gateway is refused, and leaves the first alone', async (t) => {
    const first = await world.startGateway()
    // What it still sets up after that comes when a HAG has answered over each WAN.
    for (const name of ['dsl', 'lte']) await first.waitFor(new RegExp(`WAN ${name} is up`))
    await settle(
      () => world.endpoints(),
      (names) => names.length === 2,
    )
    const up = await stillness(cpe)
    const second = world.start('cpe', 'run', '-c', world.config('gateway', { listen: { port: 12346 } }))
    // As soon as Node has its own handler of SIGUSR1, and before ours is there.
    const hasHandler = () => {
      const caught = BigInt(`0x${/^SigCgt:\s*(\w+)/m.exec(readFileSync(`/proc/${second.pid}/status`, 'utf8'))?.[1]}`)
      return ((caught >> 9n) & 1n) === 1n
    }
    while (!hasHandler()) await sleep(1)
    second.kill('SIGUSR1')
    const listens: string[] = []
    while (second.running) {
      listens.push(await cpe('ss', '-ltnH'))
      await sleep(100)
    }
    // It may have ended before the last look.
    t.notMatch(listens.at(-2) ?? 'it did not wait:9229 ', /:9229\b/, 'no debugger while it waits')
    t.match(await second.exited, { code: 1 })
    t.match(second.output, new RegExp(`bondsocks: process ${first.pid} has been the gateway here`))
    t.equal(await snapshot(cpe), up)
    await first.end()
  })
})

t.test('a HAG that is killed leaves no rule', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const shown = async (...argv: string[]) => (await world.lab.exec('hag', argv)).stdout
  const rules = async () =>
    (await shown('ip', 'rule')) + (await shown('ip', '-6', 'rule')) + (await shown('ip', 'route', 'show', 'table', '5808'))
  const before = await rules()
  for (const end of ['SIGKILL', 'SIGTERM'] as const) {
    const program = await world.startHag()
    const there = await settle(rules, (text) => text.split('lookup 5808').length === 3 && text.includes('initcwnd'))
    t.match(there, /lookup 5808/)
    await program.end(end)
    const after = await settle(rules, (text) => text === before, 5000)
    t.equal(after, before, end)
    const said = /the HAG ended unexpectedly/
    if (end === 'SIGKILL') t.match(program.output, said)
    else t.notMatch(program.output, said)
  }
})
