// The start-up ladder: a row a rung, a log axis, every sample a dot, the median a bar across them.
import type { EChartsCoreOption } from "echarts/core";
import { present, seriesOf } from "../figures.js";
import { formatMs } from "../story.js";
import type { LadderResult } from "../result.js";
import type { Family } from "../rung.js";
import { draw, logAxis } from "./draw.js";
import { FAMILY_NAMES, standIn } from "./palette.js";

const METRIC = "start_first_output_ms";
const WIDTH = 920;
const ROW_HEIGHT = 24;
const MARGINS = { left: 130, right: 150, top: 40, bottom: 50 };

interface Row {
  readonly name: string;
  readonly family: Family;
  readonly accelerator: string | null;
  readonly samples: readonly number[];
  readonly median: number;
  readonly q1: number;
  readonly q3: number;
}

function rowsOf(result: LadderResult): Row[] {
  return present(result).flatMap(({ name, family, accelerator }) => {
    const series = seriesOf(result, "start", name, METRIC);
    if (series === undefined) return [];
    const { median, q1, q3 } = series.summary;
    return [{ name, family, accelerator, samples: series.samples, median, q1, q3 }];
  });
}

/** What ECharts hands to a drawing function; its own type says `any`. */
interface DrawingApi {
  value(dimension: number): number;
  coord(point: readonly number[]): [number, number];
}

/** From the first to the third quartile a band, at the median a line. */
function drawSpread(family: Family) {
  return (_params: unknown, api: DrawingApi): Record<string, unknown> => {
    const at = api.value(0);
    const [left, y] = api.coord([api.value(2), at]);
    const [right] = api.coord([api.value(3), at]);
    const [middle] = api.coord([api.value(1), at]);
    const height = ROW_HEIGHT * 0.6;
    const fill = standIn(family);
    return {
      type: "group",
      children: [
        {
          type: "rect",
          shape: { x: left, y: y - height / 2, width: Math.max(right - left, 1), height, r: 2 },
          style: { fill, opacity: 0.3 },
        },
        { type: "rect", shape: { x: middle - 1.5, y: y - height / 2, width: 3, height }, style: { fill } },
      ],
    };
  };
}

export function startChart(result: LadderResult): string {
  const rows = rowsOf(result);
  const families = [...new Set(rows.map(({ family }) => family))];
  const inFamily = (family: Family): { row: Row; index: number }[] =>
    rows.map((row, index) => ({ row, index })).filter(({ row }) => row.family === family);
  const option: EChartsCoreOption = {
    legend: {
      top: 0,
      left: MARGINS.left,
      data: families.map((family) => FAMILY_NAMES[family]),
      icon: "circle",
      itemWidth: 9,
      itemHeight: 9,
      itemGap: 28,
      textStyle: { color: standIn("ink") },
    },
    grid: { ...MARGINS },
    xAxis: logAxis("launch to first output, ms (log)"),
    yAxis: {
      type: "category",
      inverse: true,
      data: rows.map(({ name }) => name),
      axisTick: { show: false },
      axisLine: { show: false },
      axisLabel: { color: standIn("ink"), interval: 0, fontSize: 12 },
    },
    series: families.flatMap((family) => [
      {
        type: "scatter",
        name: FAMILY_NAMES[family],
        color: standIn(family),
        symbolSize: 4,
        itemStyle: { opacity: 0.55 },
        data: inFamily(family).flatMap(({ row, index }) => row.samples.map((value) => [value, index])),
      },
      {
        type: "custom",
        // Row, median, quartiles.
        data: inFamily(family).map(({ row, index }) => [index, row.median, row.q1, row.q3]),
        encode: { x: [1, 2, 3], y: 0 },
        renderItem: drawSpread(family),
      },
      {
        // The figure itself, right of the last sample.
        type: "scatter",
        symbolSize: 0.1,
        data: inFamily(family).map(({ row, index }) => ({
          value: [Math.max(...row.samples), index],
          name: `${formatMs(row.median)}${row.accelerator === null ? "" : `, ${row.accelerator}`}`,
        })),
        label: {
          show: true,
          position: "right",
          distance: 8,
          color: standIn("muted"),
          fontSize: 11,
          formatter: "{b}",
        },
      },
    ]),
  };
  const height = MARGINS.top + MARGINS.bottom + rows.length * ROW_HEIGHT;
  const label = `Start-up times: ${rows.map(({ name, median }) => `${name} ${formatMs(median)}`).join(", ")}`;
  return draw(option, WIDTH, height, label);
}
