/** The example configs, the README and the JSON schemas say what the schema says. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { schemaFile } from '../../src/config/json-schema.js'
import { checkConfig, loadHag, parseGateway, parseHag } from '../../src/config/load.js'
import { statusSchemaFile } from '../../src/control/json-schema.js'
import { minimal } from '../support/config.js'

const root = join(import.meta.dirname, '../..')

t.test('the example configs are valid, and with every line in use they name every key', async (t) => {
  for (const kind of ['gateway', 'hag'] as const) {
    const file = join(root, `config/${kind}.yaml`)
    t.equal(checkConfig(file), kind)
    const all = readFileSync(file, 'utf8').replace(/^( *)# ( *(?:- )?[a-z0-9_]+:( .*)?)$/gm, '$1$2')
    const config = kind === 'gateway' ? parseGateway(all, file) : parseHag(all, file)
    const schema = JSON.parse(schemaFile(kind))
    t.same(Object.keys(config).sort(), Object.keys(schema.properties).sort())
    if (!('hags' in config)) continue
    t.same(
      [...new Set(config.hags.flatMap((one) => Object.keys(one)))].sort(),
      Object.keys(schema.properties.hags.items.properties).sort(),
    )
    t.same(Object.keys(config.wans[0] as object).sort(), Object.keys(schema.properties.wans.items.properties).sort())
  }
})

t.test('what the examples show as defaults are the defaults', async (t) => {
  const noDefault = new Set([
    'lan',
    'keepalive_seconds',
    'quic',
    'wans',
    'hags',
    'clients',
    'bypass',
    'allow',
    'workers',
    'max_connections',
    'max_connections_per_client',
    'buffer_memory_mb',
    'users_file',
    'mark',
    'rule_priority',
    'control_group',
  ])
  for (const [kind, bare, parse] of [
    ['gateway', parseGateway(minimal, 'g'), parseGateway],
    ['hag', loadHag(join(root, 'config/hag.yaml')), parseHag],
  ] as const) {
    const file = join(root, `config/${kind}.yaml`)
    const shown = parse(readFileSync(file, 'utf8').replace(/^( *)# ( *(?:- )?[a-z0-9_]+:( .*)?)$/gm, '$1$2'), file)
    for (const [key, value] of Object.entries(shown)) {
      if (!noDefault.has(key)) t.same(value, bare[key as keyof typeof bare], key)
    }
  }
})

t.test('the README names every key, none that is not there, and the defaults', async (t) => {
  interface Schema {
    properties?: Record<string, Schema>
    items?: Schema
    default?: unknown
  }
  const leaves = ({ properties = {} }: Schema, prefix = ''): [string, unknown][] =>
    Object.entries(properties).flatMap(([key, value]) => {
      const name = `${prefix}${key}`
      if (value.properties) return leaves(value, `${name}.`)
      return value.items?.properties ? leaves(value.items, `${name}[].`) : [[name, value.default] as [string, unknown]]
    })
  const readme = readFileSync(join(root, 'README.md'), 'utf8')
  const rows = [...readme.matchAll(/^\| *(`[a-z].*?`) *\| (.*?) *\|/gm)].flatMap(([, names = '', shown = '']) =>
    [...names.matchAll(/`([a-z0-9_.[\]]+)`/g)].map(([, name = '']): [string, string] => [name, shown]),
  )
  const known = (['gateway', 'hag'] as const).flatMap((kind) => leaves(JSON.parse(schemaFile(kind))))
  const sorted = (names: readonly [string, unknown][]) => [...new Set(names.map(([name]) => name))].sort()
  t.same(sorted(rows), sorted(known))
  for (const [name, value] of known) {
    if (value === undefined) continue
    const isShown = rows.some(([key, shown]) => key === name && shown.includes(`\`${value}\``))
    t.ok(isShown, `${name} is ${value}`)
  }
})

t.test('config/*.schema.json is what the schema says (else: npm run schema)', async (t) => {
  for (const kind of ['gateway', 'hag'] as const) {
    t.equal(readFileSync(join(root, `config/${kind}.schema.json`), 'utf8'), schemaFile(kind))
  }
  t.equal(readFileSync(join(root, 'config/status.schema.json'), 'utf8'), statusSchemaFile())
})

t.test('docs/ARCHITECTURE.md and CONTRIBUTING.md name files and folders that there are', async (t) => {
  const folders = ['src', 'test', 'bench', 'scripts', 'config', 'docs']
  const inside = folders.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) => `${folder}/${name}`),
  )
  const all = [...readdirSync(root), ...inside]
  for (const file of ['docs/ARCHITECTURE.md', 'CONTRIBUTING.md']) {
    const code = readFileSync(join(root, file), 'utf8').matchAll(/`([a-z.][\w./*{},-]*(?:\/[\w.*{},-]*|\.(?:ts|cpp|h|md|cjs)))`/g)
    // `steering/{state,target}.ts` names each of both, `events/*.ts` any.
    const paths = [...code].flatMap(([, path = '']) => {
      const [, head = '', names, tail = ''] = /^(.*)\{(.*)\}(.*)$/.exec(path) ?? []
      return names === undefined ? [path] : names.split(',').map((name) => `${head}${name}${tail}`)
    })
    const isThere = (path: string) => {
      const text = path.replace(/\/$/, '').replaceAll('.', '\\.').replaceAll('*', '[^/]*')
      return all.some((one) => new RegExp(`(^|/)${text}(|\\.ts|(\\.property)?\\.test\\.ts)$`).test(one))
    }
    t.ok(paths.length > 5, file)
    t.same(
      paths.filter((path) => !isThere(path)),
      [],
      file,
    )
  }
})
