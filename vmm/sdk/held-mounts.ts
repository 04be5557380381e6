// Volumes and tmpfs in a snapshot that holds a program: they are mounted in it already, and whoever goes on from it mounts
// nothing. That can be as long as the guest has looked at no volume: which folder it is, is for the next guest to say.
import { isSealedLater } from "./guest-config.js";
import type { VmSpec } from "./vm-spec.js";

/** Requests to the agent that make a root read-only: guest-set-up.ts. */
const SEALS = 2;

/** Whether nothing that is done before the program's first instruction looks into a volume. */
export function canHoldMounts({ volumes, tmpfs, main, world }: VmSpec): boolean {
  // Files with names and addresses of this run.
  if (world !== undefined) return false;
  const places = [
    ...[...volumes, ...tmpfs].map(({ guestPath }) => guestPath),
    ...(main === undefined ? [] : [main.workingDirectory, main.argv[0] ?? ""]),
  ];
  return volumes.every(
    // A file is found in the folder that it is alone in.
    ({ guestPath, isFile }) => !isFile && places.filter((place) => isWithin(place, guestPath)).length === 1,
  );
}

/** Requests to the agent before the program's. */
export function countSetUpRequests(spec: VmSpec): number {
  return spec.volumes.length + spec.tmpfs.length + (isSealedLater(spec) ? SEALS : 0);
}

/** What decides what a program finds mounted; undefined for nothing. */
export function heldMountsKey(spec: VmSpec): Buffer | undefined {
  if (countSetUpRequests(spec) === 0) return undefined;
  const { volumes, tmpfs } = spec;
  const words = volumes.map(({ guestPath, isReadonly }) => [guestPath, isReadonly]);
  return Buffer.from(
    JSON.stringify([words, tmpfs.map(({ guestPath, options }) => [guestPath, options]), isSealedLater(spec)]),
  );
}

function isWithin(path: string, folder: string): boolean {
  return path === folder || path.startsWith(`${folder}/`);
}
