/** Waits for things that take their time, on machines that do other things, too. */

/** Asks until the answer is right; returns the last answer. For states that come a moment later, such as a closed descriptor. */
export async function settle<Value>(
  ask: () => Value | Promise<Value>,
  isRight: (value: Value) => boolean,
  patienceMs = 15_000,
): Promise<Value> {
  const deadline = Date.now() + patienceMs
  for (;;) {
    const value = await ask()
    if (isRight(value) || Date.now() > deadline) return value
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Measures again, a few times at most, because a busy machine may have spoiled the figure; returns the last one. */
export async function remeasure<Figure>(
  measure: () => Figure | Promise<Figure>,
  isRight: (figure: Figure) => boolean,
  tries = 3,
): Promise<Figure> {
  for (;;) {
    const figure = await measure()
    if (isRight(figure) || --tries <= 0) return figure
  }
}

export const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))
