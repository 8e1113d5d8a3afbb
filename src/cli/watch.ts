/** Shows a text that changes on a terminal, as `top` does, until `q`. */
import type { ReadStream, WriteStream } from 'node:tty'
import { pause } from '../base/pause.js'

export interface Terminal {
  input: Pick<ReadStream, 'setRawMode' | 'on' | 'off' | 'resume' | 'pause'>
  output: Pick<WriteStream, 'write' | 'columns' | 'rows' | 'on' | 'off'>
}

/** Control sequences (ECMA-48; those with ? are of xterm) begin with it. */
const csi = '\u001b['
/** Without cursor, and without line breaks of the terminal's own, which would move what is below. */
const alternateScreen = { open: `${csi}?1049h${csi}?25l${csi}?7l`, close: `${csi}?7h${csi}?25h${csi}?1049l` }
const home = `${csi}H`
const clearRestOfLine = `${csi}K`
const clearBelow = `${csi}J`

/** A serial console often tells no size: it has 0 rows of 0 columns. Then that of a VT100. */
const sizeOf = ({ columns, rows }: Pick<WriteStream, 'columns' | 'rows'>) => ({ columns: columns || 80, rows: rows || 24 })

const everyMs = 1000
const quitKeys = ['q', 'Q', '\u0003', '\u0004']

/**
 * `read`: the text for a terminal of so many columns; called once a second. Resolves when the user ends it, or at the signal. Rejects as `read`
 * does. The terminal is then as it was.
 */
export async function watchText(
  read: (columns: number) => Promise<string>,
  help: string,
  { input, output }: Terminal,
  signal: AbortSignal,
): Promise<void> {
  const quit = new AbortController()
  const end = AbortSignal.any([signal, quit.signal])
  let text = ''
  let showsHelp = false
  const draw = () => output.write(frame(showsHelp ? help : text, sizeOf(output).rows))
  const onKey = (keys: Buffer) => {
    for (const key of keys.toString()) {
      if (quitKeys.includes(key)) quit.abort()
      else showsHelp = key === '?' && !showsHelp
    }
    draw()
  }
  input.setRawMode(true)
  input.on('data', onKey)
  // The terminal is gone.
  for (const event of ['end', 'error']) input.on(event, () => quit.abort())
  input.resume()
  output.on('resize', draw)
  output.write(alternateScreen.open)
  try {
    while (!end.aborted) {
      text = await read(sizeOf(output).columns)
      if (!end.aborted) draw()
      await pause(everyMs, end)
    }
  } finally {
    input.off('data', onKey)
    output.off('resize', draw)
    input.setRawMode(false)
    input.pause()
    output.write(alternateScreen.close)
  }
}

/** Writes over what is there, and clears only what the new text leaves, so that nothing flickers. */
function frame(text: string, rows: number): string {
  const lines = text.trimEnd().split('\n').slice(0, rows)
  return `${home}${lines.map((line) => `${line}${clearRestOfLine}`).join('\r\n')}${clearBelow}`
}
