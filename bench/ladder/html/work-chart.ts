// Overhead: a panel a workload, a bar a rung, against the plain process.
import type { EChartsCoreOption } from "echarts/core";
import { formatNumber } from "../../table.js";
import { formatDuration, present, seriesOf, stageOf, type Workloads } from "../figures.js";
import type { LadderResult, RungResult } from "../result.js";
import { draw, logAxis } from "./draw.js";
import { standIn } from "./palette.js";

const COLUMNS = 3;
/** Names stand once, left of the first column; `room`: for the figures right of the bars, in it. */
const PANEL = { width: 250, gapX: 22, left: 104, top: 50, gapY: 84, right: 8 };
const BAR = { height: 17, gap: 6 };
/** Pixels right of the longest bar, for its figure. */
const ROOM = 60;
const FLOOR = 0.3;

interface Panel {
  readonly label: string;
  readonly base: string;
  readonly bars: readonly { readonly rung: RungResult; readonly ratio: number }[];
}

function panelsOf(result: LadderResult, workloads: Workloads): Panel[] {
  // A single namespace costs nothing while the program runs: only all of them together get a bar.
  const rungs = present(result).filter(({ name }) => !name.startsWith("ns-") && name !== "process");
  return workloads.flatMap(([metric, label]) => {
    const stage = stageOf(metric);
    const base = seriesOf(result, stage, "process", metric)?.summary.median;
    if (base === undefined) return [];
    const bars = rungs.flatMap((rung) => {
      const own = seriesOf(result, stage, rung.name, metric)?.summary.median;
      return own === undefined ? [] : [{ rung, ratio: own / base }];
    });
    return bars.length === 0 ? [] : [{ label, base: formatDuration(base), bars }];
  });
}

export function workChart(result: LadderResult, title: string, workloads: Workloads): string {
  const panels = panelsOf(result, workloads);
  if (panels.length === 0) return "";
  const names = [...new Set(panels.flatMap(({ bars }) => bars.map(({ rung }) => rung.name)))];
  const columns = Math.min(COLUMNS, panels.length);
  const panelHeight = names.length * BAR.height;
  const x = (i: number): number => PANEL.left + (i % columns) * (PANEL.width + PANEL.gapX);
  const y = (i: number): number => PANEL.top + Math.floor(i / columns) * (panelHeight + PANEL.gapY);
  const option: EChartsCoreOption = {
    title: panels.map(({ label, base }, i) => ({
      text: label,
      subtext: `plain process: ${base}`,
      left: x(i),
      top: y(i) - 42,
      padding: 0,
      itemGap: 3,
      textStyle: { fontSize: 13, fontWeight: 600, color: standIn("ink") },
      subtextStyle: { fontSize: 11, color: standIn("muted") },
    })),
    grid: panels.map((_, i) => ({ left: x(i), top: y(i), width: PANEL.width, height: panelHeight })),
    xAxis: panels.map(({ bars }, i) => ({
      ...logAxis(""),
      gridIndex: i,
      // Bars begin at 1: as fast as the plain process.
      startValue: 1,
      min: FLOOR,
      max: axisEnd(bars),
      axisLabel: { color: standIn("muted"), fontSize: 10, formatter: decade, showMaxLabel: false, hideOverlap: true },
      splitLine: { showMinLine: false, showMaxLine: false, lineStyle: { color: standIn("grid") } },
    })),
    yAxis: panels.map((_, i) => ({
      type: "category",
      gridIndex: i,
      inverse: true,
      data: names,
      axisTick: { show: false },
      axisLine: { show: false },
      axisLabel: { show: i % columns === 0, color: standIn("ink"), interval: 0, fontSize: 12, margin: 10 },
    })),
    series: panels.map(({ bars }, i) => ({
      type: "bar",
      xAxisIndex: i,
      yAxisIndex: i,
      barWidth: BAR.height - BAR.gap,
      data: names.map((name) => {
        const bar = bars.find(({ rung }) => rung.name === name);
        return bar === undefined
          ? { value: "-" }
          : {
              value: bar.ratio,
              itemStyle: { color: standIn(bar.rung.family), borderRadius: bar.ratio < 1 ? [2, 0, 0, 2] : [0, 2, 2, 0] },
              // A bar to the left has its figure on the right, too: there is room.
              label: { position: "right", distance: bar.ratio < 1 ? widthOf(bar.ratio, bars) + 5 : 5 },
            };
      }),
      label: {
        show: true,
        fontSize: 11,
        color: standIn("ink"),
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
  const rows = Math.ceil(panels.length / columns);
  const width = PANEL.left + columns * PANEL.width + (columns - 1) * PANEL.gapX + PANEL.right;
  const height = PANEL.top + rows * panelHeight + (rows - 1) * PANEL.gapY + 30;
  return draw(option, width, height, `${title} against the plain process; the table has the figures`);
}

/** Of a bar from the ratio to 1, in pixels. */
function widthOf(ratio: number, bars: Panel["bars"]): number {
  return (Math.log10(1 / Math.max(ratio, FLOOR)) / Math.log10(axisEnd(bars) / FLOOR)) * PANEL.width;
}

/** The axis ends far enough out for the figure of the longest bar. */
function axisEnd(bars: Panel["bars"]): number {
  const longest = Math.max(2, ...bars.map(({ ratio }) => ratio));
  return FLOOR * (longest / FLOOR) ** (PANEL.width / (PANEL.width - ROOM));
}

/** The ends of the axis are not round numbers, so they get no label. */
function decade(value: number): string {
  const exponent = Math.log10(value);
  if (value < 1 || !Number.isInteger(exponent)) return "";
  return exponent >= 4 ? `10${"⁰¹²³⁴⁵⁶⁷⁸⁹"[exponent] ?? ""}×` : `${value.toLocaleString("en-US")}×`;
}
