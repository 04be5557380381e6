// Overhead: a panel a workload, a bar a rung, against the plain process.
import type { EChartsCoreOption } from "echarts/core";
import { formatNumber } from "../../table.js";
import { WORKLOADS, present, seriesOf } from "../figures.js";
import type { LadderResult, RungResult } from "../result.js";
import { draw, logAxis } from "./draw.js";
import { standIn } from "./palette.js";

const COLUMNS = 3;
const PANEL = { width: 210, gapX: 100, left: 100, top: 34, gapY: 60 };
const BAR_HEIGHT = 16;

interface Panel {
  readonly label: string;
  readonly bars: readonly { readonly rung: RungResult; readonly ratio: number }[];
}

function panelsOf(result: LadderResult): Panel[] {
  // A namespace alone costs nothing while the program runs; all of them together stand for it.
  const rungs = present(result).filter(({ name }) => !name.startsWith("ns-") && name !== "process");
  return WORKLOADS.flatMap(([metric, label]) => {
    const base = seriesOf(result, "work", "process", metric)?.summary.median;
    if (base === undefined) return [];
    const bars = rungs.flatMap((rung) => {
      const own = seriesOf(result, "work", rung.name, metric)?.summary.median;
      return own === undefined ? [] : [{ rung, ratio: own / base }];
    });
    return bars.length === 0 ? [] : [{ label: `${label} (${formatNumber(base)} ns)`, bars }];
  });
}

export function workChart(result: LadderResult): string {
  const panels = panelsOf(result);
  if (panels.length === 0) return "";
  const names = [...new Set(panels.flatMap(({ bars }) => bars.map(({ rung }) => rung.name)))];
  const panelHeight = names.length * BAR_HEIGHT;
  const x = (i: number): number => PANEL.left + (i % COLUMNS) * (PANEL.width + PANEL.gapX);
  const y = (i: number): number => PANEL.top + Math.floor(i / COLUMNS) * (panelHeight + PANEL.gapY);
  const option: EChartsCoreOption = {
    title: panels.map(({ label }, i) => ({
      text: label,
      left: x(i),
      top: y(i) - 26,
      textStyle: { fontSize: 13, fontWeight: 600, color: standIn("ink") },
    })),
    grid: panels.map((_, i) => ({ left: x(i), top: y(i), width: PANEL.width, height: panelHeight })),
    xAxis: panels.map(({ bars }, i) => ({
      ...logAxis(""),
      gridIndex: i,
      // Bars begin where nothing is lost or won.
      startValue: 1,
      min: 0.3,
      max: Math.max(10, ...bars.map(({ ratio }) => 10 ** Math.ceil(Math.log10(ratio) + 0.3))),
      axisLabel: { color: standIn("muted"), fontSize: 10, formatter: plain },
      splitLine: { show: false },
    })),
    yAxis: panels.map((_, i) => ({
      type: "category",
      gridIndex: i,
      inverse: true,
      data: names,
      axisTick: { show: false },
      axisLine: { show: false },
      axisLabel: { color: standIn("ink"), interval: 0, fontSize: 11 },
    })),
    series: panels.map(({ bars }, i) => ({
      type: "bar",
      xAxisIndex: i,
      yAxisIndex: i,
      barWidth: BAR_HEIGHT - 5,
      data: names.map((name) => {
        const bar = bars.find(({ rung }) => rung.name === name);
        return bar === undefined
          ? { value: "-" }
          : { value: bar.ratio, itemStyle: { color: standIn(bar.rung.family), opacity: 0.85 } };
      }),
      label: {
        show: true,
        position: "right",
        fontSize: 10,
        color: standIn("muted"),
        formatter: ({ value }: { value: unknown }) => (typeof value === "number" ? `${formatNumber(value)}×` : ""),
      },
      markLine: {
        silent: true,
        symbol: "none",
        label: { show: false },
        lineStyle: { color: standIn("muted"), type: "solid", width: 1 },
        data: [{ xAxis: 1 }],
      },
    })),
  };
  const rows = Math.ceil(panels.length / COLUMNS);
  const width = PANEL.left + COLUMNS * PANEL.width + (COLUMNS - 1) * PANEL.gapX + 60;
  return draw(
    option,
    width,
    rows * (panelHeight + PANEL.gapY) + PANEL.top,
    "Work against the plain process; the table has the figures",
  );
}

/** The axis begins at an odd place below 1, which needs no name. */
function plain(value: number): string {
  if (value < 1) return "";
  return value >= 1000 ? `10${"⁰¹²³⁴⁵⁶⁷⁸⁹"[Math.round(Math.log10(value))] ?? ""}×` : `${String(value)}×`;
}
