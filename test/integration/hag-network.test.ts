/** `plan`, `apply` and `remove` with a HAG's config. */
import { execFileSync } from 'node:child_process'
import t from 'tap'
import { settle, World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { outcome } from '../support/outcome.js'
import { bondsocks } from '../support/process.js'
import { snapshot, stillness } from '../support/snapshot.js'

t.test('plan, apply and remove take what a HAG needs of its machine', { skip: needsRoot }, async (t) => {
  const world = await World.create(t, { shaped: false })
  const hagHost = world.execute('hag')
  const config = world.config('hag')
  const command = (...args: string[]) => outcome(world.lab.argv('hag', bondsocks(...args)))
  const nothing = { code: 0, stdout: 'nothing to do: all is as the config says\n', stderr: '' }
  const before = await stillness(hagHost)
  const isAsBefore = async (what: string) => t.equal(await snapshot(hagHost), before, what)

  await t.test('by hand', async (t) => {
    const plan = await command('plan', '-c', config)
    t.match(plan, { code: 0, stderr: '' })
    const lines = plan.stdout.trimEnd().split('\n')
    t.same(lines.slice(-2), ['ip mptcp limits set subflows 8', 'sysctl -w net.ipv4.tcp_mtu_probing=1'])
    t.ok(lines.some((line) => /^ip -4 route append 10\.1\.0\.0\/24 dev dsl .*initcwnd 48 table 5808 proto 158$/.test(line)))
    t.equal(lines.at(-3), 'ip -6 rule add pref 32765 from all iif lo ipproto tcp sport 1080 lookup 5808')
    const json = JSON.parse((await command('plan', '-c', config, '--json')).stdout)
    t.same(json, { steps: lines, wans: [], notes: [] })
    await isAsBefore('plan changes nothing')

    t.same(await command('apply', '-c', config), plan, 'apply does what plan said')
    t.same(await command('apply', '-c', config), nothing)
    t.same(await command('plan', '-c', config), nothing)
    const removed = await command('remove')
    t.match(removed, { code: 0, stdout: /^ip -4 rule del pref 32765 .*\nip -4 route flush table 5808 proto 158\n/, stderr: '' })
    await isAsBefore('remove leaves nothing')
    t.match(await command('remove'), { code: 0, stdout: 'nothing to do: nothing of ours is here\n' })
  })

  await t.test('what cannot be had is a note; who may not, and a wrong config, is an error', async (t) => {
    await hagHost('ip', 'rule', 'add', 'pref', '32766', 'lookup', '100')
    await hagHost('ip', 'rule', 'del', 'pref', '32766', 'lookup', 'main')
    const why =
      /^note: answers over IPv4 begin with the kernel's initial window: where the rule for the main table should be, there is 32766: /m
    for (const verb of ['plan', 'apply']) {
      const { code, stdout } = await command(verb, '-c', config)
      t.equal(code, 0)
      t.match(stdout, why)
      t.match(stdout, /^ip -6 rule add /m, 'the rest is done')
    }
    await command('remove')
    await hagHost('ip', 'rule', 'add', 'pref', '32766', 'lookup', 'main')
    await hagHost('ip', 'rule', 'del', 'pref', '32766', 'lookup', '100')
    await isAsBefore('remove')

    const unprivileged = ['setpriv', '--bounding-set', '-net_admin', '--inh-caps', '-net_admin']
    for (const verb of ['plan', 'apply']) {
      t.match(await outcome(world.lab.argv('hag', [...unprivileged, ...bondsocks(verb, '-c', config)])), {
        code: 1,
        stdout: '',
        stderr: /^bondsocks: .*needs root \(CAP_NET_ADMIN\): run it with sudo\n$/,
      })
    }
    const wrong = world.file('wrong.yaml', 'clients: [10.0.0.0/8]\nlisten: {adress: 203.0.113.3}\n')
    t.match(await command('plan', '-c', wrong), { code: 2, stdout: '', stderr: /unknown key `adress`, did you mean `address`/ })
    await isAsBefore('nothing has changed')
  })

  await t.test('while a HAG runs, and after one that was killed', async (t) => {
    // The sysctl comes last.
    const isSetUp = (text: string) =>
      text.split('sport 1080 lookup 5808').length === 3 &&
      text.includes('subflows 8') &&
      text.includes('net.ipv4.tcp_mtu_probing = 1')
    const hag = await world.startHag()
    const up = await settle(() => snapshot(hagHost), isSetUp)
    t.same(await command('plan', '-c', config), nothing)
    const other = world.config('hag', { listen: { address: world.lab.addresses.hag, port: 1081 }, initial_window: 20 })
    t.match(await command('plan', '-c', other), {
      stdout: /^ip -4 rule add pref 32765 .* sport 1081 lookup 5808\nip -6 rule add .*1081 lookup 5808\n$/,
    })
    await command('remove')
    const again = await settle(
      () => snapshot(hagHost),
      (text) => text === up,
    )
    t.equal(again, up, 'the HAG puts back what is taken from it')

    const killAll = async (program: typeof hag) => {
      const children = execFileSync('ps', ['-o', 'pid=,args=', '--ppid', String(program.pid)], { encoding: 'utf8' })
      const guardian = Number(/^ *(\d+) .*bondsocks-guardian/m.exec(children)?.[1])
      process.kill(guardian, 'SIGKILL')
      await program.end('SIGKILL')
    }
    await killAll(hag)
    t.equal(await snapshot(hagHost), up, 'one that is killed with its guardian leaves all of it')
    const next = await world.startHag({ listen: { address: world.lab.addresses.hag, port: 1081 } })
    const rules = () => hagHost('ip', 'rule')
    t.notMatch(await settle(rules, (text) => / 1081 /.test(text) && !/ 1080 /.test(text)), / 1080 /, 'the next one finds it')
    t.same(await next.end(), { code: 0, signal: null })
    await isAsBefore('and puts it back')

    const last = await world.startHag()
    await settle(() => snapshot(hagHost), isSetUp)
    await killAll(last)
    t.match(await command('remove'), { code: 0, stdout: /ip mptcp limits set subflows 2\n/ })
    await isAsBefore('so does remove')
  })
})
