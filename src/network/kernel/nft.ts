import * as z from 'zod/mini'

/**
 * What `nft -j list ruleset` prints (libnftables-json(5)). Keys that we do not read are left out; the expressions of a rule are nested as its
 * author liked.
 */
export const rulesetJson = z.object({
  nftables: z.array(
    z.object({
      chain: z.optional(
        z.object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          type: z.optional(z.string()),
          hook: z.optional(z.string()),
          policy: z.optional(z.string()),
        }),
      ),
      rule: z.optional(z.object({ family: z.string(), table: z.string(), chain: z.string(), expr: z.array(z.unknown()) })),
    }),
  ),
})
