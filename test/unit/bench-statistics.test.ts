// Needs: nothing. The benches' statistics against samples whose figures are known.
import assert from "node:assert/strict";
import { atMost, measure, ratioAtMost, samplesOf, turnOrder, type RoundsDone } from "../../bench/harness.js";
import { median, medianInterval, pairwise, quantile, summarize } from "../../bench/statistics.js";
import { monitorMemory } from "../../bench/system/smaps.js";
import { formatColumns, formatNumber } from "../../bench/table.js";

describe("bench: statistics", () => {
  it("quantiles interpolate between the closest ranks", () => {
    // Numbers and results of R's default, quantile(type = 7).
    assert.equal(quantile([15, 20, 35, 40, 50], 0.4), 29);
    assert.equal(quantile([4, 1, 3, 2], 0.25), 1.75);
    assert.equal(quantile([7], 0.9), 7);
    assert.throws(() => quantile([], 0.5), RangeError);
  });

  it("the median is the middle one, or the mean of the middle two; the order does not matter", () => {
    assert.equal(median([9, 1, 5]), 5);
    assert.equal(median([4, 1, 3, 2]), 2.5);
  });

  it("a summary has the range, the quartiles and their distance, and leaves the samples as they were", () => {
    const samples = [8, 2, 6, 4, 10];
    assert.deepEqual(summarize(samples), { median: 6, min: 2, max: 10, q1: 4, q3: 8, iqr: 4, count: 5 });
    assert.deepEqual(samples, [8, 2, 6, 4, 10]);
  });

  it("pairs are made round by round, and unequal series are refused", () => {
    assert.deepEqual(
      pairwise([10, 30], [5, 10], (a, b) => a / b),
      [2, 3],
    );
    assert.throws(() => pairwise([1], [1, 2], (a) => a), /1 and 2/);
  });

  it("noise that both sides share does not reach the ratio", () => {
    const noise = [1, 5, 2, 9, 3, 7, 1, 4, 8, 2];
    const target = ratioAtMost(
      "twice as long",
      noise.map((n) => 2 * n),
      noise,
      2,
    );
    assert.deepEqual(target.measured, { median: 2, low: 2, high: 2 });
    assert.equal(target.verdict, "PASS");
  });

  it("the bootstrap interval holds the median, stays in the range and comes out the same again", () => {
    const samples = [12, 15, 11, 19, 14, 13, 18, 16, 12, 17, 90];
    const interval = medianInterval(samples);
    assert.equal(interval.median, 15);
    assert.ok(interval.low >= 11 && interval.low < 15, String(interval.low));
    assert.ok(interval.high > 15 && interval.high <= 19, String(interval.high));
    assert.deepEqual(medianInterval(samples), interval);
  });

  it("the interval of a wide series is wider", () => {
    const narrow = medianInterval([99, 100, 101, 100, 99, 101, 100, 100]);
    const wide = medianInterval([50, 150, 60, 140, 70, 130, 100, 100]);
    assert.ok(wide.high - wide.low > narrow.high - narrow.low);
  });

  it("a target is missed when the median is above the limit", () => {
    assert.equal(atMost("exits", [10, 11, 12], 11, "exits").verdict, "PASS");
    assert.equal(atMost("exits", [10, 12, 13], 11, "exits").verdict, "MISS");
  });
});

describe("bench: doubt", () => {
  it("an interval below what is possible is no success", () => {
    assert.equal(atMost("more than in C", [-9, -8, -10, -9, -11], 2, "ns", 0).verdict, "DOUBT");
    assert.equal(atMost("more than in C", [-1, 1, 0, 2, 1], 2, "ns", 0).verdict, "PASS");
    assert.equal(atMost("more than in C", [-9, -8, -10], 2, "ns").verdict, "PASS");
  });
});

