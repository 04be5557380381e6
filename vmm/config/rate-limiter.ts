// Rate limits, which several kinds of devices have. The types are those of devices/virtio/rate-limiter.ts.

/** A timer holds no longer wait than some 24 days. */
export const MAX_REFILL_MS = 24 * 60 * 60 * 1000;
const TOKENS = { type: "integer", minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const;

const BUCKET_SCHEMA = {
  type: "object",
  properties: {
    size: TOKENS,
    oneTimeBurst: TOKENS,
    refillTimeMs: { type: "integer", minimum: 0, maximum: MAX_REFILL_MS, "x-unit": "ms" },
  },
  required: ["size", "oneTimeBurst", "refillTimeMs"],
  additionalProperties: false,
} as const;

export const RATE_LIMITER_SCHEMA = {
  type: "object",
  properties: { bandwidth: BUCKET_SCHEMA, operations: BUCKET_SCHEMA },
  required: [],
  additionalProperties: false,
} as const;
