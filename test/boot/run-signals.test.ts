// Needs: a /dev/kvm on which guests run, a built program, busybox. Signals that come to `vmlet run` before its program is there:
// no guest boots. For those that come to the program see agent.test.ts, run.test.ts and run-terminal.test.ts.
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hostQuirks } from "../../vmm/fixups/host-quirks.js";
import { guestConfig } from "../../vmm/sdk/guest-config.js";
import { planVm } from "../../vmm/sdk/plan.js";
import { checkVmOptions } from "../../vmm/sdk/vm-options.js";
import { tryLock } from "../../vmm/snapshot/lock-file.js";
import { templatePath } from "../../vmm/snapshot/template.js";
import { makeBusyboxImage, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const LIMIT_MS = 60_000;

describe("boot: signals before a program", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let image = "";
  const environment = { ...process.env };
  let child: ChildProcess | undefined;

  before(function () {
    const reason = whyNoKvm() ?? (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built") ?? whyNoBusybox();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-signals-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    // Nothing is in it: the guest would have to boot.
    process.env["VMLET_CACHE"] = join(folder, "cache");
    image = makeBusyboxImage(folder);
  });

  afterEach(() => {
    child?.kill("SIGKILL");
  });

  after(() => {
    process.env = environment;
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  /** Ends it by SIGTERM in the moment that `isTime` tells; nothing is left of it then. */
  async function end(words: readonly string[], isTime: (child: ChildProcess) => Promise<unknown>): Promise<void> {
    child = spawn(PROGRAM, ["run", ...words], { stdio: ["ignore", "ignore", "pipe"] });
    const closed = once(child, "close") as Promise<[number | null]>;
    await isTime(child);
    child.kill("SIGTERM");
    const [code] = await closed;
    assert.equal(code, 128 + 15, words.join(" "));
    const left = readdirSync(join(folder, "state"));
    assert.deepEqual(
      left.filter((name) => name !== "names"),
      [],
    );
  }

  it("while the image is fetched from a registry that does not answer", async () => {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    try {
      const { port } = server.address() as AddressInfo;
      const reference = `docker://127.0.0.1:${String(port)}/image`;
      await end([reference, "true"], () => once(server, "connection"));
      await end(["-d", reference, "true"], () => once(server, "connection"));
    } finally {
      server.close();
    }
  });

  it("while another process boots the guest that this one is to go on from", async () => {
    const checked = checkVmOptions({ image });
    const program = { command: ["cat"], entrypoint: undefined, hasTerminal: false, isInteractive: true };
    const plan = await planVm(checked, { program, autoRemove: true });
    plan.release();
    const lock = tryLock(templatePath(guestConfig(plan.spec, hostQuirks())));
    assert.ok(lock !== undefined);
    try {
      for (const options of [[], ["-i"], ["-d"], ["-t"]]) {
        await end([...options, image, "cat"], async ({ stderr }) => {
          let text = "";
          for await (const piece of stderr ?? []) if ((text += String(piece)).includes("it boots")) return;
        });
      }
    } finally {
      closeSync(lock);
    }
  });
});
