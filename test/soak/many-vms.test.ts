// Needs: a /dev/kvm on which guests run, and a built program. 100 VMs, or SOAK, of one process leave nothing in it.
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { useManyVms } from "../helpers/many-vms.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const COUNT = Number(process.env["SOAK"] ?? "") || 100;
const LIMIT_MS = 60_000 + COUNT * 10_000;

describe("soak: many VMs of one process", function () {
  this.timeout(LIMIT_MS);

  it(`${String(COUNT)} VMs, started, used and closed, leave nothing`, async function () {
    const reason = whyNoKvm() ?? whyNoBusybox() ?? (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built");
    if (reason !== undefined) skip(this, reason);
    const folder = mkdtempSync(join(tmpdir(), "vmlet-many-"));
    try {
      await useManyVms(makeBusyboxImage(folder, ["/usr/bin/duk"]), COUNT);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
