// The page of --html: charts, tables and the story, in one file without scripts.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { marked } from "marked";
import { packageRoot } from "../../../vmm/cli/guest-files.js";
import { notesOf } from "../notes.js";
import type { LadderResult } from "../result.js";
import { describeStamp, tablesOf, troubles, type Table } from "../tables.js";
import { memoryChart } from "./memory-chart.js";
import { THEME_CSS } from "./palette.js";
import { startChart } from "./start-chart.js";
import { workChart } from "./work-chart.js";

const CSS = `${THEME_CSS}
html{background:var(--page);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color-scheme:light dark}
body{max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.8rem;margin:0 0 .5rem}h2{font-size:1.25rem;margin:2.5rem 0 .5rem}h3{font-size:1rem;margin:1.5rem 0 .25rem}
p,li{max-width:44rem}a{color:var(--runtime)}
.host,.note,figcaption{color:var(--muted);font-size:.87rem}.host p{margin:0}
figure{margin:1rem 0;max-width:60rem}figure svg{width:100%;height:auto;display:block}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.8rem;font-variant-numeric:tabular-nums;margin:.5rem 0}
caption{text-align:left;color:var(--muted);padding:.3rem 0}
th,td{padding:.2rem .55rem;border-bottom:1px solid var(--grid);text-align:right;white-space:nowrap;vertical-align:top}
th{font-weight:600}th.w,td.w{text-align:left}
@media print{@page{margin:15mm}body{max-width:none;margin:0;font-size:10pt}figure,table{break-inside:avoid}.scroll{overflow:visible}
table{font-size:7pt}th,td{padding:.12rem .3rem;white-space:normal}h2{break-after:avoid}a{color:inherit}}`;

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function tableHtml({ title, head, rows, wordColumns }: Table): string {
  const cells = (tag: "th" | "td", row: readonly string[]): string =>
    row.map((cell, i) => `<${tag}${i < wordColumns ? ' class="w"' : ""}>${escape(cell)}</${tag}>`).join("");
  const body = rows.map((row) => `<tr>${cells("td", row)}</tr>`).join("\n");
  return `<div class="scroll"><table><caption>${escape(title)}</caption>
<thead><tr>${cells("th", head)}</tr></thead>
<tbody>${body}</tbody></table></div>`;
}

function figure(result: LadderResult, svg: string, caption: string): string {
  if (svg === "") return "";
  return `<figure>${svg}<figcaption>${caption}${accelerators(result)}</figcaption></figure>`;
}

/** What executes the VMs' code, for under each chart. */
function accelerators(result: LadderResult): string {
  const known = result.rungs.flatMap(({ name, accelerator }) =>
    accelerator === null ? [] : [`${name} on ${accelerator}`],
  );
  return known.length === 0 ? "" : ` Here, ${escape(known.join(", "))}, on ${escape(result.stamp.cpu)}.`;
}

function list(lines: readonly string[]): string {
  return lines.length === 0
    ? ""
    : `<ul class="note">${lines.map((line) => `<li>${escape(line)}</li>`).join("\n")}</ul>`;
}

function rungList(result: LadderResult): Table {
  const rows = result.rungs.map(({ name, adds, version, skipped, accelerator }) => [
    name,
    adds,
    [version ?? "", accelerator ?? ""].filter((part) => part !== "").join("; "),
    skipped ?? "",
  ]);
  return { title: "The rungs", head: ["", "what it adds", "what ran", "why not"], rows, wordColumns: 4 };
}

export function page(result: LadderResult): string {
  const tables = tablesOf(result);
  const table = (name: keyof typeof tables): string => {
    const found = tables[name];
    return found === undefined ? "" : tableHtml(found);
  };
  const history = marked.parse(readFileSync(join(packageRoot(), "bench/ladder/HISTORY.md"), "utf8"), { async: false });
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>What isolation costs</title><style>${CSS}</style></head><body>
<h1>What isolation costs</h1>
<div class="host">${describeStamp(result)
    .map((line) => `<p>${escape(line)}</p>`)
    .join("")}</div>
<h2>Start-up</h2>
${figure(result, startChart(result), "Each dot is one start, the bar their median, the band the middle half. Left is faster; each line of the grid is ten times the one before.")}
${table("start")}
${table("phases")}
${table("atOnce")}
<h2>Work</h2>
${figure(result, workChart(result), "The same static program on every rung, against the plain process (1×, whose time stands beside the name). Longer is slower.")}
${table("work")}
<h2>Memory and isolation</h2>
${figure(result, memoryChart(result), "Low and left would be best: little memory, little of the host's kernel in reach. A virtual machine's program reaches none of the host's system calls; what it can reach is the monitor and KVM.")}
${table("memory")}
${table("isolation")}
<h2>What these figures can tell</h2>
${list(notesOf(result))}
${list(troubles(result))}
${tableHtml(rungList(result))}
${history}
</body></html>
`;
}

/** The chart of the start-up as a file of its own, for documents. */
export function startSvg(result: LadderResult): string {
  const background = '<rect width="100%" height="100%" fill="var(--page)"/>';
  return startChart(result).replace(/(<svg [^>]*>)/, `$1<style>${THEME_CSS}</style>${background}`);
}
