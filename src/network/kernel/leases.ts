/**
 * Leases that DHCP clients wrote down. They tell the gateway of a WAN whose default route the kernel refused because another WAN's has the
 * same metric.
 */
import { readdir, readFile, stat, watch } from 'node:fs/promises'
import { join } from 'node:path'
import { parseAddress } from '../../base/address.js'
import type { Lease } from '../state.js'

/** dhclient (Debian, Red Hat), NetworkManager, systemd-networkd, dhcpcd. */
const folders = [
  'var/lib/dhcp',
  'var/lib/dhclient',
  'var/lib/NetworkManager',
  'run/systemd/netif/leases',
  'var/lib/dhcpcd',
  'var/lib/dhcpcd5',
]
/** dhclient appends to its file, and rewrites it now and then. */
const maxBytes = 1 << 20
const maxFiles = 64

/** The latest is the last. Files that cannot be read are left out. */
export async function readLeases(root = '/'): Promise<Lease[]> {
  const files = await Promise.all(folders.map((folder) => filesOf(join(root, folder))))
  const latest = files.flat().sort((one, other) => one.changedAt - other.changedAt)
  const contents = latest.slice(-maxFiles).map(({ path }) => readFile(path).catch(() => Buffer.alloc(0)))
  return (await Promise.all(contents)).flatMap(parseLeases)
}

/**
 * Calls back when one is written, until the signal. dhclient writes it after its script has set the address, and nothing that the kernel
 * reports comes later. Folders that do not exist are not watched. Never rejects.
 */
export async function watchLeases(onChange: () => void, signal: AbortSignal, root = '/'): Promise<void> {
  const watchFolder = async (folder: string) => {
    for await (const _ of watch(join(root, folder), { signal })) onChange()
  }
  await Promise.all(folders.map((folder) => watchFolder(folder).catch(() => undefined)))
}

async function filesOf(folder: string): Promise<{ path: string; changedAt: number }[]> {
  const names = await readdir(folder).catch(() => [])
  const found = await Promise.all(
    names.map(async (name) => {
      const path = join(folder, name)
      const about = await stat(path).catch(() => undefined)
      return about?.isFile() && about.size <= maxBytes ? [{ path, changedAt: about.mtimeMs }] : []
    }),
  )
  return found.flat()
}

/** Reads any of the formats; no leases if the file has none of them. */
export function parseLeases(content: Buffer): Lease[] {
  if (content.subarray(236, 240).equals(magicCookie)) return leaseOf(parseMessage(content))
  const text = content.toString('latin1')
  // dhclient.conf(5), dhclient.leases(5)
  const blocks = [...text.matchAll(/^lease\s*\{([^}]*)\}/gm)].map(([, block = '']) => block)
  if (blocks.length > 0) {
    return blocks.flatMap((block) =>
      leaseOf({ address: /fixed-address ([\d.]+)/.exec(block)?.[1], gateway: /option routers ([\d.]+)/.exec(block)?.[1] }),
    )
  }
  return leaseOf({ address: /^ADDRESS=([\d.]+)/m.exec(text)?.[1], gateway: /^ROUTER=([\d.]+)/m.exec(text)?.[1] })
}

function leaseOf({ address = '', gateway = '' }: { address?: string | undefined; gateway?: string | undefined }): Lease[] {
  const isAddress = (one: string) => parseAddress(one)?.kind() === 'ipv4'
  return isAddress(address) && isAddress(gateway) ? [{ address, gateway }] : []
}

/** RFC 2131 section 3. */
const magicCookie = Buffer.from([99, 130, 83, 99])
const pad = 0
const end = 255
const router = 3

/** dhcpcd keeps the server's message as it came (RFC 2131 section 2, RFC 2132 section 3.5). */
function parseMessage(message: Buffer): { address: string; gateway?: string } {
  const address = message.subarray(16, 20).join('.')
  for (let at = 240; at < message.length && message[at] !== end; ) {
    if (message[at] === pad) {
      at++
      continue
    }
    const value = message.subarray(at + 2, at + 2 + (message[at + 1] ?? 0))
    if (message[at] === router && value.length >= 4) return { address, gateway: value.subarray(0, 4).join('.') }
    at += 2 + (message[at + 1] ?? 0)
  }
  return { address }
}
