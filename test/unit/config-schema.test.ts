// Needs: nothing. Every field of a configuration, with everything that JavaScript can put there.
import assert from "node:assert/strict";
import { runInNewContext } from "node:vm";
import { createVm, type VmConfig } from "../../vmm/index.js";
import { resolveConfig, VM_SCHEMA } from "../../vmm/config/resolve.js";
import type { FromSchema, RecordSchema, Schema } from "../../vmm/config/schema.js";
import { VFIO_SCHEMA } from "../../vmm/config/vfio.js";
import { ConfigError } from "../../vmm/errors.js";

// The compiler compares what callers are told with what is checked: key by key, and who must be there.
type Plain<T> = T extends readonly (infer Item)[]
  ? Plain<Item>[]
  : T extends object
    ? { [K in keyof T]: Plain<T[K]> }
    : T;
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : never;
const SCHEMA_AND_TYPE_AGREE: Same<Plain<VmConfig>, Plain<FromSchema<typeof VM_SCHEMA>>> = true;

/** With every field there is, all of them right. */
const limit = () => ({ size: 1, oneTimeBurst: 0, refillTimeMs: 100 });
const limiter = () => ({ bandwidth: limit(), operations: limit() });
const FULL: VmConfig = {
  kernel: "k",
  initrd: "i",
  cmdline: "debug",
  bareCmdline: false,
  memoryMib: 256,
  cpus: 2,
  smt: true,
  hugePages: "none",
  nested: false,
  pci: false,
  cpuTemplate: "T2",
  protocol: "auto",
  quiet: true,
  disks: [
    {
      path: "d",
      isRoot: true,
      partuuid: "0eaa91a0-01",
      isReadonly: true,
      format: "raw",
      id: "x",
      cache: "unsafe",
      blockSize: 512,
      lock: true,
      rateLimiter: limiter(),
    },
  ],
  nets: [
    {
      tap: "auto",
      mac: "52:54:00:12:34:56",
      mtu: 1500,
      hostAddress: "172.16.0.1/24",
      vhost: "off",
      rateLimiter: limiter(),
    },
    {
      user: {
        forwards: [{ protocol: "udp", hostAddress: "0.0.0.0", hostPort: 1, guestPort: 65535 }],
        reachesHost: false,
      },
      mmds: true,
      rxRateLimiter: limiter(),
      txRateLimiter: limiter(),
    },
  ],
  mmds: { version: "V2", address: "169.254.170.2", imdsCompat: true },
  vsock: { cid: 3, path: "v" },
  console: "virtio",
  rng: true,
  rngRateLimiter: limiter(),
  keyboard: true,
  commandChannel: true,
  balloon: { targetMib: 100, deflateOnOom: true, reporting: true, hinting: true, statisticsIntervalS: 5 },
  shares: [{ path: "s", tag: "code", isReadonly: true }],
  // Devices of the host go with neither folders nor a balloon: test/unit/pci/vfio.test.ts.
  vfio: [],
};

type Steps = readonly (string | number)[];

/** The way to every value below `given`, `given` itself first. */
function fields(schema: Schema, given: unknown, steps: Steps = []): { steps: Steps; schema: Schema }[] {
  const own = [{ steps, schema }];
  if ("enum" in schema || given === undefined) return own;
  if (schema.type === "array") {
    return own.concat((given as unknown[]).flatMap((item, index) => fields(schema.items, item, [...steps, index])));
  }
  if (schema.type !== "object") return own;
  const record = given as Record<string, unknown>;
  return own.concat(
    Object.entries(schema.properties).flatMap(([key, field]) =>
      key in record ? fields(field, record[key], [...steps, key]) : [],
    ),
  );
}

/** A copy of FULL with another value at the end of the way; `define` puts it there. */
function changed(steps: Steps, define: (record: object, key: string | number) => void): unknown {
  const copy = { top: structuredClone(FULL) };
  const way: Steps = ["top", ...steps];
  let at: object = copy;
  for (const step of way.slice(0, -1)) at = (at as Record<string | number, object>)[step] as object;
  define(at, way.at(-1) ?? "");
  return copy.top;
}

