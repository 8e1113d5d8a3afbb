/** The status as text for a terminal. */
import { formatSocketAddress } from '../base/address.js'
import { printable } from '../base/printable.js'
import type { ConnectionStatus, GatewayStatus, HagStatus, ServiceStatus } from '../control/status.js'
import { causeOf } from '../telemetry/events/wans.js'

type Wan = GatewayStatus['wans'][number]
type Hag = GatewayStatus['hags'][number]

const maxHomes = 20

/** `columns`: the width of the terminal. */
export function renderStatus(status: GatewayStatus | HagStatus, columns: number): string {
  const lines = status.role === 'gateway' ? gatewayLines(status) : hagLines(status)
  return `${lines.map((line) => cut(printable(line).trimEnd(), columns)).join('\n')}\n`
}

function gatewayLines(status: GatewayStatus): string[] {
  return [
    serviceLine('gateway', status.service),
    verdictOn(status),
    ...status.notes.map((note) => `note: ${note}`),
    '',
    ...wanLines(status),
    '',
    ...table(['HAG', 'state', ''], status.hags.map(hagRow)),
    '',
    ...bundleLines(status.bundle),
    ...limitLines(status.service, `, prepared ${status.prepared.kept}`),
    ...busiestLines(status.busiest),
  ]
}

function hagLines({ service, listens, homes, busiest }: HagStatus): string[] {
  const places = listens.addresses.map((address) => formatSocketAddress({ address, port: listens.port }))
  const noMptcp = listens.protocol === 'mptcp' ? '' : ', without MPTCP: gateways use one WAN at a time'
  const rows = homes
    .slice(0, maxHomes)
    .map((one) => [one.home, `${one.connections}`, `${one.served}`, size(one.received_bytes), size(one.sent_bytes)])
  return [
    serviceLine('HAG', service),
    `listens on ${list(places)}${noMptcp}`,
    '',
    ...table([listens.authentication ? 'user' : 'client', 'now', 'served', 'down', 'up'], rows),
    ...(homes.length > maxHomes ? [`and ${homes.length - maxHomes} more`] : []),
    '',
    ...limitLines(service, ''),
    ...busiestLines(busiest),
  ]
}

const isUsable = ({ links }: Wan) => links.some(({ state }) => state === 'up' || state === 'degraded')

/** One sentence: whether the LAN's connections are bonded, and if not, why. Says "bonded" only of what was seen. */
export function verdictOn({ is_lan_redirected, wans, hags, bundle, on_hag_down }: GatewayStatus): string {
  if (!wans.some(isUsable)) return 'no WAN works'
  if (!hags.some((hag) => hag.is_first)) {
    return on_hag_down === 'direct'
      ? 'no HAG serves: connections go direct, not bonded'
      : 'no HAG serves: connections are refused'
  }
  if (is_lan_redirected === undefined) return 'the LAN is not redirected yet'
  if (!is_lan_redirected) return 'the LAN is not redirected, so nothing is bonded'
  const names = [...new Set(bundle.members.map(({ wan }) => wan))]
  if (names.length < 2) return `not bonded: only ${names[0] ?? 'no WAN'} carries connections to HAGs`
  const lacking = [...new Set(bundle.members.filter(({ lack }) => lack !== undefined).map(({ wan }) => wan))]
  if (lacking.length > 0) return `not bonded over ${list(lacking)}`
  if (bundle.connections === 0) return `ready to bond ${list(names)}; no connection is old enough to prove it`
  if (bundle.whole === 0) return `not bonded: no connection uses all of ${list(names)}`
  return `bonded over ${list(names)}`
}

function serviceLine(role: string, { version, kernel, uptime_seconds }: ServiceStatus): string {
  return `${role} ${version} on Linux ${kernel}, up ${duration(uptime_seconds)}`
}

/** A row for each WAN and family; below it what is to be said about it. */
function wanLines({ wans }: GatewayStatus): string[] {
  const fullRate = Math.max(minFullRate, ...wans.flatMap((wan) => [wan.received_per_second, wan.sent_per_second]))
  const rows = wans.flatMap((wan) =>
    wan.links.map((link, index) => {
      const isFirst = index === 0
      const rates = [wan.received_per_second, wan.sent_per_second].map((rate) => `${mbit(rate)} ${bar(rate / fullRate)}`)
      const name = isFirst ? wan.name : ''
      const cells = [
        name,
        `${link.state} ${duration(link.for_seconds)}`,
        link.address ?? '-',
        rttText(link),
        ...(isFirst ? rates : []),
      ]
      return { cells, remarks: [...linkRemarks(wan, link), ...(isFirst ? wanRemarks(wan) : [])] }
    }),
  )
  const [head = '', ...lines] = table(
    ['WAN', 'state', 'address', 'RTT', 'down', 'up'],
    rows.map(({ cells }) => cells),
  )
  return [head, ...lines.flatMap((line, index) => [line, ...(rows[index]?.remarks ?? []).map((remark) => `     ${remark}`)])]
}

function linkRemarks(wan: Wan, { state, why, mptcp, is_narrow, has_endpoint }: Wan['links'][number]): string[] {
  return [
    ...(why === '' ? [] : [why]),
    ...(is_narrow ? ['full-size packets vanish on its path'] : []),
    ...(mptcp === 'stripped' || mptcp === 'blocked' ? ['its path carries no MPTCP'] : []),
    ...(state === 'up' && wan.is_in_use && !has_endpoint ? ['it has no MPTCP endpoint, so nothing joins over it'] : []),
  ]
}

