import { setMaxListeners } from 'node:events'

/** Resolves after the time, or when one of the signals is aborted. Leaves no listener behind on signals that live long. */
export function pause(milliseconds: number, ...signals: AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    if (signals.some(({ aborted }) => aborted)) return resolve()
    const done = () => {
      clearTimeout(timer)
      for (const signal of signals) signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, milliseconds)
    for (const signal of signals) {
      // Many may wait for it at a time, of which Node would warn.
      setMaxListeners(0, signal)
      signal.addEventListener('abort', done, { once: true })
    }
  })
}

/** Resolves when the signal is aborted; at once if it was before. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}