function put(value: unknown) {
  return (record: object, key: string | number): void => {
    Object.defineProperty(record, key, { value, enumerable: true, configurable: true, writable: true });
  };
}

function getter(get: () => unknown) {
  return (record: object, key: string | number): void => {
    Object.defineProperty(record, key, { get, enumerable: true, configurable: true });
  };
}

/** What no field takes. */
const WRONG_EVERYWHERE: readonly (readonly [what: string, value: unknown])[] = [
  ["null", null],
  ["NaN", NaN],
  ["Infinity", Infinity],
  ["-Infinity", -Infinity],
  ["a fraction", 1.5],
  ["a negative number", -1],
  ["2^53", 2 ** 53],
  ["1e308", 1e308],
  ["a bigint", 1n],
  ["a huge bigint", 10n ** 5000n],
  ["a symbol", Symbol("x")],
  ["a function", () => true],
  ["a date", new Date(0)],
  ["a map", new Map([["path", "x"]])],
  ["a boxed string", new String("auto")],
  ["a boxed number", new Number(3)],
  ["bytes", new Uint8Array(3)],
  ["an array-like", { length: 1, 0: { path: "x" } }],
  ["text with NUL", "a\0b"],
  ["text that UTF-8 cannot say", "a\ud800"],
  ["an array with a hole", new Array(1)],
  ["an array of arrays", [[]]],
  ["a very long array", new Array(2 ** 32 - 1)],
  ["a nested null", [null]],
  ["an object of nobody's", Object.assign(Object.create({ path: "x" }) as object, { colour: 1 })],
  ["a proxy that throws", new Proxy({}, { ownKeys: () => fail(), get: () => fail(), getPrototypeOf: () => fail() })],
  ["a revoked proxy", revoked({})],
  ["a revoked proxy of an array", revoked([])],
  ["an object that throws when it is shown", { toString: () => fail(), toJSON: () => fail(), colour: 1 }],
];

/** What is right for some. */
const WRONG_FOR_MOST: readonly (readonly [what: string, value: unknown, isRight: (schema: Schema) => boolean])[] = [
  ["true", true, (schema) => typeOf(schema) === "boolean"],
  ["a number as text", "3", (schema) => "pattern" in schema && new RegExp(schema.pattern, "u").test("3")],
  ["empty text", "", (schema) => "pattern" in schema && new RegExp(schema.pattern, "u").test("")],
  [
    "the word off",
    "off",
    (schema) =>
      "pattern" in schema
        ? new RegExp(schema.pattern, "u").test("off")
        : "enum" in schema && schema.enum.includes("off"),
  ],
  ["an empty list", [], (schema) => typeOf(schema) === "array"],
  ["an array without a prototype", Object.setPrototypeOf([], null), (schema) => typeOf(schema) === "array"],
  ["an empty object", {}, (schema) => "required" in schema && schema.required.length === 0],
  ["zero", 0, (schema) => "minimum" in schema && schema.minimum === 0],
];

function typeOf(schema: Schema): string {
  return "enum" in schema ? "enum" : schema.type;
}

function fail(): never {
  throw new Error("no");
}

function revoked(target: object): unknown {
  const { proxy, revoke } = Proxy.revocable(target, {});
  revoke();
  return proxy;
}

function refuses(config: unknown): readonly string[] {
  let problems: readonly string[] = [];
  assert.throws(
    () => resolveConfig(config as VmConfig),
    (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      problems = error.problems;
      return true;
    },
  );
  assert.ok(problems.length > 0 && problems.every((line) => line.length < 400 && !line.includes("\n")));
  return problems;
}

