// Needs: a /dev/kvm on which guests run, a built program, root and control groups; TAP interfaces and passt for two of the guests. Guests that
// take what they can, in control groups: how soon another VM and this host answer beside them.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BOMBS, IDLE, LIMITS, BombFolder } from "../../bench/system/bombs.js";
import { beside, Neighbour, type Beside } from "../../bench/system/neighbour.js";
import { median } from "../../bench/statistics.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const ROUNDS = 3;
const MEASURED_MS = 3000;
const LIMIT = 1.5;
// Medians: the slowest 5 % took 1.6 to 2.9 times as long on a host of two processors, with limits; what makes them slow has not been found.
const METRICS = ["vm_p50_ms", "host_p50_ms"] as const;

describe("soak: neighbours of guests that take what they can", function () {
  this.timeout(1_200_000);

  it(`answer within ${String(LIMIT)} times of what they take beside an idle VM`, async function () {
    const why =
      whyNoKvm() ??
      (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built") ??
      (process.getuid?.() === 0 ? undefined : "no root");
    if (why !== undefined) return skip(this, why);
    const folder = mkdtempSync(join(tmpdir(), "vmlet-neighbours-"));
    const bombs = BOMBS.filter((bomb) => bomb.why?.() === undefined);
    try {
      const saved = await BombFolder.make(folder);
      const bytes = statSync(saved.disk).size;
      const neighbour = await Neighbour.start();
      const idle: Beside[] = [];
      const all = new Map<string, Beside[]>(bombs.map(({ name }) => [name, []]));
      try {
        for (let round = 0; round < ROUNDS; round++) {
          idle.push(await beside(neighbour, saved, IDLE, undefined, MEASURED_MS));
          for (const bomb of bombs) {
            all.get(bomb.name)?.push(await beside(neighbour, saved, bomb, LIMITS, MEASURED_MS));
          }
        }
      } finally {
        saved.close();
        await neighbour.end();
      }
      const slow = [...all].flatMap(([name, samples]) =>
        METRICS.flatMap((metric) => {
          const ratio = median(samples.map((sample, round) => sample[metric] / (idle[round]?.[metric] ?? 0)));
          process.stdout.write(`${metric} beside ${name}: ${ratio.toFixed(2)}x\n`);
          return ratio <= LIMIT ? [] : [`${metric} beside ${name}: ${ratio.toFixed(2)}x`];
        }),
      );
      assert.deepEqual(slow, []);
      // As large as it was, whatever was written.
      assert.equal(statSync(saved.disk).size, bytes);
      assert.ok(statSync(saved.disk).blocks * 512 <= bytes + 2 ** 20);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
