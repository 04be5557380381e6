// Needs: nothing. koffi's native module reaches the lab from a checkout and from an installed package.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { packageInputs } from "../../vmm/lab/checkout.js";

describe("lab: files of the package", () => {
  for (const [name, native] of [
    ["a checkout has it in its own node_modules", "node_modules/vmlet/node_modules/@koromix"],
    ["an installed package has it beside itself", "node_modules/@koromix"],
  ] as const) {
    it(name, () => {
      const project = mkdtempSync(join(tmpdir(), "vmlet-test-"));
      try {
        mkdirSync(join(project, "node_modules/vmlet/dist"), { recursive: true });
        mkdirSync(join(project, native), { recursive: true });
        const inputs = packageInputs(join(project, "node_modules/vmlet"));
        assert.deepEqual(
          inputs.map(({ to }) => to),
          ["vmlet/package.json", "vmlet/dist", "vmlet/node_modules/@koromix"],
        );
        assert.equal(inputs.at(-1)?.from, join(project, native));
      } finally {
        rmSync(project, { recursive: true });
      }
    });
  }
});
