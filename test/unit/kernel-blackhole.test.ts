import t from 'tap'
import { turnedIntoTcp, watchBlackHole } from '../../src/gateway/wans/kernel-blackhole.js'
import { toLog } from '../../src/telemetry/events.js'
import { memoryLog } from '../support/memory-log.js'
import { paceOf } from '../support/pace.js'

const netstat = (count: number) =>
  `TcpExt: SyncookiesSent\nTcpExt: 0\nMPTcpExt: MPCapableSYNRX MPCapableSYNTXDrop MPCapableSYNTXDisabled\nMPTcpExt: 4 5 ${count}\n`

t.test('reads the counter, where the kernel has it', async (t) => {
  t.equal(turnedIntoTcp(netstat(7)), 7)
  t.equal(turnedIntoTcp('MPTcpExt: MPCapableSYNRX\nMPTcpExt: 1\n'), 0)
  t.equal(turnedIntoTcp(''), 0)
})

t.test('says how many connections it cost, and makes the kernel forget', async (t) => {
  const log = memoryLog()
  const end = new AbortController()
  const texts = [netstat(3), netstat(3), netstat(5), netstat(5), netstat(6)]
  let forgotten = 0
  await watchBlackHole(
    {
      emit: toLog(log),
      pace: paceOf(),
      everyMs: 1,
      async read() {
        const text = texts.shift()
        if (text !== undefined) return text
        end.abort()
        throw new Error('gone')
      },
      async forget() {
        forgotten += 1
        if (forgotten === 2) throw new Error('EACCES')
      },
    },
    end.signal,
  )
  t.same(log.lines, [
    'warn the kernel took MPTCP for blocked and made 2 connections plain TCP: it is told to forget that',
    'warn the kernel took MPTCP for blocked and made 1 connections plain TCP: it is told to forget that',
    'warn the kernel does not forget it: EACCES',
  ])
})
