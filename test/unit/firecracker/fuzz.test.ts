// Needs: nothing. 100,000 requests at random: each is done or refused, a refusal changes nothing, and nothing grows.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FirecrackerRig } from "../../helpers/firecracker-rig.js";
import { randomRequest } from "../../helpers/firecracker-fuzz.js";
import { caseSeed, Random } from "../../fuzz/random.js";

const REQUESTS = 100_000;
/** Requests to one process before another begins. */
const A_PROCESS = 1000;

describe("firecracker: fuzz", function () {
  this.timeout(120_000);
  let folder: string;
  const before = process.cwd();

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    for (const name of ["kernel", "disk"]) writeFileSync(join(folder, name), "x".repeat(4096));
    process.chdir(folder);
  });
  afterEach(() => {
    process.chdir(before);
    rmSync(folder, { recursive: true });
  });

  function openFiles(): string[] {
    return readdirSync("/proc/self/fd").flatMap((fd) => {
      try {
        return [readlinkSync(`/proc/self/fd/${fd}`)].filter((path) => path.startsWith(folder));
      } catch {
        return [];
      }
    });
  }

  it(`${String(REQUESTS)} requests`, async () => {
    let rig = new FirecrackerRig();
    let earlier = rig.everything();
    const counts = new Map<number, number>();
    for (let index = 0; index < REQUESTS; index++) {
      if (index % A_PROCESS === 0) {
        rig.close();
        rig = new FirecrackerRig();
        earlier = rig.everything();
      }
      const seed = caseSeed(1, index);
      const { method, path, body } = randomRequest(new Random(seed));
      let answer;
      try {
        answer = await rig.ask(method, path, body);
      } catch (error) {
        throw new Error(`seed ${String(seed)}: ${method} ${path} ${String(body)}`, { cause: error });
      }
      counts.set(answer.status, (counts.get(answer.status) ?? 0) + 1);
      const now = rig.everything();
      if (answer.status >= 400) {
        assert.equal(now, earlier, `seed ${String(seed)}: ${method} ${path} ${String(body)}`);
        const { fault = "" } = answer;
        assert.ok(fault.length > 0 && fault.length < 1000, `seed ${String(seed)}: ${fault}`);
      } else earlier = now;
    }
    // Enough of both, or the test says nothing.
    assert.ok((counts.get(204) ?? 0) > REQUESTS / 20, JSON.stringify([...counts]));
    assert.ok((counts.get(400) ?? 0) > REQUESTS / 4, JSON.stringify([...counts]));
    rig.close();
    assert.deepEqual(openFiles(), []);
  });
});
