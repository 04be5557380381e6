// Needs: a /dev/kvm on which guests run, a built program; root, passt, virtiofsd and rights for TAP interfaces for all of it. Monitors
// that are killed at random moments, SOAK times (default: 1,000).
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { BootKills } from "../helpers/boot-kills.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { describeRunning } from "../helpers/running.js";
import { skip } from "../helpers/skip.js";

const KILLS = Number(process.env["SOAK"] ?? "") || 1000;
const SEED = Number(process.env["SEED"] ?? "") || Date.now() % 2 ** 32;

describe("soak: monitors, killed", function () {
  this.timeout(600_000 + KILLS * 10_000);

  it(`${String(KILLS)} starts, each killed at a random moment: nothing is left, seed ${String(SEED)}`, async function () {
    const why = whyNoKvm() ?? (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built");
    if (why !== undefined) return skip(this, why);
    const kills = new BootKills(SEED);
    const bad: string[] = [];
    let ran = 0;
    try {
      await kills.open();
      process.stdout.write([...kills.kinds, ...kills.skipped, ""].join("\n"));
      for (let index = 0; index < KILLS; index++) {
        describeRunning(() => `${String(index)} kills, ${String(ran)} of them when the guest ran`);
        const killed = await kills.round(index);
        if (killed.ran) ran++;
        if (killed.left.length === 0) continue;
        bad.push(killed.what, ...killed.left);
        process.stdout.write(`${[killed.what, ...killed.left].join("\n")}\n`);
      }
      bad.push(...(await kills.finish()));
    } finally {
      describeRunning(undefined);
      kills.close();
    }
    process.stdout.write(`${String(ran)} of ${String(KILLS)} were killed when the guest ran\n`);
    assert.deepEqual(bad, []);
  });
});
