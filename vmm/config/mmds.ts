// The metadata service of a guest, as Firecracker has it: a web server of the monitor's at an address that only the guest
// reaches, by the network devices that lead to it.
import type { Checked } from "./check.js";
import type { ResolvedNet } from "./nets.js";
import { OCTET } from "./schema.js";

export interface MmdsConfig {
  /** "V2" answers only those who show a token, which they get by a PUT; default: "V1", everybody. */
  readonly version?: "V1" | "V2" | undefined;
  /** A link-local IPv4 address; default: 169.254.169.254. */
  readonly address?: string | undefined;
  /** Answers in the form of EC2's service, also to those who ask for JSON. */
  readonly imdsCompat?: boolean | undefined;
}

export type ResolvedMmds = { readonly [Key in keyof MmdsConfig]-?: NonNullable<MmdsConfig[Key]> };

export const MMDS_SCHEMA = {
  type: "object",
  title: "Metadata service",
  properties: {
    version: { enum: ["V1", "V2"] },
    address: {
      type: "string",
      // RFC 3927 §2.1: not the first and the last 256.
      pattern: `^169\\.254\\.(?!0\\.|255\\.)${OCTET}\\.${OCTET}$`,
      "x-expected": "a link-local IPv4 address, 169.254.1.0 to 169.254.254.255",
    },
    imdsCompat: { type: "boolean" },
  },
  required: [],
  additionalProperties: false,
} as const;

export const DEFAULT_MMDS_ADDRESS = "169.254.169.254";

/** A network device that leads to it is enough for one with all defaults. */
export function resolveMmds(
  mmds: Checked<typeof MMDS_SCHEMA> | undefined,
  nets: readonly ResolvedNet[],
): ResolvedMmds | undefined {
  if (mmds === undefined && !nets.some((net) => net.mmds)) return undefined;
  const { version = "V1", address = DEFAULT_MMDS_ADDRESS, imdsCompat = false } = mmds ?? {};
  return { version, address, imdsCompat };
}
