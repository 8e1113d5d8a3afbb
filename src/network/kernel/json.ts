/** What `ip -j` prints, checked: newer versions add keys and flags, which is fine; another shape of what we read is not. */
import * as z from 'zod'
import { BondsocksError } from '../../base/errors.js'

/** Throws `BAD_OUTPUT`: better no change at all than one made on half an understanding. */
export function readJson<Item extends z.ZodType<object>>(item: Item, text: string | undefined, what: string): z.infer<Item>[] {
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
