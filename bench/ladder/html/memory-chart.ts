// Memory against isolation: what an idle instance adds, and how much of the host's kernel the program reaches.
import type { EChartsCoreOption } from "echarts/core";
import { present, seriesOf } from "../figures.js";
import type { LadderResult, RungResult } from "../result.js";
import { reachableCalls } from "../survey.js";
import { draw, logAxis } from "./draw.js";
import { FAMILY_NAMES, standIn } from "./palette.js";

const WIDTH = 920;
const HEIGHT = 420;
const KIB_PER_MIB = 1024;

interface Point {
  readonly rung: RungResult;
  readonly mib: number;
  readonly calls: number;
}

function pointsOf(result: LadderResult): Point[] {
  const plain = result.rungs.find(({ name }) => name === "process")?.isolation;
  if (plain === undefined || plain === null) return [];
  return present(result).flatMap((rung) => {
    const series = seriesOf(result, "memory", rung.name, "idle_pss_kib");
    if (series === undefined || rung.isolation === null) return [];
    return [{ rung, mib: series.summary.median / KIB_PER_MIB, calls: reachableCalls(rung.isolation, plain) }];
  });
}

/** Points whose names would overlap share one. */
const NEAR_DECADES = 0.32;
const NEAR_CALLS = 16;
/** From this many namespaces on, they share one name. */
const MANY = 3;

function captions(points: readonly Point[]): ReadonlyMap<Point, string> {
  const groups: Point[][] = [];
  for (const point of points.toSorted((a, b) => a.mib - b.mib)) {
    const near = groups.find(([first]) => {
      if (first === undefined) return false;
      return Math.log10(point.mib / first.mib) < NEAR_DECADES && Math.abs(point.calls - first.calls) < NEAR_CALLS;
    });
    if (near === undefined) groups.push([point]);
    else near.push(point);
  }
  return new Map(
    groups.flatMap((group): [Point, string][] => {
      // Under the lowest of them, where no other point covers the words.
      const lowest = group.toSorted((a, b) => a.calls - b.calls)[0];
      const names = group.map(({ rung }) => rung.name);
      const single = names.filter((name) => name.startsWith("ns-"));
      const shown =
        single.length < MANY ? names : [...names.filter((name) => !single.includes(name)), "single namespaces"];
      return lowest === undefined ? [] : [[lowest, shown.join("\n")]];
    }),
  );
}

/** Below this, a name goes above its point: there is the axis. */
const LOW_CALLS = 60;

export function memoryChart(result: LadderResult): string {
  const points = pointsOf(result);
  if (points.length === 0) return "";
  const names = captions(points);
  const families = [...new Set(points.map(({ rung }) => rung.family))];
  const option: EChartsCoreOption = {
    legend: {
      top: 0,
      left: 70,
      data: families.map((family) => FAMILY_NAMES[family]),
      icon: "circle",
      itemWidth: 9,
      itemHeight: 9,
      itemGap: 28,
      textStyle: { color: standIn("ink") },
    },
    grid: { left: 70, right: 60, top: 50, bottom: 50 },
    xAxis: logAxis("memory of one idle instance, MiB PSS (log)"),
    yAxis: {
      type: "value",
      name: "host's system calls that answer",
      nameLocation: "middle",
      nameGap: 42,
      nameTextStyle: { color: standIn("muted") },
      axisLabel: { color: standIn("muted") },
      splitLine: { lineStyle: { color: standIn("grid") } },
    },
    series: families.map((family) => ({
      type: "scatter",
      name: FAMILY_NAMES[family],
      color: standIn(family),
      symbolSize: 12,
      itemStyle: { opacity: 0.8 },
      data: points
        .filter(({ rung }) => rung.family === family)
        .map((point) => ({
          value: [point.mib, point.calls],
          name: names.get(point) ?? "",
          label: { position: point.calls < LOW_CALLS ? "top" : "bottom" },
        })),
      label: { show: true, color: standIn("ink"), fontSize: 11, formatter: "{b}" },
    })),
  };
  return draw(option, WIDTH, HEIGHT, "Memory against isolation; the tables have the figures");
}
