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

export function memoryChart(result: LadderResult): string {
  const points = pointsOf(result);
  if (points.length === 0) return "";
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
    grid: { left: 70, right: 110, top: 50, bottom: 50 },
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
        .map(({ rung, mib, calls }) => ({ value: [mib, calls], name: rung.name })),
      label: {
        // Eight namespaces lie on one point; their names would be a heap.
        show: true,
        position: "right",
        color: standIn("ink"),
        fontSize: 11,
        formatter: ({ name }: { name: string }) => (name.startsWith("ns-") ? "" : name),
      },
      labelLayout: { moveOverlap: "shiftY" },
    })),
  };
  return draw(option, WIDTH, HEIGHT, "Memory against isolation; the tables have the figures");
}
