// Needs: a /dev/kvm of any kind. Snapshots that were cut, changed, swapped or made up: each is refused with its reason,
// and none can do harm.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { State } from "../../devices/state.js";
import { createSnapshot, createVm, inspectSnapshot, openSnapshot, SnapshotError, VmmError } from "../../vmm/index.js";
import { encodeState } from "../../vmm/snapshot/state-file.js";
import { Random } from "../fuzz/random.js";
import { collectOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { mutations } from "../helpers/mutated-state.js";
import { settledResources } from "../helpers/own-resources.js";
import { skip } from "../helpers/skip.js";

const SEED = 20_251;
/** Of some ten thousand mutations, so many are tried. */
const TRIED = 500;

interface Json {
  readonly [name: string]: Json;
}

describe("kvm: snapshots that are refused", function () {
  this.timeout(120_000);
  let top: string;
  let kernel: MiniKernel;
  let path: string;
  const good = (): string => join(top, "good");
  const stateFile = (): string => join(path, "state.json");
  const memoryFile = (): string => join(path, readdirSync(path).find((name) => name.startsWith("memory-")) ?? "");

  before(async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    top = mkdtempSync(join(tmpdir(), "vmlet-refused-"));
    kernel = miniKernel(asm.countInMemory());
    const output = collectOutput();
    const config = {
      kernel: kernel.path,
      memoryMib: 32,
      disks: [],
      rng: true,
      console: "virtio",
      vsock: undefined,
    } as const;
    const vm = createVm(config, output.host);
    const run = vm.start();
    await output.until(300);
    await createSnapshot(vm, good());
    await createSnapshot(vm, join(top, "other"));
    vm.stop();
    await run;
    await vm.close();
  });
  after(() => {
    kernel.remove();
    rmSync(top, { recursive: true });
  });
  beforeEach(() => {
    path = join(top, "changed");
    rmSync(path, { recursive: true, force: true });
    cpSync(good(), path, { recursive: true });
  });

  function refused(reason: RegExp, at = path): void {
    for (const use of [openSnapshot, inspectSnapshot]) {
      assert.throws(
        () => use(at),
        (error) => {
          assert.ok(error instanceof SnapshotError, String(error instanceof Error ? error.stack : error));
          assert.match(error.message, reason);
          assert.ok(error.message.startsWith(at), error.message);
          assert.ok(error.message.length < 600, error.message);
          return true;
        },
      );
    }
  }

  function readState(): Json {
    const text = readFileSync(join(good(), "state.json"), "utf8");
    return JSON.parse(text.slice(text.indexOf("\n") + 1)) as Json;
  }

  /** A file that is whole, whatever it says. */
  function writeState(state: unknown): void {
    writeFileSync(stateFile(), encodeState(state as State));
  }

  it("no folder, no state, something else in its place: nothing is waited for", () => {
    refused(/none: no such file or folder/, join(top, "none"));
    refused(/state\.json: not a folder/, stateFile());
    rmSync(stateFile());
    refused(/changed: holds no snapshot: there is no state\.json$/);
    execFileSync("mkfifo", [stateFile()]);
    refused(/state\.json: not a regular file$/);
    rmSync(stateFile());
    symlinkSync("/dev/zero", stateFile());
    refused(/state\.json: .*\(ELOOP\)$/);
    rmSync(stateFile());
    mkdirSync(stateFile());
    refused(/state\.json: a folder$/);
    rmSync(stateFile(), { recursive: true });
    writeFileSync(stateFile(), "");
    refused(/state\.json is not the state file of a snapshot$/);
    truncateSync(stateFile(), 2 ** 32);
    refused(/state\.json has 4294967296 bytes, more than 67108864$/);
  });

  it("a state file that is cut, longer, of another version, or changed in any one bit", () => {
    const bytes = readFileSync(stateFile());
    for (const length of [1, 20, 100, bytes.length - 1]) {
      writeFileSync(stateFile(), bytes.subarray(0, length));
      refused(/is cut: \d+ of \d+ bytes are there$|is not the state file of a snapshot$/);
    }
    writeFileSync(stateFile(), Buffer.concat([bytes, Buffer.from("\n")]));
    refused(/bytes are there$/);
    const random = new Random(SEED);
    for (let round = 0; round < 300; round++) {
      const changed = Buffer.from(bytes);
      const at = random.below(round % 3 === 0 ? 150 : changed.length);
      changed[at] = (changed[at] ?? 0) ^ (1 << random.below(8));
      writeFileSync(stateFile(), changed);
      refused(/damaged: its checksum is another|is not the state file|is cut|has version/);
    }
    writeFileSync(stateFile(), bytes.toString("latin1").replace('"version":2', '"version":3'), "latin1");
    refused(/has version 3; this program reads version 2$/);
  });

  it("a memory file that is cut, longer, another snapshot's, missing, or no file", () => {
    const memory = memoryFile();
    truncateSync(memory, 32 * 2 ** 20);
    refused(/memory-[\da-f]+ has 33554432 bytes; the guest's memory and its last page are 33558528$/);
    truncateSync(memory, 64 * 2 ** 20);
    refused(/has 67108864 bytes/);
    truncateSync(memory, 32 * 2 ** 20 + 4096);
    refused(/memory-[\da-f]+ is not the memory of this snapshot$/);
    const [other = ""] = readdirSync(join(top, "other")).filter((name) => name.startsWith("memory-"));
    copyFileSync(join(top, "other", other), memory);
    refused(/is not the memory of this snapshot$/);
    rmSync(memory);
    refused(/memory-[\da-f]+: no such file or folder/);
    execFileSync("mkfifo", [memory]);
    refused(/memory-[\da-f]+: not a regular file$/);
    rmSync(memory);
    symlinkSync(join(top, "other", other), memory);
    refused(/\(ELOOP\)$/);
    rmSync(memory);
    renameSync(stateFile(), join(path, "moved"));
    copyFileSync(join(top, "other", "state.json"), stateFile());
    refused(/memory-[\da-f]+: no such file or folder/);
  });

  it("a state that names a file outside of its folder, or a device that it does not have", () => {
    for (const file of ["../good/memory", "/etc/passwd", "memory-x", "", "memory-".padEnd(39, "0") + "/../x"]) {
      const state = readState();
      writeState({ ...state, memory: { ...state["memory"], file } });
      refused(/state\.memory\.file .* is not (?:the name of a memory file|a text of at most 64 characters)$/);
    }
    const state = readState();
    writeState({ ...state, devices: { ...state["devices"], vda: state["devices"]?.["rng0"] } });
    const opened = openSnapshot(path);
    assert.throws(() => opened.restore(collectOutput().host), /state\.devices has an unknown field "vda"/);
    opened.close();
    writeState({ ...state, config: { ...state["config"], cpus: 0 } });
    refused(/state\.json: state\.config: Number of vCPUs \(cpus\) 0 is not/);
    writeState({ ...state, config: { ...state["config"], secret: 1 } });
    refused(/state\.config: Unknown option "secret"/);
  });

  it(`any field of the state, missing, of another type, or with another value (seed ${String(SEED)})`, async () => {
    const before = await settledResources();
    const state = readState();
    const all = [...mutations(state, "state")].length;
    const random = new Random(SEED);
    let refusals = 0;
    let runs = 0;
    for (const { path: where, what, state: changed, mustFail } of mutations(state, "state")) {
      if (random.below(all) >= TRIED) continue;
      writeState(changed);
      const shown = `${where}: ${what}`;
      try {
        const opened = openSnapshot(path);
        try {
          const vm = opened.restore(collectOutput().host);
          try {
            const run = vm.start();
            setTimeout(() => vm.stop(), 3);
            await run;
            runs++;
            assert.ok(!mustFail || mayBe(shown), `accepted: ${shown}`);
          } finally {
            await vm.close();
          }
        } finally {
          opened.close();
        }
      } catch (error) {
        if (!(error instanceof VmmError)) throw new Error(shown, { cause: error });
        if (mustFail && !mayBe(shown)) assert.ok(error instanceof SnapshotError, `${shown}: ${String(error)}`);
        refusals++;
      }
    }
    assert.ok(refusals > TRIED / 2 && runs > 10, `${String(refusals)} refused, ${String(runs)} run`);
    const after = await settledResources();
    assert.deepEqual({ ...after, threads: 0, eventLoop: [] }, { ...before, threads: 0, eventLoop: [] });
  });

  /** Text for people, on which nothing depends, and what may be left out: registers by their number, options with their defaults (the kernel has none). */
  function mayBe(shown: string): boolean {
    return /^state\.(?:vmlet|created|host)\b|\.(?:lapic|msrs|xcrs): \w+ missing$|^state\.config: (?!kernel )\w+ missing$/.test(
      shown,
    );
  }
});
