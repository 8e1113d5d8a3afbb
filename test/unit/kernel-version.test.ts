import t from 'tap'
import { joinsByOwnDevice } from '../../src/base/kernel-version.js'

t.test('from Linux 6.7 on', async (t) => {
  for (const version of ['5.15.0-91-generic', '6.1.0-28-amd64', '6.6.63', '5.4', '']) t.notOk(joinsByOwnDevice(version), version)
  for (const version of ['6.7.12', '6.12.6-amd64', '6.18.44-x', '7.0.0', '10.1']) t.ok(joinsByOwnDevice(version), version)
})
