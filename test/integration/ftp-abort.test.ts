/** FTP's ABOR comes with urgent data (RFC 959, section 4.1.3): a real server hears it through gateway and HAG, and the session goes on. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { World } from '../support/hybrid.js'
import { needsRoot } from '../support/namespaces.js'
import { start } from '../support/process.js'

const missing = ['/usr/sbin/vsftpd', '/usr/bin/perl'].find((file) => !existsSync(file))
const skip = needsRoot || (missing !== undefined && `needs ${missing} (packages vsftpd and perl)`)

// Node cannot send urgent data. Telnet's Interrupt Process and Synch are IAC IP IAC DM, with the DM urgent.
const client = String.raw`
use IO::Socket::IP; use Socket qw(MSG_OOB);
$| = 1; $SIG{ALRM} = sub { print "timeout\n"; exit 1 }; alarm 15;
my ($host) = @ARGV;
my $control = IO::Socket::IP->new(PeerHost => $host, PeerPort => 21) or die "control: $@";
sub answer { while (my $line = <$control>) { if ($line =~ /^(\d\d\d) (.*)/) { print "$1\n"; return $2 } } print "end\n"; exit 1 }
sub say_ { syswrite $control, "$_[0]\r\n" }
answer(); say_('USER anonymous'); answer(); say_('PASS x'); answer(); say_('TYPE I'); answer();
say_('EPSV'); my ($port) = answer() =~ /\|(\d+)\|/;
my $data = IO::Socket::IP->new(PeerHost => $host, PeerPort => $port) or die "data: $@";
say_('RETR large'); answer(); sysread $data, my $some, 100000;
syswrite $control, "\xff\xf4\xff"; send $control, "\xf2", MSG_OOB; say_('ABOR');
close $data; answer(); answer(); say_('NOOP'); answer(); say_('QUIT'); answer();
`

t.test('FTP', { skip }, async (t) => {
  const world = await World.run(t, { shaped: false })
  const folder = mkdtempSync(join(tmpdir(), 'bondsocks-ftp-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const [root, empty, file] = [join(folder, 'root'), join(folder, 'empty'), join(folder, 'vsftpd.conf')]
  for (const one of [root, empty]) mkdirSync(one)
  for (const one of [folder, root, empty]) chmodSync(one, 0o755)
  writeFileSync(join(root, 'large'), '')
  truncateSync(join(root, 'large'), 2 ** 30)
  const settings = [
    'listen=NO',
    'listen_ipv6=YES',
    'anonymous_enable=YES',
    'background=NO',
    `anon_root=${root}`,
    `secure_chroot_dir=${empty}`,
  ]
  writeFileSync(file, `${settings.join('\n')}\n`)
  start(t, world.lab.argv('server', ['vsftpd', file]))
  for (const host of [world.lab.addresses.server, world.lab.addresses.server6]) {
    const { stdout } = await world.lab.exec('lan', ['perl', '-e', client, host])
    const codes = stdout.trim().split('\n')
    // What becomes of the transfer, then of the ABOR: both are told, and the session goes on.
    t.same(codes.slice(0, 6), ['220', '331', '230', '200', '229', '150'], `${host}: a transfer begins`)
    t.match(codes[6], /^4(26|51)$/, 'it is aborted')
    t.match(codes[7], /^22[56]$/, 'the server has heard the ABOR')
    t.same(codes.slice(8), ['200', '221'], 'the session goes on')
  }
})
