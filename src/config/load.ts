/**
 * Reads a config file: YAML text -> schema -> typed config. Every fault is reported at once, each as one line
 * `FILE:LINE:COLUMN: path: message`, in the order of the file.
 */
import { dirname, resolve } from 'node:path'
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml'
import type * as z from 'zod/mini'
import { familyOf } from '../base/address.js'
import { BondsocksError } from '../base/errors.js'
import { nearest } from '../base/nearest.js'
import { jsonSchema } from './json-schema.js'
import { type GatewayConfig, gatewaySchema, type HagConfig, hagSchema } from './schema.js'
import { readText } from './text.js'

export type ConfigKind = 'gateway' | 'hag'

/** Reads and checks a gateway config. Relative paths in it are resolved against its folder. Throws BondsocksError, exit code 2. */
export function loadGateway(file: string): GatewayConfig {
  return parseGateway(read(file), file)
}

/** The same for a HAG config. */
export function loadHag(file: string): HagConfig {
  return parseHag(read(file), file)
}

/** The same for a config of either kind. */
export function loadEither(file: string): { kind: 'gateway'; config: GatewayConfig } | { kind: 'hag'; config: HagConfig } {
  const text = read(file)
  return checkText(text, file) === 'gateway'
    ? { kind: 'gateway', config: parseGateway(text, file) }
    : { kind: 'hag', config: parseHag(text, file) }
}

/** Checks a config of either kind and tells which it is. */
export function checkConfig(file: string): ConfigKind {
  return checkText(read(file), file)
}

export function checkText(text: string, file: string): ConfigKind {
  const source = new Source(text, file)
  const kind = source.kind()
  if (kind === undefined) {
    throw source.error([[0, 'is neither a gateway config (lan, wans, hags) nor a HAG config (listen.address, clients)']])
  }
  source.parse(kind === 'gateway' ? gatewaySchema : hagSchema, kind)
  return kind
}

export function parseGateway(text: string, file: string): GatewayConfig {
  const config = new Source(text, file).parse(gatewaySchema, 'gateway')
  for (const hag of config.hags) {
    if (hag.password_file !== undefined) hag.password_file = resolve(dirname(file), hag.password_file)
  }
  return config
}

export function parseHag(text: string, file: string): HagConfig {
  const config = new Source(text, file).parse(hagSchema, 'hag')
  if (config.users_file !== undefined) config.users_file = resolve(dirname(file), config.users_file)
  return config
}

function read(file: string): string {
  try {
    return readText(file)
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    const why = { ENOENT: 'no such file', EACCES: 'permission denied', EISDIR: 'is a folder' }[code ?? ''] ?? code
    throw new BondsocksError('CONFIG', `${file}: cannot be read: ${why}`, { exitCode: 2, cause })
  }
}

type Path = readonly (string | number)[]
/** The offset in the text, and what is wrong there. */
type Fault = [number, string]

class Source {
  readonly #file: string
  readonly #lines = new LineCounter()
  readonly #document: Document.Parsed
  readonly #value: unknown