describe("bench: harness", () => {
  const context = { rounds: 3, warmups: 1, progress: () => undefined };

  it("each round has every variant once, starts elsewhere, and every other one goes backwards", () => {
    assert.deepEqual(
      [0, 1, 2, 3].map((round) => turnOrder(3, round)),
      [
        [0, 1, 2],
        [2, 1, 0],
        [1, 2, 0],
        [0, 2, 1],
      ],
    );
  });

  it("turns alternate, and the warm-up's samples are dropped", async () => {
    const calls: string[] = [];
    const variant = (name: string) => ({
      name,
      turn: () => {
        calls.push(name);
        return { turn_count: calls.length };
      },
    });
    const measured = await measure([variant("a"), variant("b")], context);
    assert.deepEqual(calls, ["a", "b", "b", "a", "b", "a", "a", "b"]);
    assert.deepEqual(samplesOf(measured, "a", "turn_count"), [4, 6, 7]);
    assert.throws(() => samplesOf(measured, "c", "turn_count"), /there are a turn_count/);
  });

  it("an interrupted bench goes on after its last whole round, with the samples and failures that it had", async () => {
    const counts = { steady: 0, breaks: 0 };
    const variants = [
      { name: "steady", turn: () => ({ turn_count: ++counts.steady }) },
      {
        name: "breaks",
        turn: () => {
          counts.breaks++;
          throw new Error("no more");
        },
      },
    ];
    const saved: RoundsDone[] = [];
    const afterRound = (done: RoundsDone): void => {
      saved.push(done);
      if (done.rounds === 2) throw new Error("interrupted");
    };
    await assert.rejects(measure(variants, { ...context, warmups: 0, rounds: 4, afterRound }), /interrupted/);
    assert.deepEqual(
      saved.map(({ rounds, measurements }) => [rounds, samplesOf(measurements, "steady", "turn_count")]),
      [
        [1, [1]],
        [2, [1, 2]],
      ],
    );
    counts.steady = 10;
    const resumed = await measure(variants, { ...context, rounds: 4, resume: saved.at(-1) });
    assert.deepEqual(samplesOf(resumed, "steady", "turn_count"), [1, 2, 11, 12]);
    assert.deepEqual(resumed.failures, [{ variant: "breaks", error: "no more" }]);
    assert.equal(counts.breaks, 1);
  });

  it("a variant that fails is named with its error and leaves the others alone", async () => {
    let turns = 0;
    const measured = await measure(
      [
        { name: "steady", turn: () => ({ time_ms: 1 }) },
        {
          name: "breaks",
          turn: () => {
            if (++turns === 3) throw new Error("no more");
            return { time_ms: 2 };
          },
        },
      ],
      context,
    );
    assert.deepEqual(measured.failures, [{ variant: "breaks", error: "no more" }]);
    assert.deepEqual(
      measured.series.map(({ variant, samples }) => [variant, samples.length]),
      [["steady", 3]],
    );
    assert.equal(turns, 3);
  });
});

describe("bench: memory beyond the guest's", () => {
  const KIB = 1024;
  const mapping = (start: number, size: number, rss: number, pss: number, clean: number, dirty: number): string =>
    `${(start * KIB).toString(16)}-${((start + size) * KIB).toString(16)} rw-p 00000000 00:00 0 \nSize: ${String(size)} kB\nRss: ${String(rss)} kB\nPss: ${String(pss)} kB\nPrivate_Clean: ${String(clean)} kB\nPrivate_Dirty: ${String(dirty)} kB\n`;

  it("sums every mapping but the guest's RAM", () => {
    const guest = mapping(1000, 131072, 5000, 5000, 0, 5000);
    const smaps = mapping(100, 4, 4, 2, 0, 0) + guest + mapping(200_000, 132, 100, 100, 40, 60);
    assert.deepEqual(monitorMemory(smaps, 131072), { rss: 104, pss: 102, private: 100 });
  });

  it("the guest's RAM may lie in several mappings, split by madvise", () => {
    const guest =
      mapping(1000, 16384, 10, 10, 0, 10) + mapping(17384, 8192, 20, 20, 0, 20) + mapping(25576, 106496, 5, 5, 0, 5);
    const smaps = mapping(996, 4, 1, 1, 0, 1) + guest + mapping(132072, 4, 2, 2, 0, 2);
    assert.deepEqual(monitorMemory(smaps, 131072), { rss: 3, pss: 3, private: 3 });
  });

  it("of two runs of that length, the fuller one is the guest's", () => {
    const arenas = mapping(500_000, 65536, 3, 3, 0, 3) + mapping(565_536, 65536, 4, 4, 0, 4);
    const smaps = mapping(1000, 131072, 900, 900, 0, 900) + arenas;
    assert.deepEqual(monitorMemory(smaps, 131072), { rss: 7, pss: 7, private: 7 });
  });

  it("says so when there is no such mapping, or nothing at all", () => {
    assert.throws(() => monitorMemory(mapping(0, 4, 4, 4, 0, 4), 131072), /No mapping of 131072 KiB/);
    assert.throws(() => monitorMemory("", 131072), /had ended/);
  });
});

describe("bench: table", () => {
  it("numbers keep three digits", () => {
    assert.deepEqual([31.44, 0.0523, 12_345.6, 0, -5.0, 99.96].map(formatNumber), [
      "31.4",
      "0.0523",
      "12,346",
      "0",
      "-5.00",
      "100.0",
    ]);
  });

  it("columns line up, text left and numbers right", () => {
    assert.equal(
      formatColumns([
        ["a", "1"],
        ["long", "100"],
      ]),
      "a       1\nlong  100",
    );
  });
});
