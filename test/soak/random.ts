/** Random numbers that can be repeated: the same seed gives the same numbers (xorshift, period 2^32 - 1). */
export class Chance {
  private state: number

  constructor(seed: number) {
    this.state = Math.imul(seed + 1, 2_654_435_761) >>> 0 || 1
  }

  /** A number from 0 to below 1. */
  next(): number {
    this.state ^= this.state << 13
    this.state ^= this.state >>> 17
    this.state ^= this.state << 5
    this.state >>>= 0
    return this.state / 2 ** 32
  }

  /** An integer, both ends included. */
  between(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1))
  }

  /** Small sizes are as likely as large ones: each doubling has the same probability. */
  size(min: number, max: number): number {
    return Math.round(min * (max / min) ** this.next())
  }

  shuffled<Item>(items: readonly Item[]): Item[] {
    return items
      .map((item) => ({ item, at: this.next() }))
      .sort((one, other) => one.at - other.at)
      .map(({ item }) => item)
  }
}
