/** What may import what (docs/ARCHITECTURE.md): an arrow never points upwards, and there is no circle. */
const to = (...folders) => ({ path: folders.map((folder) => `^src/${folder}/`) })
const rule = (name, comment, from, into) => ({ name, comment, severity: 'error', from, to: into })

const decisions = [
  '^src/gateway/(facts|hag-troubles|model)\\.ts$',
  '^src/gateway/steering/(admissions|deeds|events|hag-states|ipv6|schedule|state|target|wan-links)\\.ts$',
  '^src/gateway/((wans|hags)/health|wans/bundle|roles/(?!sampler|volume)[^/]+)\\.ts$',
]

module.exports = {
  forbidden: [
    rule('no-circles', 'two files that need one another are one file, or a third', {}, { circular: true }),
    rule('base-is-ground', 'base/ knows nothing of ours', to('base'), { path: '^src/', pathNot: '^src/base/' }),
    rule('engine-decides-nothing', 'engine/ knows only base/', to('engine'), { path: '^src/', pathNot: '^src/(base|engine)/' }),
    rule(
      'gateway-parts-are-apart',
      'wans/, hags/, roles/ and connections/ meet in steering/ only',
      { path: '^src/gateway/(wans|hags|roles|connections)/' },
      { path: '^src/gateway/(wans|hags|roles|connections|steering)/', pathNot: '^src/gateway/$1/' },
    ),
    rule(
      'decisions-do-nothing',
      'what facts mean, and what follows, is decided without clock or I/O: only types come from those that act',
      { path: decisions },
      { pathNot: [...decisions, '^src/base/address'], dependencyTypesNot: ['type-only'] },
    ),
    rule(
      'the-hub-is-the-top',
      'the hub wires all parts, and only the gateway knows it',
      { path: '^src/', pathNot: '^src/gateway/(gateway|steering/(hub|probers|passes|bonding))\\.ts$' },
      { path: '^src/gateway/steering/(hub|probers|passes|bonding)\\.ts$' },
    ),
    rule('telemetry-renders', 'telemetry/ knows who shows events, not who emits them', to('telemetry'), {
      path: '^src/',
      pathNot: '^src/(base|telemetry)/',
    }),
    rule('control-serves-both', 'control/ asks no role', to('control'), to('gateway', 'hag', 'lab', 'cli', 'service')),
    rule('network-stands-alone', 'network/ serves gateway and HAG', to('network'), to('gateway', 'hag', 'lab', 'cli')),
    rule('gateway-is-apart', 'the gateway knows no HAG program', to('gateway'), to('hag')),
    rule('hag-is-apart', 'the HAG program knows no gateway', to('hag'), to('gateway')),
    rule(
      'no-lab-in-the-product',
      'gateway and HAG never import the lab',
      { path: '^src/', pathNot: '^src/(lab|cli)/' },
      to('lab'),
    ),
    rule('commands-are-the-top', 'nobody imports a command', { path: '^src/', pathNot: '^src/(cli/|main)' }, to('cli')),
    rule('no-tests-in-the-product', 'src/ imports nothing of the tests', { path: '^src/' }, { path: '^(test|bench|scripts)/' }),
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'types', 'node', 'default'] },
  },
}
