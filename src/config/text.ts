import { readFileSync } from 'node:fs'

/** The text of a file that people write with any editor, without a byte order mark. Throws as `readFileSync` does, and for UTF-16. */
export function readText(file: string): string {
  const bytes = readFileSync(file)
  const mark = bytes.readUInt16BE.bind(bytes)
  if (bytes.length >= 2 && (mark(0) === 0xfffe || mark(0) === 0xfeff))
    throw Object.assign(new Error(), { code: 'it is UTF-16: save it as UTF-8' })
  return bytes.toString('utf8').replace(/^\uFEFF/, '')
}
