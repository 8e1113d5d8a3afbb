/** Rules about the tree of sources that no tool of others checks. Each takes files as text and returns faults, a line each. */
import ts from 'typescript'

export type Files = ReadonlyMap<string, string>

const maxLines = 350

export function longFiles(files: Files): string[] {
  return [...files].flatMap(([path, text]) => {
    const lines = text.split('\n').length - 1
    return lines > maxLines ? [`${path} has ${lines} lines, of at most ${maxLines}: split it by what changes together`] : []
  })
}

/** From the ground up: a file includes only its own layer and those before it. The lab's addon stands apart. */
const layers = [
  /^core\//,
  /^handshakes\//,
  /^engine\/(?!engine\.|worker\.)/,
  /^listeners\//,
  /^engine\/(engine|worker)\./, // they put the parts together
  /^binding\//,
]
const includeOf = /^#include "(.+)"/gm

/** `files` by their path below src/native/. */
export function includeFaults(files: Files): string[] {
  const includes = new Map([...files].map(([path, text]) => [path, [...text.matchAll(includeOf)].map(([, name = '']) => name)]))
  const layerOf = (path: string) => layers.findIndex((layer) => layer.test(path))
  const faults: string[] = []
  for (const [path, names] of includes) {
    if (layerOf(path) < 0 && !path.startsWith('lab/')) faults.push(`${path} is in no layer`)
    for (const name of names) {
      // From its own folder, or by `..`, it would stand in no layer.
      if (!includes.has(name)) faults.push(`${path} includes ${name}: say it from src/native/ on`)
      else if (name.startsWith('lab/') !== path.startsWith('lab/'))
        faults.push(`${path} includes ${name}: the lab's addon stands apart`)
      else if (layerOf(name) > layerOf(path)) faults.push(`${path} includes ${name}, which stands above it`)
    }
  }
  const done = new Set<string>()
  const visit = (path: string, above: readonly string[]) => {
    if (above.includes(path)) faults.push(`includes in a circle: ${[...above.slice(above.indexOf(path)), path].join(' > ')}`)
    if (done.has(path)) return
    done.add(path)
    for (const name of includes.get(path) ?? []) visit(name, [...above, path])
  }
  for (const path of includes.keys()) visit(path, [])
  return faults
}

/** What a decision must not name: it is handed the time, and all else that it knows. */
const clocks = ['performance', 'Date', 'setTimeout', 'setInterval', 'setImmediate', 'process', 'fetch']

export function clockFaults(files: Files): string[] {
  return [...files].flatMap(([path, text]) => {
    const names = namesIn(path, text)
    return clocks.filter((name) => names.has(name)).map((name) => `${path} names ${name}: a decision has neither clock nor I/O`)
  })
}

/** `{ ...(x && { key: x }) }`: the type checker takes a misspelt optional key there for one that may be. `files`: TypeScript. */
export function spreadFaults(files: Files): string[] {
  return [...files].flatMap(([path, text]) => {
    const source = ts.createSourceFile(path, text, ts.ScriptTarget.Latest)
    const faults: string[] = []
    const visit = (node: ts.Node) => {
      if (ts.isSpreadAssignment(node) && isLiteral(node.expression)) {
        const { line } = source.getLineAndCharacterOfPosition(node.getStart(source))
        faults.push(`${path}:${line + 1} spreads an object that is written there: set its keys one by one`)
      }
      ts.forEachChild(node, visit)
    }
    visit(source)
    return faults
  })
}

function isLiteral(node: ts.Expression): boolean {
  if (ts.isParenthesizedExpression(node)) return isLiteral(node.expression)
  if (ts.isConditionalExpression(node)) return isLiteral(node.whenTrue) || isLiteral(node.whenFalse)
  return ts.isBinaryExpression(node) ? isLiteral(node.right) : ts.isObjectLiteralExpression(node)
}

export interface ForbiddenWord {
  readonly text: string
  readonly instead: string
  /** Only the very name; otherwise the word wherever a name contains it. */
  readonly isName: boolean
}

/** The glossary is the table with a column "not". */
export function forbiddenWords(architecture: string): ForbiddenWord[] {
  const [, table = ''] = architecture.split(/^\| word +\| means +\| not +\|\n.*\n/m)
  const rows = table.split('\n\n', 1)[0]?.split('\n') ?? []
  return rows.flatMap((row) => {
    const [, instead = '', , not = ''] = row.split('|').map((cell) => cell.trim())
    const words = not.split(',').map((word) => word.trim())
    return words
      .filter((word) => word !== '')
      .map((word) => ({ text: word.replaceAll('`', ''), instead, isName: word.startsWith('`') }))
  })
}

const partsOf = (name: string) => (name.match(/[A-Z]+(?![a-z])|[A-Z]?[a-z]+/g) ?? []).join(' ').toLowerCase()

export function wordFaults(files: Files, forbidden: readonly ForbiddenWord[]): string[] {
  return [...files].flatMap(([path, text]) =>
    [...namesIn(path, text)].flatMap((name) =>
      forbidden
        .filter((word) => (word.isName ? word.text === name : ` ${partsOf(name)} `.includes(` ${word.text} `)))
        .map((word) => `${path}: \`${name}\` says "${word.text}", where the glossary says "${word.instead}"`),
    ),
  )
}

function namesIn(path: string, text: string): Set<string> {
  if (!path.endsWith('.ts')) {
    const code = text.replace(/\/\/.*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'/g, ' ')
    return new Set(code.match(/[A-Za-z_]\w*/g))
  }
  const names = new Set<string>()
  const visit = (node: ts.Node) => {
    if (ts.isIdentifier(node) || ts.isPrivateIdentifier(node)) names.add(node.text)
    ts.forEachChild(node, visit)
  }
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.Latest))
  return names
}
