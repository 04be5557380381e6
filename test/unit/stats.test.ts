// Needs: nothing. vmlet stats: the end of a metrics file, rates, the table.
import assert from "node:assert/strict";
import { UsageError } from "../../vmm/cli/usage-error.js";
import type { MetricsLine } from "../../vmm/cli/metrics.js";
import { HostError } from "../../vmm/errors.js";
import { parseTail, rates, stats, table } from "../../vmm/cli/stats.js";

const first: MetricsLine = {
  time_ms: 1000,
  memory_resident_bytes: 80 * 2 ** 20,
  lost_lines: 0,
  cpu_ms: 100,
  state: "running",
  exits: { io: 10 },
  devices: { vda: { reads: 1, flushes: 0 } },
  balloon: null,
};
const second: MetricsLine = {
  ...first,
  time_ms: 3000,
  cpu_ms: 200,
  exits: { io: 30, mmio: 4 },
  devices: { vda: { reads: 6, flushes: 0 } },
  balloon: {
    target_bytes: 64 * 2 ** 20,
    actual_bytes: 32 * 2 ** 20,
    guest_total_bytes: 100 * 2 ** 20,
    guest_available_bytes: 50 * 2 ** 20,
    guest_free_bytes: null,
    guest_cache_bytes: null,
  },
};
const text = (...lines: MetricsLine[]): string => lines.map((line) => `${JSON.stringify(line)}\n`).join("");

describe("stats", () => {
  it("takes the last two complete lines, whatever is cut off around them", () => {
    const found = parseTail(`9,"exits":{}}\n${text(first, second)}{"time_`, "f");
    assert.deepEqual(found, { line: second, previous: first });
    assert.deepEqual(parseTail(text(first), "f"), { line: first, previous: undefined });
    assert.equal(parseTail('{"time_ms":', "f"), undefined);
    for (const other of [
      "hello",
      "null",
      "5",
      "[]",
      "{}",
      '{"time_ms":1}',
      JSON.stringify({ ...first, exits: null }),
    ]) {
      assert.throws(() => parseTail(`${other}\n`, "f"), UsageError, other);
    }
  });

  it("a file that cannot be one is refused in words, and not waited for", async () => {
    for (const [path, why] of [
      ["/tmp", /a folder/],
      ["/dev/zero", /not a regular file/],
      ["/dev/null/x", /a part of the path is not a folder/],
      ["/nowhere", /no such file/],
      ["x".repeat(300), /too long/],
    ] as const) {
      await assert.rejects(stats([path]), (error) => error instanceof HostError && why.test(error.message), path);
    }
  });

  it("rates are since the line before, or since the start", () => {
    assert.deepEqual(rates({ line: second, previous: first }), {
      cpu_percent: 5,
      exits: { io: 10, mmio: 2 },
      devices: { vda: { reads: 2.5, flushes: 0 } },
    });
    assert.equal(rates({ line: first, previous: undefined }).exits["io"], 10);
  });

  it("the table has what is not zero, in columns", () => {
    assert.equal(
      table({ line: second, previous: first }),
      [
        "state        running  after 3.0 s",
        "memory      80.0 MiB  resident",
        "balloon     32.0 MiB  given up, of 64.0 MiB asked for",
        "guest       50.0 MiB  available, of 100.0 MiB",
        "cpu              5 %  of a core",
        "",
        "               total  per second",
        "exits io          30  10",
        "exits mmio         4  2",
        "vda reads          6  2.5",
        "",
      ].join("\n"),
    );
  });
});
