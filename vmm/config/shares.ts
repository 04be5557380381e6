// Folders of this host that the guest can mount: what a caller may ask for, checked as far as that goes
// without the host.
import type { Checked } from "./check.js";
import { MAX_VIRTIO_DEVICES } from "./defaults.js";
import { PATH_SCHEMA } from "./schema.js";
import { show } from "./show.js";

/** A folder of this host as a virtio file system: `mount -t virtiofs TAG /mnt` in the guest. */
export interface ShareConfig {
  readonly path: string;
  /** Its name in the guest, 1 to 36 bytes of UTF-8; default: share0, share1, … in the order given. */
  readonly tag?: string | undefined;
  /** The guest cannot change anything in it, whatever it does. */
  readonly isReadonly?: boolean | undefined;
}

export interface ResolvedShare {
  readonly path: string;
  readonly tag: string;
  readonly isReadonly: boolean;
  /** Its server writes down what the guest asks for, so that the guest can be saved whatever that was. It takes longer. */
  readonly isJournaled?: boolean;
}

/** The device's field. virtio 1.2 §5.11.4. */
export const MAX_TAG_BYTES = 36;

export const SHARE_SCHEMA = {
  type: "object",
  title: "Shared folder",
  properties: {
    path: PATH_SCHEMA,
    // A line's end would break what the guest's kernel lists its file systems in.
    tag: { type: "string", pattern: "^[^\\0\\n]+$", "x-expected": "a name in one line" },
    isReadonly: { type: "boolean" },
  },
  required: ["path"],
  additionalProperties: false,
} as const;

export const SHARES_SCHEMA = { type: "array", items: SHARE_SCHEMA, maxItems: MAX_VIRTIO_DEVICES } as const;

/** What the device and its host side go by in statistics and the log. */
export function shareName(index: number): string {
  return `share${String(index)}`;
}

/** Resolves all; what is wrong with them together goes into `problems`. One that is no object is undefined. */
export function resolveShares(
  shares: readonly (Checked<typeof SHARE_SCHEMA> | undefined)[],
  problems: string[],
): ResolvedShare[] {
  const resolved = shares.map((share = {}, index) => {
    const { path = "", tag = shareName(index), isReadonly = false } = share;
    const bytes = Buffer.byteLength(tag);
    if (bytes > MAX_TAG_BYTES) {
      const what = `tag ${show(tag)} has ${String(bytes)} bytes`;
      problems.push(`Shared folder ${String(index + 1)}: ${what}; the limit is ${String(MAX_TAG_BYTES)}`);
    }
    return { path, tag, isReadonly };
  });
  const tags = resolved.map(({ tag }) => tag);
  for (const tag of new Set(tags.filter((one, at) => tags.indexOf(one) !== at))) {
    problems.push(`Tag ${show(tag)} is given to more than one shared folder`);
  }
  return resolved;
}
