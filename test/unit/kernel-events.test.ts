import t from 'tap'
import { kernelText, parseKernelEvent } from '../../src/cli/kernel-events.js'

const wanOf = (address: string) => ({ '10.2.0.2': 'lte', 'fd00:2::2': 'lte' })[address]
const text = (line: string) => {
  const event = parseKernelEvent(line, wanOf)
  return event && kernelText(event)
}

t.test('lines of ip mptcp monitor', async (t) => {
  const tuple = 'remid=0 locid=1 saddr4=10.2.0.2 daddr4=203.0.113.3 sport=51981 dport=1080'
  const cases: [string, string | undefined][] = [
    [
      '[       CREATED] token=b40e06f7 remid=0 locid=0 saddr4=10.1.0.2 daddr4=203.0.113.3 sport=39138 dport=1080',
      'kernel: created 10.1.0.2:39138 -> 203.0.113.3:1080 token b40e06f7',
    ],
    [
      `[SF_ESTABLISHED] token=b40e06f7 ${tuple} backup=0 ifindex=2`,
      'kernel: sf established over lte 10.2.0.2:51981 -> 203.0.113.3:1080 token b40e06f7',
    ],
    [
      `[SF_ESTABLISHED] token=1 ${tuple} backup=1 ifindex=2`,
      'kernel: sf established over lte 10.2.0.2:51981 -> 203.0.113.3:1080 as backup token 1',
    ],
    [
      `[     SF_CLOSED] token=1 ${tuple} backup=0 ifindex=2 error=110 reset_reason=6 reset_flags=1`,
      'kernel: sf closed over lte 10.2.0.2:51981 -> 203.0.113.3:1080 error 110 reset: middlebox interference token 1',
    ],
    [
      '[   SF_PRIORITY] token=1 remid=0 locid=1 saddr6=fd00:2::2 daddr6=2001:db8::3 sport=5 dport=1080 backup=1 ifindex=2',
      'kernel: sf priority over lte [fd00:2::2]:5 -> [2001:db8::3]:1080 as backup token 1',
    ],
    ['[     ANNOUNCED] token=1 remid=3 daddr4=203.0.113.4 dport=0', 'kernel: announced token 1'],
    ['[        CLOSED] token=b40e06f7', 'kernel: closed token b40e06f7'],
    ['', undefined],
    ['RTNETLINK answers: Operation not permitted', undefined],
  ]
  for (const [line, expected] of cases) t.equal(text(line), expected, line)
})
