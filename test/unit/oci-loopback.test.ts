// Needs: root, with unshare and ip; gcc for the agent, busybox. Ports of a pod's loopback, by the kernel's search for sockets.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { whyNoBusybox } from "../helpers/busybox-image.js";
import { skip } from "../helpers/skip.js";

/** More than any buffer on the way. */
const BYTES = 1024 * 1024;

interface Heard {
  readonly isShared: boolean;
  readonly served: string;
  readonly both: readonly string[];
  readonly nobody: string;
  readonly after: string;
}

describe("oci: ports of a pod's loopback", () => {
  it("are the guest's, whatever their number; those of nobody are closed, and afterwards all are refused", function () {
    this.timeout(120_000);
    if (process.getuid?.() !== 0) skip(this, "root makes network namespaces");
    const why = whyNoBusybox();
    if (why !== undefined) skip(this, why);
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    try {
      writeFileSync(join(folder, "file"), Buffer.alloc(BYTES, "x"));
      const program = [process.execPath, resolve("build/test/helpers/loopback-ports.js"), folder, "file"];
      const words = ["-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", ...program];
      const { status, stdout, stderr } = spawnSync("unshare", words, {
        encoding: "utf8",
        timeout: 100_000,
        maxBuffer: 10 * BYTES,
      });
      assert.equal(status, 0, stderr);
      const heard = JSON.parse(stdout) as Heard;
      if (!heard.isShared) skip(this, "this host's kernel takes no program for its search for sockets");
      const whole = heard.served.slice(heard.served.indexOf("\r\n\r\n") + 4);
      assert.deepEqual([whole.length, whole === "x".repeat(BYTES)], [BYTES, true]);
      assert.deepEqual(
        heard.both.map((text) => text.endsWith(whole)),
        [true, true],
      );
      assert.deepEqual([heard.nobody, heard.after], ["", "ECONNREFUSED"]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
