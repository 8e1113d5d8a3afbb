/**
 * SIGUSR1 opens Node's debugger on a port of loopback: anybody on the machine could command a process of root's. To be imported before
 * anything else.
 */
process.on('SIGUSR1', () => undefined)
