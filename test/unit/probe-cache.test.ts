// Needs: a readable /proc and /sys, as every Linux has. What the probe found is kept, and forgotten.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { remembered } from "../../vmm/host/probe-cache.js";
import type { Quirks } from "../../vmm/fixups/quirks.js";
import { skip } from "../helpers/skip.js";

const QUIRKS: Quirks = { missing: ["int3"], syscallStaysInUserMode: true, tscKhz: 1, xsaveComponents: [] };

describe("probe cache", () => {
  let folder = "";
  const before_ = process.env["VMLET_CACHE"];

  beforeEach(function () {
    if (!existsSync("/dev/kvm")) skip(this, "this host has no /dev/kvm");
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    process.env["VMLET_CACHE"] = folder;
  });
  afterEach(() => {
    if (before_ === undefined) delete process.env["VMLET_CACHE"];
    else process.env["VMLET_CACHE"] = before_;
    rmSync(folder, { recursive: true, force: true });
  });

  it("probes once, and remembers also that there was nothing", () => {
    let probes = 0;
    const probe = (found: Quirks | undefined) => (): Quirks | undefined => {
      probes++;
      return found;
    };
    assert.deepEqual(remembered(probe(QUIRKS)), QUIRKS);
    assert.deepEqual(remembered(probe(undefined)), QUIRKS);
    assert.equal(probes, 1);
    rmSync(join(folder, "kvm-probe.json"));
    assert.equal(remembered(probe(undefined)), undefined);
    assert.equal(remembered(probe(QUIRKS)), undefined);
    assert.equal(probes, 2);
  });

  it("another host's result, a broken file and a folder that cannot be made are no result", () => {
    const file = join(folder, "kvm-probe.json");
    remembered(() => QUIRKS);
    const entry = JSON.parse(readFileSync(file, "utf8")) as { key: string };
    writeFileSync(file, JSON.stringify({ ...entry, key: `${entry.key} kvm_other@1` }));
    assert.equal(
      remembered<Quirks>(() => undefined),
      undefined,
    );
    writeFileSync(file, "{");
    assert.deepEqual(
      remembered(() => QUIRKS),
      QUIRKS,
    );
    process.env["VMLET_CACHE"] = "/proc/nowhere";
    assert.deepEqual(
      remembered(() => QUIRKS),
      QUIRKS,
    );
  });
});
