// The first that both ends say: what they speak. And JSON from the other end, which may be anything.
import { StateReader } from "../../../devices/state.js";
import { show } from "../../config/show.js";
import { SnapshotError } from "../../errors.js";
import { readingState } from "../state-file.js";
import { MIGRATION_FORMAT, MIGRATION_VERSION, type Frame } from "./frames.js";

const MAX_TEXT = 1000;

/** Throws SnapshotError for another program, or another version of what is spoken. */
export function checkHello(frame: Frame): void {
  const hello = readJson(frame);
  readingState("the other end", () => {
    hello.only(["format", "version", "vmlet"]);
    hello.oneOf("format", [MIGRATION_FORMAT]);
    const version = hello.integer("version", { minimum: 0, maximum: 0xffff });
    if (version === MIGRATION_VERSION) return;
    throw new SnapshotError(
      `The other end, vmlet ${show(hello.text("vmlet", MAX_TEXT))}, speaks version ${String(version)} of the ` +
        `migration's protocol; this program version ${String(MIGRATION_VERSION)}`,
      { cure: "use the same version of vmlet at both ends" },
    );
  });
}

/** Throws SnapshotError for what is no JSON. */
export function readJson({ kind, payload }: Frame): StateReader {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString("utf8"));
  } catch {
    throw new SnapshotError(`The other end's ${kind} is not JSON`);
  }
  return new StateReader(value, kind);
}
