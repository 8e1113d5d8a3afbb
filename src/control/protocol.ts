/** What is said over the control socket. */

/** Goes up when an answer loses a field or gives it another meaning; new fields and commands may come at any time. */
export const protocolVersion = 1

/** The first line, from the program. */
export interface About {
  bondsocks: string
  protocol: number
  role: 'gateway' | 'hag'
  pid: number
}

export type Answer =
  | { readonly error: { readonly code: string; readonly message: string } }
  | { readonly [command: string]: object }
