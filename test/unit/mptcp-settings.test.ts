/** What is said of settings that keep MPTCP from working, whatever the kernel's version calls them. */
import t from 'tap'
import { complainOfSettings, neededByMptcp, remarksOnSettings } from '../../src/network/mptcp-settings.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'

const good = {
  'net/mptcp/enabled': '1',
  'net/mptcp/scheduler': 'default',
  'net/mptcp/stale_loss_cnt': '4',
  'net/mptcp/syn_retrans_before_tcp_fallback': '2',
  'net/mptcp/checksum_enabled': '0',
  'net/mptcp/allow_join_initial_addr_port': '1',
  'net/ipv4/tcp_shrink_window': '0',
  'net/ipv4/tcp_window_scaling': '1',
  'net/ipv4/tcp_sack': '1',
}

t.test('what a gateway sets', async (t) => {
  const of = (more: Record<string, string>) => Object.fromEntries(neededByMptcp(new Map(Object.entries({ ...good, ...more }))))
  t.same(of({}), {})
  t.same(of({ 'net/mptcp/pm_type': '1' }), { 'net/mptcp/pm_type': '0' }, 'Linux 5.19 to 6.14')
  const newer = { 'net/mptcp/path_manager': 'userspace', 'net/mptcp/pm_type': '1' }
  t.same(of(newer), { 'net/mptcp/path_manager': 'kernel' }, 'one of the two is enough')
  t.same(of({ 'net/mptcp/scheduler': 'bpf_first' }), { 'net/mptcp/scheduler': 'default' })
  for (const value of ['0', '200']) t.same(of({ 'net/mptcp/stale_loss_cnt': value }), { 'net/mptcp/stale_loss_cnt': '4' })
  t.same(of({ 'net/mptcp/stale_loss_cnt': '8' }), {}, 'what works is let alone')
  t.same(of({ 'net/ipv4/tcp_shrink_window': '1' }), { 'net/ipv4/tcp_shrink_window': '0' })
  t.same(Object.fromEntries(neededByMptcp(new Map())), {}, 'what a kernel lacks is not set')
  const remarks = remarksOnSettings(
    new Map([...Object.entries(good), ['net/mptcp/checksum_enabled', '1'], ['net/ipv4/tcp_sack', '0']]),
  )
  t.match(remarks, [/checksum_enabled is 1: .*processor time/, /sysctl -w net\.ipv4\.tcp_sack=1/])
})

t.test('what a HAG says', async (t) => {
  const said = async (more: Record<string, string>, endpoints: string | undefined = '[]') => {
    const log = memoryLog()
    const kernel = {
      readSysctls: async () => new Map(Object.entries({ ...good, ...more })),
      run: async () => ({ code: endpoints === '' ? 1 : 0, stdout: endpoints, stderr: '' }),
    }
    await complainOfSettings({ kernel: kernel as never, emit: toLog(log) })
    return log.lines
  }
  t.same(await said({}), [])
  t.match(await said({ 'net/mptcp/path_manager': 'userspace' }), [
    /^warn net\.mptcp\.path_manager is userspace: .*nothing joins a connection; sysctl -w net\.mptcp\.path_manager=kernel$/,
  ])
  const noJoin = { 'net/mptcp/allow_join_initial_addr_port': '0' }
  t.match(await said(noJoin), [/one WAN for each connection; sysctl -w net\.mptcp\.allow_join_initial_addr_port=1$/])
  t.match(await said(noJoin, ''), [/allow_join_initial_addr_port is 0/], 'without root, too')
  t.same(await said(noJoin, '[{"address":"203.0.113.9","id":1,"signal":true,"port":1080}]'), [], 'behind a load balancer')
})
