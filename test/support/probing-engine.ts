/** What probers use of the engine. The test answers, on a clock that it moves. */
import type { Engine, Inspection, Probe, ProbeResult } from '../../src/engine/contract.js'

export const failed = (stage: 'connect' | 'greeting' | 'authentication' | 'watch', code: string): ProbeResult => ({
  ok: false,
  stage,
  failure: { code, errno: 0, syscall: 'connect' },
})
export const silence = failed('connect', 'ETIMEDOUT')
export const answer = (connectMs = 30, protocol: 'mptcp' | 'tcp' = 'mptcp'): ProbeResult => ({
  ok: true,
  local: { address: '10.1.0.2', port: 1 },
  protocol,
  connectMs,
})

interface Answers {
  probe: (probe: Probe) => ProbeResult
  /** How long it takes: an answer, and none. */
  answerMs: number
  silenceMs: (probe: Probe) => number
  /** Default: no connections. */
  inspect?: (() => Inspection[]) | undefined
  relaying: number
}

/** Keeps in `asked` which probes were sent, as text. `more`: what else of the engine is used. */
export function probingEngine({ probe: says, answerMs, silenceMs, inspect, relaying }: Answers, more: object = {}) {
  const asked: string[] = []
  const engine = {
    async probe(probe: Probe) {
      asked.push(`${probe.protocol} ${probe.remote.address} via ${probe.bind}`)
      const result = says(probe)
      const isSilence = !result.ok && result.failure.code === 'ETIMEDOUT' && result.connectMs === undefined
      await new Promise((resolve) => setTimeout(resolve, isSilence ? silenceMs(probe) : answerMs))
      return result
    },
    inspect: async () => inspect?.() ?? [],
    stats: () => ({ relaying }),
    useDevices() {},
    abandon() {},
    ...more,
  } as unknown as Engine
  return { engine, asked }
}
