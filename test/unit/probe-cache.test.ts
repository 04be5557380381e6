// Needs: a readable /proc and /sys, as every Linux has. What the probe found is kept, and forgotten.
import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { remembered } from "../../vmm/host/probe-cache.js";
import { isQuirks, type Quirks } from "../../vmm/fixups/quirks.js";
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
    assert.deepEqual(remembered(probe(QUIRKS), isQuirks), QUIRKS);
    assert.deepEqual(remembered(probe(undefined), isQuirks), QUIRKS);
    assert.equal(probes, 1);
    rmSync(join(folder, "kvm-probe.json"));
    assert.equal(remembered(probe(undefined), isQuirks), undefined);
    assert.equal(remembered(probe(QUIRKS), isQuirks), undefined);
    assert.equal(probes, 2);
  });

  it("another host's result, a broken file and a folder that cannot be made are no result", () => {
    const file = join(folder, "kvm-probe.json");
    remembered(() => QUIRKS, isQuirks);
    const entry = JSON.parse(readFileSync(file, "utf8")) as { key: string };
    writeFileSync(file, JSON.stringify({ ...entry, key: `${entry.key} kvm_other@1` }));
    assert.equal(
      remembered<Quirks>(() => undefined, isQuirks),
      undefined,
    );
    writeFileSync(file, "{");
    assert.deepEqual(
      remembered(() => QUIRKS, isQuirks),
      QUIRKS,
    );
    process.env["VMLET_CACHE"] = "/proc/nowhere";
    assert.deepEqual(
      remembered(() => QUIRKS, isQuirks),
      QUIRKS,
    );
  });

  it("what is no result of the probe, or may be somebody else's, is not believed", () => {
    const file = join(folder, "kvm-probe.json");
    remembered(() => QUIRKS, isQuirks);
    const { key } = JSON.parse(readFileSync(file, "utf8")) as { key: string };
    const probes = (text: string, mode = 0o600): boolean => {
      let probed = false;
      writeFileSync(file, text);
      chmodSync(file, mode);
      remembered<Quirks>(() => {
        probed = true;
        return undefined;
      }, isQuirks);
      return probed;
    };
    const kept = JSON.stringify({ key, quirks: QUIRKS });
    assert.equal(probes(kept), false);
    for (const quirks of [
      "none",
      5,
      [],
      {},
      { ...QUIRKS, missing: ["rm"] },
      { ...QUIRKS, missing: null },
      { ...QUIRKS, tscKhz: -1 },
      { ...QUIRKS, tscKhz: "1 console=none" },
      { ...QUIRKS, xsaveComponents: [{ index: 2, offset: 65_000, size: 1000 }] },
      { ...QUIRKS, xsaveComponents: [null] },
    ]) {
      assert.equal(probes(JSON.stringify({ key, quirks })), true, JSON.stringify(quirks));
    }
    assert.equal(probes("null"), true);
    assert.equal(probes(`${kept}${" ".repeat(70_000)}`), true);
    assert.equal(probes(kept, 0o622), true);
    rmSync(file);
    symlinkSync("elsewhere", file);
    writeFileSync(join(folder, "elsewhere"), kept, { mode: 0o600 });
    let probed = false;
    remembered<Quirks>(() => {
      probed = true;
      return undefined;
    }, isQuirks);
    assert.equal(probed, true);
  });
});
