// Whether this host can share a folder with a guest.
import { mkdtempSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HostError } from "../../vmm/errors.js";
import { endVirtiofsd, startVirtiofsd } from "../../vmm/virtio/backends/virtiofsd.js";

/** Why it cannot; undefined if it can. */
export function shareProblem(): string | undefined {
  const path = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  try {
    endVirtiofsd(startVirtiofsd({ path, isReadonly: true, isFile: false }));
    return undefined;
  } catch (error) {
    if (error instanceof HostError) return error.message;
    throw error;
  } finally {
    rmdirSync(path);
  }
}