  constructor(text: string, file: string) {
    this.#file = file
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false, stringKeys: true })
    const faults = [...this.#document.errors, ...this.#document.warnings]
    if (faults.length > 0)
      throw this.error(faults.map(({ pos, message }) => [pos[0], openAddress(text.slice(pos[0])) ?? firstLine(message)]))
    try {
      this.#value = this.#document.toJS()
    } catch (cause) {
      // An alias without anchor, or aliases that expand without end.
      throw this.error([[0, firstLine((cause as Error).message)]])
    }
  }

  /** Which kind of config the keys look like; undefined if neither. */
  kind(): ConfigKind | undefined {
    const root = this.#document.contents
    if (!isMap(root)) return undefined
    if (root.has('lan') || root.has('wans') || root.has('hags')) return 'gateway'
    return root.has('clients') || this.#document.hasIn(['listen', 'address']) ? 'hag' : undefined
  }

  parse<Schema extends z.ZodMiniType>(schema: Schema, kind: ConfigKind): z.output<Schema> {
    const looksLike = this.kind()
    if (looksLike !== undefined && looksLike !== kind) {
      const [name, command] = looksLike === 'hag' ? ['a HAG config', 'hag'] : ['a gateway config', 'run']
      throw this.error([[0, `is ${name}: use it with \`bondsocks ${command}\``]])
    }
    const result = schema.safeParse(this.#value)
    if (result.success) return result.data
    throw this.error(result.error.issues.flatMap((issue) => this.#faults(issue, kind)))
  }

  /** All the faults as one error, sorted by place, each line once. */
  error(faults: Fault[]): BondsocksError {
    const lines = faults
      .toSorted(([a], [b]) => a - b)
      .map(([offset, message]) => {
        const { line, col } = this.#lines.linePos(offset)
        // For an empty file the counter has no line 1.
        return `${this.#file}:${line || 1}:${col || 1}: ${message}`
      })
    return new BondsocksError('CONFIG', [...new Set(lines)].join('\n'), { exitCode: 2 })
  }

  #faults(issue: z.core.$ZodIssue, kind: ConfigKind): Fault[] {
    const path = issue.path as Path
    if (issue.code === 'unrecognized_keys') {
      const known = knownKeys(kind, path)
      return issue.keys.map((key) => {
        const near = nearest(key, known)
        return [
          this.#keyOffset(path, key),
          `${prefix(path)}unknown key \`${key}\`${near === undefined ? '' : `, did you mean \`${near}\`?`}`,
        ]
      })
    }
    const value = this.#valueAt(path)
    if (issue.code === 'invalid_union') {
      // A union of a value and a list: the list comes second.
      const meant = issue.errors[Array.isArray(value) ? 1 : 0] ?? []
      if (value !== undefined)
        return meant.flatMap((one) => this.#faults({ ...one, path: [...issue.path, ...one.path] } as z.core.$ZodIssue, kind))
      return [[this.#offset(path.slice(0, -1)), `${prefix(path)}is required`]]
    }
    if (value === undefined && issue.code === 'invalid_type')
      return [[this.#offset(path.slice(0, -1)), `${prefix(path)}is required`]]
    return [[this.#offset(path), `${prefix(path)}${describe(issue, value)}`]]
  }

  #valueAt(path: Path): unknown {
    return path.reduce<unknown>(
      (value, step) => (value as Record<string | number, unknown> | null | undefined)?.[step],
      this.#value,
    )
  }

  /** Where the value at a path begins, or the nearest value around it that exists. */
  #offset(path: Path): number {
    const node = path.length === 0 ? this.#document.contents : this.#document.getIn(path, true)
    if (isNode(node) && node.range != null) return node.range[0]
    return path.length === 0 ? 0 : this.#offset(path.slice(0, -1))
  }

  #keyOffset(path: Path, key: string): number {
    const map = path.length === 0 ? this.#document.contents : this.#document.getIn(path, true)
    const pair = isMap(map) ? map.items.find((item) => isScalar(item.key) && String(item.key.value) === key) : undefined
    return isNode(pair?.key) && pair.key.range != null ? pair.key.range[0] : this.#offset(path)
  }
}

/** `wans[0].gateway: `, or nothing for the whole file. */
function prefix(path: Path): string {
  const text = path.map((step) => (typeof step === 'number' ? `[${step}]` : `.${step}`)).join('')
  return text === '' ? '' : `${text.replace(/^\./, '')}: `
}

/** YAML takes an IPv6 address that ends in a colon for a key. */
function openAddress(text: string): string | undefined {
  const [token = ''] = /^[0-9A-Fa-f:]+:(?=[\s,\]}]|$)/.exec(text) ?? []
  return familyOf(token) === 6 ? `an address that ends with a colon needs quotes: write '${token}'` : undefined
}

function describe(issue: z.core.$ZodIssue, value: unknown): string {
  const [key, ...others] = value !== null && typeof value === 'object' && !Array.isArray(value) ? Object.keys(value) : []
  const address = key === undefined || others.length > 0 ? undefined : openAddress(`${key}:`)
  if (address !== undefined) return address
  switch (issue.code) {
    case 'invalid_type':
      return `expected ${typeNames[issue.expected] ?? issue.expected}, found ${found(value)}`
    case 'invalid_value':
      return `expected ${issue.values.join(' or ')}, found ${found(value)}`
    case 'too_small':
      if (issue.origin === 'array') return 'needs at least one entry'
      if (issue.origin === 'string') return 'must not be empty'
      return `must be ${issue.inclusive ? 'at least' : 'above'} ${issue.minimum}, found ${found(value)}`
    case 'too_big':
      if (issue.origin === 'array') return `may have at most ${issue.maximum} entries`
      if (issue.origin === 'string') return `may have at most ${issue.maximum} characters`
      return `must be at most ${issue.maximum}, found ${found(value)}`
    default:
      // The schema's own texts; those about the value itself begin with "is no".
      return issue.message.startsWith('is no ') ? `${found(value)} ${issue.message}` : issue.message
  }
}

const typeNames: Record<string, string> = {
  object: 'keys with values',
  array: 'a list',
  string: 'text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
}

function found(value: unknown): string {
  if (value === null) return 'nothing'
  if (Array.isArray(value)) return 'a list'
  if (typeof value === 'object') return 'keys with values'
  return typeof value === 'string' ? JSON.stringify(value) : String(value)
}

interface SchemaNode {
  properties?: Record<string, SchemaNode>
  items?: SchemaNode
}

function knownKeys(kind: ConfigKind, path: Path): string[] {
  let node: SchemaNode | undefined = jsonSchema(kind) as SchemaNode
  for (const step of path) node = typeof step === 'number' ? node?.items : node?.properties?.[step]
  return Object.keys(node?.properties ?? {})
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] as string
}
