// Needs: nothing. Which of the lab's saved states may be used, and which are kept; no machine is started.
import assert from "node:assert/strict";
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { baseKey, knownBase, rememberBase } from "../../vmm/lab/known-base.js";
import {
  BUILDING,
  failureFile,
  findState,
  hashOf,
  likeness,
  recentFailure,
  removeOldStates,
  stateKey,
  stateSize,
  statesFolder,
} from "../../vmm/lab/saved-state.js";
import { decodeWork, encodeWork, LENGTH_BYTES } from "../../vmm/lab/work.js";

const SIZE = { memoryMib: 1536, cpus: 2 };
const DAY_MS = 24 * 3600 * 1000;

describe("lab: saved states", () => {
  let folder = "";
  const { VMLET_CACHE } = process.env;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  afterEach(() => {
    if (VMLET_CACHE === undefined) delete process.env["VMLET_CACHE"];
    else process.env["VMLET_CACHE"] = VMLET_CACHE;
    rmSync(folder, { recursive: true });
  });

  /** Small files in place of a machine. */
  function makeState(key: string, usedMs = Date.now()): Record<"own" | "ram" | "machine" | "record", string> {
    const own = join(folder, key);
    mkdirSync(own, { mode: 0o700 });
    const [ram, machine, record] = ["ram", "machine", "record.json"].map((name) => join(own, name)) as [
      string,
      string,
      string,
    ];
    writeFileSync(ram, "all of its memory", { mode: 0o600 });
    writeFileSync(machine, "all else of it", { mode: 0o600 });
    const words = { key, vmletStream: 7, ram: likeness(ram), machine: hashOf(machine) };
    writeFileSync(record, JSON.stringify(words), { mode: 0o600 });
    utimesSync(record, usedMs / 1000, usedMs / 1000);
    return { own, ram, machine, record };
  }

  it("one is found as it was made, and notes its use", () => {
    const { ram, machine, record } = makeState("aa", Date.now() - DAY_MS);
    assert.deepEqual(findState(folder, "aa", SIZE), { ram, machine, size: SIZE, vmletStream: 7 });
    makeState("bb", Date.now() - 1000);
    removeOldStates(folder);
    assert.ok(existsSync(record));
    assert.equal(findState(folder, "cc", SIZE), undefined);
  });

  const damages: [string, (state: ReturnType<typeof makeState>) => void][] = [
    ["RAM that was written to", ({ ram }) => writeFileSync(ram, "all of its memorx")],
    ["RAM that is cut off", ({ ram }) => truncateSync(ram, 5)],
    ["RAM that is gone", ({ ram }) => rmSync(ram)],
    ["a machine with one bit turned", ({ machine }) => writeFileSync(machine, "all else of iu")],
    ["a machine that is longer", ({ machine }) => appendFileSync(machine, "!")],
    ["a record that is cut off", ({ record }) => truncateSync(record, 20)],
    [
      "a record of another key",
      ({ record }) => writeFileSync(record, readFileSync(record, "utf8").replace("aa", "ab")),
    ],
    ["a record that is no object", ({ record }) => writeFileSync(record, "null")],
    ["a folder that others may write to", ({ own }) => chmodSync(own, 0o777)],
    ["a file that others may write to", ({ ram }) => chmodSync(ram, 0o622)],
    [
      "a link in place of a file",
      ({ ram, own }) => {
        const other = join(own, "other");
        writeFileSync(other, readFileSync(ram));
        rmSync(ram);
        symlinkSync(other, ram);
      },
    ],
  ];
  for (const [what, damage] of damages) {
    it(`${what} is not started from`, () => {
      const state = makeState("aa");
      assert.ok(findState(folder, "aa", SIZE) !== undefined);
      damage(state);
      assert.equal(findState(folder, "aa", SIZE), undefined);
    });
  }

  it("the four that were used last are kept, and what a dead maker has left goes after an hour", () => {
    for (let age = 0; age < 6; age++) makeState(`a${String(age)}`, Date.now() - age * 1000);
    for (const [name, ageMs] of [
      [`${BUILDING}b1`, 2 * 3600 * 1000],
      [`${BUILDING}b2`, 1000],
    ] as const) {
      mkdirSync(join(folder, name));
      utimesSync(join(folder, name), (Date.now() - ageMs) / 1000, (Date.now() - ageMs) / 1000);
    }
    writeFileSync(join(folder, "lock"), "");
    removeOldStates(folder);
    assert.deepEqual(readdirSync(folder).sort(), ["a0", "a1", "a2", "a3", `${BUILDING}b2`, "lock"]);
  });

  it("one that could not be made is tried again after a day", () => {
    assert.equal(recentFailure(folder, "aa"), undefined);
    const file = failureFile(folder, "aa");
    writeFileSync(file, "the disk is full\n");
    assert.equal(recentFailure(folder, "aa"), "the disk is full");
    utimesSync(file, (Date.now() - DAY_MS) / 1000 - 1, (Date.now() - DAY_MS) / 1000 - 1);
    assert.equal(recentFailure(folder, "aa"), undefined);
  });

  it("few sizes of machines serve all guests", () => {
    const sizes = [1, 768, 1536, 1537, 4000].map((memoryMib) => stateSize({ memoryMib, cpus: 3 }));
    assert.deepEqual(
      sizes.map(({ memoryMib }) => memoryMib),
      [1536, 1536, 1536, 3072, 6144],
    );
    assert.ok(sizes.every(({ cpus }) => cpus === 3));
  });

  it("the key changes with QEMU, the base, the size and the program, and with nothing else", () => {
    const { PATH } = process.env;
    const bin = join(folder, "bin");
    const root = join(folder, "package");
    for (const path of [bin, join(root, "dist")]) mkdirSync(path, { recursive: true });
    const qemu = join(bin, "qemu-system-x86_64");
    const program = join(root, "dist/cli.js");
    writeFileSync(qemu, "QEMU");
    writeFileSync(program, "1");
    writeFileSync(join(root, "dist/cli.cache"), "1");
    const base = { folder: "/base/1", kernel: "/base/1/vmlinuz" };
    process.env["PATH"] = `${bin}:${String(PATH)}`;
    try {
      const key = stateKey(SIZE, base, root);
      writeFileSync(join(root, "dist/cli.cache"), "2");
      writeFileSync(program, "1");
      assert.equal(stateKey(SIZE, base, root), key);
      const others = [
        stateKey({ ...SIZE, cpus: 3 }, base, root),
        stateKey({ ...SIZE, memoryMib: 3072 }, base, root),
        stateKey(SIZE, { folder: "/base/2", kernel: "/base/2/vmlinuz" }, root),
      ];
      writeFileSync(program, "2");
      others.push(stateKey(SIZE, base, root));
      writeFileSync(program, "1");
      writeFileSync(qemu, "QEMU 8");
      others.push(stateKey(SIZE, base, root));
      assert.equal(new Set([key, ...others]).size, 6);
    } finally {
      process.env["PATH"] = PATH;
    }
  });

  it("their folder is this user's alone, or there is none, with the reason", () => {
    const mask = process.umask(0);
    try {
      process.env["VMLET_CACHE"] = folder;
      assert.deepEqual(statesFolder(), { path: join(folder, "lab/states") });
      chmodSync(join(folder, "lab/states"), 0o770);
      assert.deepEqual(statesFolder(), { why: `${join(folder, "lab/states")} is not this user's alone` });
      chmodSync(folder, 0o777);
      assert.deepEqual(statesFolder(), { why: "there is no folder for it; set VMLET_CACHE" });
    } finally {
      process.umask(mask);
    }
  });

  it("the base is remembered until something changes that it is made of", () => {
    process.env["VMLET_CACHE"] = folder;
    const root = join(folder, "package");
    const base = join(folder, "lab/base");
    for (const path of ["guest/lab", "guest/init/agent"].map((path) => join(root, path)).concat(base)) {
      mkdirSync(path, { recursive: true });
    }
    writeFileSync(join(root, "guest/lab/first.c"), "1");
    const key = baseKey(root, "amd");
    assert.notEqual(baseKey(root, "intel"), key);
    assert.equal(knownBase(key, "amd"), undefined);
    rememberBase(key, "amd", base);
    assert.equal(knownBase(key, "amd"), undefined);
    writeFileSync(join(base, "complete"), "");
    assert.equal(knownBase(key, "amd"), base);
    chmodSync(join(folder, "lab/known-amd.json"), 0o666);
    assert.equal(knownBase(key, "amd"), undefined);
    writeFileSync(join(root, "guest/lab/first.c"), "2");
    const second = baseKey(root, "amd");
    assert.notEqual(second, key);
    writeFileSync(join(root, "guest/init/agent/agent.h"), "the agent's, too");
    assert.notEqual(baseKey(root, "amd"), second);
  });
});

describe("lab: what the waiting vmlet is told", () => {
  it("its words, folder, variables and terminal come back as they were, behind their length", () => {
    for (const terminal of [undefined, "/dev/pts/0"]) {
      const work = { argv: ["boot", "", "a b\n", "ä€"], env: { A: "1=2", B: "" }, cwd: "/input", terminal };
      const bytes = encodeWork(work);
      assert.equal(bytes.readUInt32LE(0), bytes.length - LENGTH_BYTES);
      assert.deepEqual(decodeWork(bytes.subarray(LENGTH_BYTES)), JSON.parse(JSON.stringify(work)));
    }
  });
});
