/** The control path as a process of its own, on the kernel it runs on: `plan|apply|remove|apply-and-die`. Prints steps as JSON. */
import { Network, systemKernel } from '../../src/network/network.js'
import { gateway } from './network-world.js'

const network = new Network(systemKernel())
const act = async (command = '') => {
  if (command === 'plan') return (await network.plan(gateway())).steps
  if (command === 'remove') return network.remove()
  return (await network.apply(gateway())).steps
}
try {
  const [, , command] = process.argv
  process.stdout.write(JSON.stringify((await act(command)).map(({ text }) => text)))
  if (command === 'apply-and-die') process.kill(process.pid, 'SIGKILL')
} catch (error) {
  process.stderr.write(`${(error as Error).message}\n`)
  process.exitCode = 1
}
