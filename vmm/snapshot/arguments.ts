// Checks what callers of the API pass before it is used: who passes data on, or writes JavaScript, gets an error that
// names the wrong argument.
import { ConfigError } from "../errors.js";
import { show } from "../config/show.js";

const SNAPSHOT_OPTIONS = ["resume", "base", "watch", "note"];

export function checkFolderPath(folder: unknown): string {
  if (typeof folder === "string" && folder !== "" && !folder.includes("\0")) return folder;
  throw new ConfigError([`Folder ${show(folder)} is not a path`]);
}

/** Whoever restores it gets it back: a description of a VM, with the variables of its image. */
export const MAX_NOTE_BYTES = 16 * 2 ** 20;

export function checkSnapshotOptions(options: unknown): {
  readonly resume?: boolean | undefined;
  readonly base?: string | undefined;
  readonly watch?: boolean | undefined;
  readonly note?: string | undefined;
} {
  const given = checkObject("Snapshot options", options, SNAPSHOT_OPTIONS);
  const { resume, base, watch, note } = given;
  const isNote = note === undefined || (typeof note === "string" && Buffer.byteLength(note) <= MAX_NOTE_BYTES);
  if (!isNote)
    throw new ConfigError([
      `Snapshot options: note ${show(note)} is not a text of at most ${String(MAX_NOTE_BYTES)} bytes`,
    ]);
  const flag = (name: string, value: unknown): boolean | undefined => {
    if (value === undefined || typeof value === "boolean") return value;
    throw new ConfigError([`Snapshot options: ${name} ${show(value)} is not true or false`]);
  };
  return {
    resume: flag("resume", resume),
    watch: flag("watch", watch),
    base: base === undefined ? undefined : checkFolderPath(base),
    note: note,
  };
}

/** An object with no other keys than these. */
export function checkObject(
  what: string,
  value: unknown,
  known: readonly string[] | undefined,
): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new ConfigError([`${what} ${show(value)} is not an object`]);
  }
  const problems = Object.keys(value)
    .filter((key) => known?.includes(key) === false)
    .map((key) => `${what}: unknown option ${show(key)}; known are ${(known ?? []).join(", ")}`);
  if (problems.length > 0) throw new ConfigError(problems);
  return value as Readonly<Record<string, unknown>>;
}
