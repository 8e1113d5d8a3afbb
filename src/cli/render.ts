/** Plans as text. */
export interface RenderedPlan {
  steps: readonly { text: string }[]
  notes: readonly string[]
}

/** A line for each step, then the notes. `nothing` if there is no step. */
export function renderSteps({ steps, notes }: RenderedPlan, nothing: string): string {
  const lines = steps.length === 0 ? [nothing] : steps.map(({ text }) => text)
  return `${[...lines, ...notes.map((note) => `note: ${note}`)].join('\n')}\n`
}
