/** Checks the output of `ip -j`. Newer versions may add keys and flags, but what we read must have the known shape. */
import * as z from 'zod/mini'
import { BondsocksError } from '../../base/errors.js'

/** Throws `BAD_OUTPUT`: without understanding it we change nothing. */
export function readJson<Item extends z.ZodMiniType<object>>(
  item: Item,
  text: string | undefined,
  what: string,
): z.infer<Item>[] {
  try {
    return z.array(item).parse(JSON.parse(text || '[]'))
  } catch (cause) {
    throw new BondsocksError(
      'BAD_OUTPUT',
      `"ip -j ${what} show" printed what we cannot read, so nothing is changed: does it work by hand, and which version is it (ip -V)?`,
      { cause },
    )
  }
}
