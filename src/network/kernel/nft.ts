import * as z from 'zod'

/**
 * What `nft -j list ruleset` prints (libnftables-json(5)). Keys that we do not read are left out; the expressions of a rule are nested as its
 * author liked.
 */
export const rulesetJson = z.object({
  nftables: z.array(
    z.object({
      chain: z
        .object({
          family: z.string(),
          table: z.string(),
          name: z.string(),
          type: z.string().optional(),
          hook: z.string().optional(),
          policy: z.string().optional(),
        })
        .optional(),
      rule: z.object({ family: z.string(), table: z.string(), chain: z.string(), expr: z.array(z.unknown()) }).optional(),
    }),
  ),
})
