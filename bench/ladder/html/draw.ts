// One chart to SVG text, by ECharts without a browser.
import { BarChart, CustomChart, ScatterChart } from "echarts/charts";
import { GridComponent, LegendComponent, MarkLineComponent, TitleComponent } from "echarts/components";
import { init, use, type EChartsCoreOption } from "echarts/core";
import { LabelLayout } from "echarts/features";
import { SVGRenderer } from "echarts/renderers";
import { standIn, withVariables } from "./palette.js";

use([
  ...[BarChart, CustomChart, ScatterChart],
  ...[GridComponent, LegendComponent, MarkLineComponent, TitleComponent, LabelLayout, SVGRenderer],
]);

export const FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif";

/** What ECharts' own script would use in a browser; nothing here has a script. */
const FOR_SCRIPTS = / (?:ecmeta_\w+|class)="[^"]*"/g;

/** `label`: what a screen reader says instead of the picture. */
export function draw(option: EChartsCoreOption, width: number, height: number, label: string): string {
  const chart = init(null, null, { renderer: "svg", ssr: true, width, height });
  chart.setOption({
    animation: false,
    textStyle: { fontFamily: FONT, color: standIn("ink"), fontSize: 12 },
    ...option,
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return withVariables(svg.replaceAll(FOR_SCRIPTS, "")).replace(
    "<svg ",
    `<svg role="img" aria-label="${label.replaceAll('"', "&quot;")}" `,
  );
}

/** Axis that counts in powers of ten. */
export function logAxis(name: string): Record<string, unknown> {
  return {
    type: "log",
    name,
    nameLocation: "middle",
    nameGap: 28,
    nameTextStyle: { color: standIn("muted") },
    axisLabel: { color: standIn("muted"), formatter: plainNumber },
    axisLine: { show: false },
    splitLine: { lineStyle: { color: standIn("grid") } },
  };
}

export function plainNumber(value: number): string {
  return value.toLocaleString("en-US", { maximumSignificantDigits: 3 });
}
