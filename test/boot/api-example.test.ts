// Needs: hardware KVM, or the lab. The example of docs/api.md for createVm, as it is printed there.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { guestRunner, whyNoBoot } from "../helpers/guest-runner.js";
import { skip } from "../helpers/skip.js";

describe("boot: the API's example", function () {
  this.timeout(200_000);

  it("prints what docs/api.md says", async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    const guest = await guestRunner();
    const found = /^## Example\n+[^`]*```ts\n([\s\S]*?)```\n+```\n([\s\S]*?)```/m.exec(
      readFileSync("docs/api.md", "utf8"),
    );
    assert.ok(found !== null);
    const [, example = "", output = ""] = found;
    const { vmlinux, initramfs, library } = guest.files;
    const program = example
      .replace('"vmlet"', JSON.stringify(library))
      .replace('"guest/out/default/vmlinux"', JSON.stringify(vmlinux))
      .replace('"guest/out/initramfs.cpio"', JSON.stringify(initramfs));
    const script = `cat >/tmp/vmlet-readme.mjs <<'END'\n${program}END\nnode /tmp/vmlet-readme.mjs; rm /tmp/vmlet-readme.mjs`;
    const { stdout, stderr } = await guest.shell(script);
    // Versions and counts of exits are the machine's.
    const shape = (text: string): string => text.replaceAll(/\d+/g, "N").replaceAll(/, intr: N/g, "");
    assert.equal(shape(stdout), shape(output), stderr);
  });
});