describe("config: every field", () => {
  const all = fields(VM_SCHEMA, FULL);

  it("the full configuration is a good one, has every field of the schema, and the schema's type is VmConfig", () => {
    assert.equal(SCHEMA_AND_TYPE_AGREE, true);
    const { disks, nets, vsock, balloon } = resolveConfig(FULL);
    assert.deepEqual([disks.length, nets.length, vsock?.cid, balloon?.targetMib], [1, 2, 3, 100]);
    const inSchema = (schema: Schema): number =>
      "enum" in schema || (schema.type !== "object" && schema.type !== "array")
        ? 1
        : Object.values(schema.type === "array" ? [schema.items] : schema.properties).reduce(
            (sum, field) => sum + inSchema(field),
            1,
          );
    // One network device has what the other cannot; no device of the host is there.
    assert.equal(all.length, inSchema(VM_SCHEMA) + 1 - inSchema(VFIO_SCHEMA.items));
  });

  for (const { steps, schema } of all) {
    const name = steps.length === 0 ? "the whole" : steps.join(".");
    it(`${name}: whatever it cannot be is a ConfigError, and nothing else`, () => {
      for (const [what, value] of WRONG_EVERYWHERE) {
        assert.ok(refuses(changed(steps, put(value))).length > 0, what);
      }
      for (const [what, value, isRight] of WRONG_FOR_MOST) {
        if (isRight(schema) || steps.length === 0) continue;
        assert.ok(refuses(changed(steps, put(value))).length > 0, what);
      }
      if (steps.length > 0) {
        assert.match(refuses(changed(steps, getter(fail))).join("\n"), /cannot be read/);
      }
      if ("minimum" in schema) {
        for (const value of [schema.minimum - 1, schema.maximum + 1, schema.minimum + 0.5]) {
          const problems = refuses(changed(steps, put(value)));
          assert.ok(problems.some((line) => line.includes(String(value)) && line.includes(String(schema.maximum))));
        }
      }
    });
  }

  for (const { steps, schema } of all.filter((field) => typeOf(field.schema) === "object")) {
    it(`${steps.join(".") || "the whole"}: keys that nobody reads, and those that must be there`, () => {
      const at = (key: PropertyKey, value: unknown) =>
        changed([...steps, key as string], (record, last) =>
          Object.defineProperty(record, last, { value, enumerable: true, configurable: true }),
        );
      for (const key of ["colour", "", "__proto__", "constructor", "toString", "path ", "0"]) {
        const problems = refuses(at(key, 1));
        assert.ok(
          problems.some((line) => line.includes(JSON.stringify(key))),
          key,
        );
      }
      refuses(at(Symbol("path"), 1));
      for (const key of (schema as RecordSchema).required) {
        const problems = refuses(at(key, undefined));
        assert.ok(
          problems.some((line) => /^no | no /i.test(line) && line.includes(`${key} is given`)),
          key,
        );
      }
      // A prototype with fields of its own: they would be overlooked.
      refuses(
        changed(steps, (record, key) => {
          const own = (record as Record<string, object>)[key] ?? {};
          put(Object.assign(Object.create(own) as object))(record, key);
        }),
      );
    });
  }

  it("a rate limiter's bucket is full again within a day", () => {
    const config = (refillTimeMs: number): VmConfig => ({
      kernel: "k",
      disks: [{ path: "d", rateLimiter: { operations: { size: 1, oneTimeBurst: 0, refillTimeMs } } }],
    });
    assert.doesNotThrow(() => resolveConfig(config(86_400_000)));
    assert.throws(() => resolveConfig(config(86_400_001)), /refillTimeMs 86400001 .*86400000/);
  });

  it("undefined is not given, everywhere", () => {
    const optional = all.filter(({ steps }) => steps.length > 0 && typeof steps.at(-1) === "string");
    for (const { steps } of optional) {
      const key = String(steps.at(-1));
      if (["kernel", "path", "cid", "targetMib", "size", "oneTimeBurst", "refillTimeMs"].includes(key)) continue;
      if (["hostPort", "guestPort", "tap", "user"].includes(key)) continue;
      assert.doesNotThrow(() => resolveConfig(changed(steps, put(undefined)) as VmConfig), steps.join("."));
    }
  });

  it("each property is read once: what has been checked is what is used", () => {
    for (const { steps } of all.filter((field) => field.steps.length > 0)) {
      let reads = 0;
      const config = changed(steps, (record, key) => {
        const value = (record as Record<string | number, unknown>)[key];
        getter(() => {
          reads++;
          return value;
        })(record, key);
      });
      resolveConfig(config as VmConfig);
      assert.equal(reads, 1, steps.join("."));
    }
  });

  it("plain objects of another realm and without prototype are plain objects; minus zero is zero", () => {
    const foreign = runInNewContext("({ kernel: 'k', disks: [{ path: 'd' }] })") as VmConfig;
    assert.equal(resolveConfig(foreign).disks[0]?.path, "d");
    const bare = Object.assign(Object.create(null) as object, { kernel: "k" }) as VmConfig;
    assert.equal(resolveConfig(bare).kernel, "k");
    assert.ok(Object.is(resolveConfig({ kernel: "k", balloon: { targetMib: -0 } }).balloon?.targetMib, 0));
  });

  it("what somebody has put into Object.prototype is nobody's wish", () => {
    Object.defineProperty(Object.prototype, "nested", { value: true, configurable: true });
    try {
      assert.equal(resolveConfig({ kernel: "k" }).nested, false);
    } finally {
      delete (Object.prototype as { nested?: unknown }).nested;
    }
  });

  it("createVm with wrong shapes: one error with all problems, names, values and limits", () => {
    const config = {
      kernel: 5,
      initrd: 5,
      cmdline: {},
      memoryMib: "128",
      nested: "no",
      disks: {},
      nets: [null, { tap: 5 }, { tap: "tap0", rateLimiter: { bandwidth: null } }],
      rng: "off",
      vsock: [],
      balloon: 1,
    };
    assert.throws(
      () => createVm(config as unknown as VmConfig, { output: (_bytes, done) => done() }),
      (error) => {
        assert.ok(error instanceof ConfigError);
        assert.deepEqual(error.problems, [
          "kernel 5 is not a path",
          "initrd 5 is not a path",
          "cmdline (an object) is not a command line, text without a NUL character",
          'Memory (memoryMib) "128" is not a whole number from 16 to 1048576 MiB',
          'nested "no" is not true or false',
          "disks (an object) is not a list",
          "Network device 1 null is not a plain object with tap, user, mac, mtu, hostAddress, mmds, vhost, rateLimiter, rxRateLimiter, txRateLimiter",
          'Network device 2: tap 5 is not a name of 1 to 15 characters, or "auto"',
          "Network device 3: rateLimiter.bandwidth null is not a plain object with size, oneTimeBurst, refillTimeMs",
          "Socket device (a list) is not a plain object with cid, path",
          'rng "off" is not true or false',
          "Balloon 1 is not a plain object with targetMib, deflateOnOom, reporting, hinting, statisticsIntervalS",
        ]);
        return true;
      },
    );
    for (const nothing of [undefined, null, 5, "k", [], () => 1]) refuses(nothing);
  });

  it("what contradicts between devices: addresses, ports", () => {
    const mac = "52:54:00:12:34:5a";
    const nets = [
      { tap: "tap0", mac },
      { tap: "tap1", mac: mac.toUpperCase() },
    ];
    assert.deepEqual(refuses({ kernel: "k", nets }), [`Address ${mac} is given to more than one network device`]);
    const forward = { hostPort: 80, guestPort: 80 };
    const twice = { user: { forwards: [forward, { ...forward, guestPort: 81 }, { ...forward, protocol: "udp" }] } };
    assert.deepEqual(refuses({ kernel: "k", nets: [twice] }), [
      "Network device 1: 127.0.0.1:80/tcp of this host is forwarded twice",
    ]);
    for (const hostAddress of [
      "0.0.0.0/8",
      "127.0.0.1/8",
      "224.0.0.1/4",
      "255.255.255.255/32",
      "10.0.0.01/8",
      "10.0.0.1/0",
    ])
      refuses({ kernel: "k", nets: [{ tap: "auto", hostAddress }] });
    for (const hostAddress of ["10.0.0.1/32", "223.1.2.3/1", "192.0.2.1/31"])
      assert.doesNotThrow(() => resolveConfig({ kernel: "k", nets: [{ tap: "auto", hostAddress }] }));
  });
});
