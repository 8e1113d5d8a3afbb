/** An event of each kind, with the line that the log has of it: people and their programs look for these texts. */
import type { UseReason } from '../../src/telemetry/events/use.js'
import type { Event } from '../../src/telemetry/events.js'
import type { Fields } from '../../src/telemetry/log.js'

const wans = [{ name: 'dsl', interface: 'ppp0', address4: '10.1.0.2' }]
const hag = '203.0.113.3:1080'
const both = { wan: 'dsl', family: 6 } as const
const bundled = { type: 'wan-bundle', wan: 'dsl', connections: 4, joined: 1, bind: '10.1.0.2', device: 'ppp0' } as const
const causes = {
  'fell-back':
    'they became plain TCP: the HAG has no MPTCP, or something on the path where they begin removes it; try another port for the HAG',
  'not-answered': 'what would join over it gets no answer: something on its path drops it, often for the option MP_JOIN',
  'limit-reached': "the kernel's limit of subflows is reached (ip mptcp limits)",
  'not-tried': 'the kernel did not try to join it; look at ip mptcp endpoint show and sysctl net.mptcp',
  reset:
    'what would join over it is refused: something on its path resets it, or another machine than the HAG answers there (a load balancer)',
  stripped:
    'what would join over it is answered without MPTCP: something on its path removes the option MP_JOIN; try another port for the HAG',
  closed:
    'what joins over it is answered, and closed at once: the HAG lets no more join (its ip mptcp limits), or something on the path changes MPTCP after the SYN',
  unknown: 'the kernel does not tell why',
}
const [rateWith, rateWithout] = [1_250_000, 250_000]
const others = ['dsl', 'sat']
const uses: [UseReason, string][] = [
  [
    { why: 'others-full', others, seconds: 3, rate: rateWith },
    'overflow WAN lte joins: dsl and sat has been full for 3 s at 10.0 Mbit/s',
  ],
  [{ why: 'others-suffice', others }, 'overflow WAN lte leaves: dsl and sat can carry it alone'],
  [{ why: 'others-not-full' }, 'overflow WAN lte leaves: the others are no longer full'],
  [
    { why: 'no-gain', rateWithout, rateWith },
    'overflow WAN lte leaves: the sum was 2.0 Mbit/s without it and is 10.0 Mbit/s with it',
  ],
  [
    { why: 'drag-trial', rateWith, others, alone: 2_500_000 },
    'WAN lte is taken out for a trial: with it the sum is 10.0 Mbit/s, dsl and sat alone carried 20.0 Mbit/s',
  ],
  [
    { why: 'no-drag', rateWith, rateWithout },
    'WAN lte is in use again: the sum is not much higher without it (10.0 Mbit/s, then 2.0 Mbit/s)',
  ],
  [
    { why: 'drags', minutes: 2, rateWith, rateWithout },
    'WAN lte stays out for 2 min: the sum was 10.0 Mbit/s with it and is 2.0 Mbit/s without it',
  ],
  [{ why: 'no-better', role: 'backup' }, 'backup WAN lte takes over: no better WAN is up'],
  [{ why: 'usable', isAgain: false }, 'WAN lte is in use'],
  [{ why: 'usable', isAgain: true }, 'WAN lte is in use again'],
  [{ why: 'volume-exhausted' }, 'WAN lte is out of use: its monthly volume is used up'],
  [{ why: 'not-needed', role: 'overflow', others }, 'overflow WAN lte is out of use: dsl and sat carries all'],
]
const limits = [
  ['connections', 'accepting pauses: there are 9 x'],
  ['descriptors', 'accepting pauses: none of 9 x is left (raise the limit: `ulimit -n`, LimitNOFILE=)'],
  ['memory', 'accepting pauses: the kernel has no memory left for sockets (see net.ipv4.tcp_mem)'],
  [
    'pipes',
    'some connections take more processor time: 9 x are too few for their pipes (raise the limit: `ulimit -n`, LimitNOFILE=)',
  ],
] as const
const refused = { type: 'client-refused', client: '203.0.113.9', limit: '75 x', destination: '10.0.0.1:1081' } as const
const refusals = [
  ['not-a-client', 'refused 203.0.113.9: not in `clients`'],
  [
    'method',
    'refused 203.0.113.9: it offers no way to log in that is taken here: a user name and password if there is a users_file, else none',
  ],
  ['credentials', 'refused 203.0.113.9: wrong user name or password'],
  ['share', 'refused 203.0.113.9: it has 75 x, or as many as are free'],
  ['waited', 'refused 203.0.113.9: it had asked for nothing yet, and others needed its place'],
  [
    'not-redirected',
    'refused a connection from 203.0.113.9 to our own listener 10.0.0.1:1081: nothing redirected it, or a REDIRECT rule that takes local destinations too: let that rule in `iptables -t nat -S` skip them with `-m addrtype ! --dst-type LOCAL`',
  ],
  [
    'loop',
    "refused a redirect loop: the gateway's own connection from 203.0.113.9 to 10.0.0.1:1081 was redirected to us: take away the REDIRECT rule in the OUTPUT chain (`iptables -t nat -S OUTPUT`), or limit it to LAN interfaces with `-i`",
  ],
] as const
const effects = [
  [
    'few-ports',
    'a WAN carries at most as many connections at once as net.ipv4.ip_local_port_range has ports, to all HAGs together',
  ],
  ['idle-dies', 'what idles behind a NAT may die unnoticed'],
  ['urgent-lost', "urgent data, as FTP's abort sends it, may be lost"],
  ['slow-download', 'a fast WAN with a long round trip is not filled by a single download'],
  ['slow-upload', 'a slower second WAN is not filled by a single upload'],
  ['small-waits', 'small messages may wait for an acknowledgement'],
] as const
const periods = [
  [1, 'last-minute', ' (once in the last minute)'],
  [7, 'end', ' (7 times since then)'],
  [7, undefined, ' (7 times)'],
] as const
export const lines: [event: Event, line: string, fields?: Fields][] = [
  [{ type: 'wan-list', wans }, 'info WANs changed', { wans }],
  [{ type: 'wan-changed', wan: 'dsl', state: 'up', reason: 'r', rttMs: 20.6 }, 'info WAN dsl is up: r', { rttMs: 21 }],
  [{ type: 'wan-changed', ...both, state: 'down', reason: 'r', rttMs: undefined }, 'warn WAN dsl (IPv6) is down: r'],
  [
    { type: 'wan-answers-again', ...both, missing: 3 },
    'info WAN dsl (IPv6) answers again: it is used after 3 more, because it fell lately',
  ],
  [{ type: 'wan-mptcp', ...both, support: 'yes' }, 'info WAN dsl (IPv6) carries MPTCP again'],
  [
    { type: 'wan-mptcp', wan: 'lte', support: 'blocked' },
    'warn WAN lte carries no MPTCP, something on its path drops it: what begins there is not bonded',
  ],
  [
    { type: 'wan-mptcp', wan: 'lte', support: 'stripped' },
    'warn WAN lte carries no MPTCP, something on its path removes it: what begins there is not bonded',
  ],
  [{ type: 'wan-full-size', wan: 'dsl', passes: true }, 'info WAN dsl carries full-size packets again'],
  [
    { type: 'wan-full-size', wan: 'dsl', passes: false },
    'warn WAN dsl is down: full-size packets vanish on its path, small ones pass: lower its MTU (ip link set dev IFACE mtu 1400, say); until then it is used only where no other WAN works',
  ],
  [{ ...bundled, lack: undefined }, 'info WAN dsl is in the bundle again: 1 of 4 connections use it'],
  [
    { ...bundled, family: 4, lack: 'other-device' },
    'warn WAN dsl (IPv4) carries nothing by ppp0: what is sent from 10.1.0.2 leaves by another interface; look at ip rule show and ip route get HAG from 10.1.0.2 oif ppp0',
  ],
  ...Object.entries(causes).map(([lack, cause]): [Event, string] => [
    { ...bundled, lack: lack as keyof typeof causes },
    `warn WAN dsl is not in the bundle: 1 of 4 connections use it; ${cause}`,
  ]),
  [
    { type: 'wan-without-hag', wan: 'lte', lacks: 6, isOutnumbered: false },
    'warn WAN lte is not in the bundle: it has no IPv6 address and gateway, and no HAG has an IPv4 one',
  ],
  [
    { type: 'wan-without-hag', wan: 'lte', lacks: 4, isOutnumbered: true },
    'warn WAN lte is not in the bundle: it has no IPv4 address and gateway, and more WANs have IPv4 than IPv6',
  ],
  [
    { type: 'wan-joins-anew', wan: 'lte', lone: 'dsl', count: 7 },
    'info 7 connections have only WAN dsl: WAN lte joins all of them anew',
  ],
  [{ type: 'volume-lost', file: 'f', reason: 'EACCES' }, "warn f cannot be read (EACCES): the WANs' volume begins at 0"],
  [{ type: 'volume-not-kept', file: 'f', reason: 'r' }, "warn the WANs' volume cannot be kept in f: r"],
  ...uses.map(([reason, text]): [Event, string] => [{ type: 'wan-use', wan: 'lte', isInUse: true, reason }, `info ${text}`]),
  [{ type: 'hag-list', hags: [hag] }, 'info HAGs changed', { hags: [hag] }],
  [{ type: 'hag-lookup', name: 'hag.example' }, 'info the HAG hag.example can be looked up again'],
  [
    { type: 'hag-lookup', name: 'hag.example', code: 'ETIMEOUT' },
    'warn the HAG hag.example cannot be looked up: ETIMEOUT',
    { code: 'ETIMEOUT' },
  ],
  [{ type: 'hag-changed', hag, state: 'down', reason: 'r' }, `warn HAG ${hag} is down: r`],
  [{ type: 'hag-changed', hag, state: 'returning', reason: '' }, `info HAG ${hag} answers again`],
  [{ type: 'hag-changed', hag, state: 'up', reason: '' }, `info HAG ${hag} is up`],
  [{ type: 'hag-answers-requests', hag }, `info HAG ${hag} answers requests again`],
  [
    { type: 'hag-admission', hag, wan: 'dsl', bind: '10.1.0.2', reason: 'r' },
    `warn HAG ${hag} refuses us over WAN dsl, from 10.1.0.2: r`,
  ],
  [
    { type: 'hag-admission', hag, wan: 'dsl', bind: '10.1.0.2', reason: '' },
    `info HAG ${hag} serves us over WAN dsl, from 10.1.0.2`,
  ],
  [{ type: 'hag-reaches-ipv6', hag }, `info HAG ${hag} reaches IPv6 destinations again`],
  [
    { type: 'connections-reset', count: 3, hag },
    `warn 3 connections over HAG ${hag} were reset, so that their clients begin anew`,
  ],
  [
    { type: 'connections-reset', count: 3 },
    'warn 3 connections had no way left and were reset, so that their clients begin anew',
  ],
  [{ type: 'network-set-up', wans }, 'info network is set up', { wans }],
  [{ type: 'network-changed', steps: ['s'] }, 'info the network changed and was set up anew', { steps: ['s'] }],
  [{ type: 'network-note', note: 'n' }, 'warn n'],
  [{ type: 'network-failed', reason: 'r', isAtStart: true }, 'warn the network could not be set up, another try follows: r'],
  [
    { type: 'network-failed', reason: 'r', isAtStart: false },
    'warn the network could not be set up anew, another try follows: r',
  ],
  [{ type: 'network-works-again' }, 'info the network set-up works again'],
  [
    { type: 'kernel-black-hole', count: 2 },
    'warn the kernel took MPTCP for blocked and made 2 connections plain TCP: it is told to forget that',
  ],
  [{ type: 'kernel-black-hole-stays', reason: 'r' }, 'warn the kernel does not forget it: r'],
  [{ type: 'hag-need-unmet', need: 'probing', note: 'n' }, 'info n'],
  [{ type: 'hag-need-met', need: 'probing', note: 'n' }, 'info n'],
  [{ type: 'lan-redirected' }, 'info the LAN is redirected'],
  [{ type: 'lan-not-redirected' }, 'info the LAN is not redirected: its connections go as without bondsocks'],
  [{ type: 'endpoint-not-deleted', reason: 'r' }, 'warn an endpoint could not be deleted: r'],
  [{ type: 'network-watch-ended', reason: 'r' }, 'warn the watch on the network ended and is started again: r'],
  [
    { type: 'guardian-ended', reason: 'r', restartMs: 100 },
    'warn the guardian ended and is started again: r',
    { milliseconds: 100 },
  ],
  [{ type: 'redirection-stays', reason: 'r' }, 'warn the redirection stays until the end: r'],
  [{ type: 'network-restored' }, 'info network is as before'],
  [{ type: 'other-hags-unknown', reason: 'r' }, 'info other HAGs on this machine are not asked: r'],
  [{ type: 'hag-network-not-restored', reason: 'not everything could be removed: r' }, 'warn not everything could be removed: r'],
  [{ type: 'gateway-listens', port: 1081, hasIpv6: true }, 'info listening', { port: 1081 }],
  [
    { type: 'gateway-listens', port: 1081, hasIpv6: false },
    'info listening, without IPv6: this machine has none',
    { port: 1081 },
  ],
  [
    { type: 'no-hag', reasons: 'r', onHagDown: 'direct' },
    'warn no HAG can be reached: connections go direct, without bonding: r',
  ],
  [{ type: 'no-hag', reasons: 'r', onHagDown: 'reject' }, 'warn no HAG can be reached: connections are refused (on_hag_down): r'],
  [{ type: 'gateway-runs' }, 'info gateway runs'],
  [
    { type: 'hag-listens', addresses: ['::'], port: 1080, protocol: 'mptcp', authentication: true },
    'info HAG listens',
    { address: '::', port: 1080, protocol: 'mptcp', authentication: true },
  ],
  [
    { type: 'hag-listens', addresses: ['::', '0.0.0.0'], port: 1080, protocol: 'tcp', authentication: false },
    'info HAG listens',
    { address: ['::', '0.0.0.0'], port: 1080, protocol: 'tcp', authentication: false },
  ],
  [{ type: 'hag-listens-not', at: '[::]:1080', code: 'EADDRINUSE' }, 'warn the HAG does not listen on [::]:1080: EADDRINUSE'],
  [
    { type: 'hag-without-mptcp', code: 'ENOPROTOOPT' },
    'warn without MPTCP (ENOPROTOOPT): gateways reach this HAG, but over one WAN at a time; set the sysctl net.mptcp.enabled to 1',
  ],
  [
    { type: 'hag-without-mptcp', code: 'EINVAL' },
    'warn without MPTCP (EINVAL): gateways reach this HAG, but over one WAN at a time; use a kernel with CONFIG_MPTCP',
  ],
  [{ type: 'control-failed', reason: 'r' }, 'info there is no control socket for `bondsocks status`: r'],
  [{ type: 'stopping', seconds: 10, connections: 3 }, 'info stopping: connections may end', { seconds: 10, connections: 3 }],
  [{ type: 'connections-aborted', count: 3 }, 'warn 3 connections aborted'],
  [{ type: 'hag-stopped' }, 'info stopped'],
  [{ type: 'hangup-ignored' }, 'info SIGHUP is ignored: SIGTERM stops'],
  ...effects.map(([effect, text]): [Event, string] => [
    { type: 'option-refused', option: 'SO_X', code: 'EPERM', effect },
    `info the socket option SO_X needs CAP_NET_ADMIN: ${text}`,
  ]),
  [
    { type: 'option-refused', option: 'SO_X', code: 'EOPNOTSUPP', effect: 'small-waits' },
    'info the socket option SO_X is not taken by this kernel (EOPNOTSUPP): small messages may wait for an acknowledgement',
  ],
  [{ type: 'secret-exposed', key: 'users_file', file: 'f' }, 'warn users_file f can be read by others: chmod 600 f'],
  [{ type: 'secret-exposed', key: 'password_file', file: 'f' }, 'warn password_file f can be read by others: chmod 600 f'],
  [{ type: 'users-read', file: 'f', users: 2 }, 'info users_file f read again: 2 users'],
  [{ type: 'users-kept', reason: 'users_file f: r' }, 'warn users_file f: r; the former users stay'],
  [{ type: 'destinations-refused', reason: 'r' }, 'error destinations are refused: r'],
  ...limits.map(([cause, text]): [Event, string, Fields] => [
    { type: 'limit', cause, isReached: true, limit: '9 x' },
    `warn ${text}`,
    { cause },
  ]),
  [{ type: 'limit', cause: 'pipes', isReached: false, limit: '9 x' }, 'info accepting goes on', { cause: 'pipes' }],
  ...refusals.map(([cause, text]): [Event, string, Fields] => [
    { ...refused, cause, count: 1 },
    `warn ${text}`,
    { client: refused.client, cause, count: 1 },
  ]),
  ...periods.map(([count, during, times]): [Event, string, Fields] => [
    { ...refused, cause: 'not-a-client', count, during },
    `warn refused 203.0.113.9: not in \`clients\`${times}`,
    { client: refused.client, cause: 'not-a-client', count },
  ]),
  [{ type: 'others-refused', count: 7, during: 'last-minute' }, 'warn refused others 7 times in the last minute', { count: 7 }],
  [
    { type: 'client-waits-for-names', client: '203.0.113.9', names: 16 },
    'warn a client asks for more names than are answered, and waits for its own: is the name server silent?',
    { client: '203.0.113.9', names: 16 },
  ],
]