function wanRemarks(wan: Wan): string[] {
  const { role, is_in_use, why_not_in_use, month_bytes, month_limit_bytes } = wan
  return [
    ...(isUsable(wan) && !is_in_use ? [why_not_in_use ?? `${role} WAN, not in use`] : []),
    ...(month_limit_bytes === undefined ? [] : [`${size(month_bytes ?? 0)} of ${size(month_limit_bytes)} this month`]),
  ]
}

const rttText = ({ rtt_ms, min_rtt_ms }: Wan['links'][number]) =>
  rtt_ms === undefined ? '-' : `${Math.round(rtt_ms)} ms (min ${Math.round(min_rtt_ms ?? rtt_ms)})`

function hagRow(hag: Hag): string[] {
  const about = [
    ...(hag.is_first ? ['in use'] : []),
    ...(hag.why === '' ? [] : [hag.why]),
    ...(hag.state === 'up' && !hag.pipelines ? ['takes requests one step at a time'] : []),
    ...(hag.reaches_ipv6 === false ? ['does not reach IPv6'] : []),
    ...hag.refused.map(({ wan, address, why }) => `refuses WAN ${wan} (${address}): ${why}`),
  ]
  return [formatSocketAddress(hag), `${hag.state} ${duration(hag.for_seconds)}`, about.join('; ')]
}

function bundleLines({ connections, whole, members }: GatewayStatus['bundle']): string[] {
  if (members.length < 2) return []
  if (connections === 0) return ['no connection to a HAG is older than 2 s']
  const moved = members.reduce((sum, one) => sum + one.moved_bytes, 0)
  const shares = members.map((one) => {
    const share = moved === 0 ? '' : `${percent(one.moved_bytes / moved)} of their bytes`
    const lost = one.packets_sent === 0 ? '' : `${percent(one.packets_sent_again / one.packets_sent)} sent again`
    const figures = [`${one.joined} of ${one.connections}`, share, lost].filter((text) => text !== '').join(', ')
    return `  ${one.wan} (IPv${one.family}): ${figures}${one.lack === undefined ? '' : `: ${causeOf(one.lack)}`}`
  })
  return [`${whole} of ${connections} connections to HAGs older than 2 s have all WANs`, ...shares]
}

/** What is used of what there is, and whom that has hit. */
function limitLines({ connections, descriptors, memory, pipes, limits_reached, refused }: ServiceStatus, more: string): string[] {
  const limit = descriptors.limit === undefined ? '' : ` of ${descriptors.limit}`
  const refusals = Object.entries(refused).map(([cause, count]) => `${count} ${cause}`)
  return [
    `connections ${connections.open} of ${connections.limit}${more}, descriptors ${descriptors.open}${limit}, ` +
      `memory ${size(memory.private_bytes ?? memory.resident_bytes)}, in pipes ${size(pipes.parked_bytes)}`,
    ...(limits_reached.length === 0 ? [] : [`limits that are reached: ${limits_reached.join(', ')}`]),
    ...(refusals.length === 0 ? [] : [`refused so far: ${refusals.join(', ')}`]),
  ]
}

function busiestLines(busiest: readonly ConnectionStatus[]): string[] {
  if (busiest.length === 0) return []
  const rows = busiest.map((one) => [
    formatSocketAddress(one.client),
    duration(one.age_seconds),
    size(one.received_bytes),
    size(one.sent_bytes),
    one.subflows.length === 0
      ? 'plain TCP'
      : one.subflows
          .map(({ wan, local, rtt_ms, joining }) => `${wan ?? local.address} ${joining ? 'joining' : `${Math.round(rtt_ms)} ms`}`)
          .join(', '),
  ])
  return ['', ...table(['client', 'age', 'down', 'up', 'subflows'], rows)]
}

function table(head: readonly string[], rows: readonly string[][]): string[] {
  const all = [head, ...rows]
  const widths = Array.from({ length: Math.max(...all.map((row) => row.length)) }, (_, column) =>
    Math.max(...all.map((row) => (row[column] ?? '').length)),
  )
  return all.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join('  '))
}

const eighths = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉']
const barCells = 10
/** A bar is full at the highest rate, but never at less, bytes a second. */
const minFullRate = 125_000

/** A bar of ten cells for a share from 0 to 1. */
export function bar(share: number): string {
  const filled = Math.round(Math.min(Math.max(share, 0), 1) * barCells * 8)
  const whole = '█'.repeat(Math.floor(filled / 8))
  return `${whole}${filled % 8 === 0 ? '' : eighths[filled % 8]}`.padEnd(barCells)
}

/** `3 h 12 min`: the two largest units. */
export function duration(seconds: number): string {
  const whole = Math.floor(seconds)
  const units = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ] as const
  const first = units.findIndex(([count]) => count > 0)
  if (first < 0) return '0 s'
  return units
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}

/** `3.1 GB`, in powers of 1000. */
export function size(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let [value, unit] = [bytes, 0]
  while (value >= 999.5 && unit < units.length - 1) [value, unit] = [value / 1000, unit + 1]
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

const mbit = (bytesPerSecond: number) => `${((bytesPerSecond * 8) / 1e6).toFixed(1).padStart(6)} Mbit/s`
const percent = (share: number) => `${(share * 100).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`
const list = (names: readonly string[]) => names.join(' and ')
const cut = (line: string, columns: number) => (line.length <= columns ? line : `${line.slice(0, Math.max(1, columns - 1))}…`)
