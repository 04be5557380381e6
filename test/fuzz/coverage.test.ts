// Needs: nothing. The coverage-guided search itself: what it changes in a module, and that it finds what is hidden in one.
import assert from "node:assert/strict";
import { Broken, Engine, minimizeBroken, minimized } from "./coverage/engine.js";
import type { ByteTarget } from "./coverage/byte-target.js";
import { instrument } from "./coverage/instrument.js";
import { encodings } from "./coverage/mutator.js";
import { Probe } from "./coverage/probe.js";

let loaded = 0;

/** The module as it is loaded after instrumentation, another one each time. */
async function load<Exports>(source: string): Promise<Exports> {
  const text = `${instrument(source, "test.js")}//${String(loaded++)}`;
  return (await import(`data:text/javascript;base64,${Buffer.from(text).toString("base64")}`)) as Exports;
}

const FORMS = `
export const f = (x) => x > 3 ? "big" : x === 0 ? "zero" : ({ a: x });
export function g(x) { if (x) return 1; else if (x === 0) return 2; else return 3; }
export class C { static #n = 1; #m; constructor(m) { this.#m = m; } get m() { return this.#m ?? (C.#n && 7); } }
export const h = (list) => { let s = 0; for (const x of list) s += x; do s++; while (s < 5); while (s > 100) s--; return s; };
export const k = (x) => { switch (x) { case 1: case 2: return "few"; case 3: { return "three"; } default: return "many"; } };
export const t = () => { try { throw new Error("x"); } catch { return "caught"; } finally { h([]); } };
export async function* y(n) { for (let i = 0; i < n; i++) yield n === 2 ? await i : i; }
export const o = (x) => x?.a?.b || (x && !x.a) || null;
`;

const HIDDEN = `
export function run(b) {
  const view = new DataView(b.buffer, b.byteOffset, b.length);
  if (b.length < 12) return 0;
  if (view.getUint32(0, true) !== 0xdeadbeef) return 1;
  if (view.getUint16(4) !== 0x1234) return 2;
  let text = "";
  for (const byte of b.subarray(6, 10)) text += String.fromCharCode(byte);
  if (text !== "open") return 3;
  switch (b[10]) { case 0x7f: if (b[11] > 250) throw new Error("found"); }
  return 4;
}`;

function target(run: (input: Uint8Array) => unknown): ByteTarget {
  return { name: "test", parser: "test", maxLength: 64, seeds: [], run: (input) => void run(input) };
}

describe("fuzz: coverage", function () {
  this.timeout(30_000);
  let probe: Probe;
  beforeEach(() => {
    probe = new Probe();
    probe.install();
  });
  afterEach(() => {
    probe.uninstall();
  });

  it("a module does after instrumentation what it did before", async () => {
    const made = await load<Record<string, (...args: unknown[]) => unknown>>(FORMS);
    const { f, g, h, k, t, o, y } = made;
    assert.deepEqual([f?.(5), f?.(0), f?.(1)], ["big", "zero", { a: 1 }]);
    assert.deepEqual([g?.(1), g?.(0), g?.(null)], [1, 2, 3]);
    assert.deepEqual([h?.([1]), h?.([200])], [5, 100]);
    assert.deepEqual([k?.(1), k?.(3), k?.(9)], ["few", "three", "many"]);
    assert.equal(t?.(), "caught");
    assert.deepEqual([o?.(null), o?.({ a: { b: 1 } }), o?.({})], [null, 1, true]);
    const yielded: unknown[] = [];
    for await (const one of y?.(2) as AsyncIterable<unknown>) yielded.push(one);
    assert.deepEqual(yielded, [0, 1]);
    const { C } = made as unknown as { readonly C: new (m?: number) => { readonly m: number } };
    assert.deepEqual([new C().m, new C(3).m], [7, 3]);
    assert.ok(probe.size > 20);
  });

  it("a search comes upon four values one behind the other, the same from the same seed, and makes the input short", async () => {
    const { run } = await load<{ run: (input: Uint8Array) => void }>(HIDDEN);
    const search = async (): Promise<{ readonly input: Uint8Array; readonly count: number }> => {
      const engine = new Engine(target(run), probe, 1);
      await engine.begin([]);
      try {
        await engine.run(500_000);
      } catch (error) {
        assert.ok(error instanceof Broken);
        return { input: error.input, count: engine.count };
      }
      throw new Error("Nothing was found");
    };
    const found = await search();
    assert.deepEqual(await search(), found);
    const shortest = await minimizeBroken(found.input, (input) => {
      try {
        run(input);
        return Promise.resolve(false);
      } catch {
        return Promise.resolve(true);
      }
    });
    assert.equal(shortest.length, 12);
  });

  it("a corpus has the shortest inputs that reach all", async () => {
    const { run } = await load<{ run: (input: Uint8Array) => void }>(HIDDEN);
    const inputs = [new Uint8Array(30), new Uint8Array(12), new Uint8Array(20), new Uint8Array(0)];
    assert.deepEqual(await minimized(target(run), probe, inputs), [new Uint8Array(0), new Uint8Array(12)]);
  });

  it("a number is looked for in every width and order that can hold it", () => {
    const hex = encodings(0x1234).map((bytes) => Buffer.from(bytes).toString("hex"));
    assert.deepEqual(hex, [
      Buffer.from("4660").toString("hex"),
      ...["3412", "1234", "34120000", "00001234", "3412000000000000", "0000000000001234"],
    ]);
    assert.ok(encodings(-1).some((bytes) => bytes.length === 4 && bytes.every((byte) => byte === 0xff)));
    assert.deepEqual(encodings(0.5), []);
  });
});
