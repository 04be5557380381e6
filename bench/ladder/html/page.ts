// The page of --html: charts, tables and the story, in one file without scripts.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { marked } from "marked";
import { packageRoot } from "../../../vmm/host/guest-files.js";
import { WORKLOADS, present, seriesOf } from "../figures.js";
import { accelerationNotes, notesOf } from "../notes.js";
import type { LadderResult } from "../result.js";
import { callsOf, climbTable, formatKib, formatMs, storyOf } from "../story.js";
import { describeStamp, tablesOf, troubles, type Table } from "../tables.js";
import { memoryChart } from "./memory-chart.js";
import { THEME_CSS } from "./palette.js";
import { startChart } from "./start-chart.js";
import { PAGE_CSS } from "./style.js";
import { workChart } from "./work-chart.js";

/** One rung a family, for the figures at the top. */
const CARDS = ["process", "namespaces", "runc", "docker", "vmlet"];
/** In the isolation table: what the program has for itself, and what it shares with the host. */
const OWN = new Set(["own", "is PID 1", "hidden", "yes", "none"]);
const SHARED = new Set(["host's", "seen", "no"]);
/** A cell of so many letters may break into lines. */
const LONG = 24;

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function dot(result: LadderResult, rung: string): string {
  const family = result.rungs.find(({ name }) => name === rung)?.family;
  return family === undefined ? "" : `<span class="dot" style="--family:var(--${family})"></span>`;
}

function cellClass(cell: string, isWord: boolean): string {
  const classes = [
    ...(isWord ? ["w"] : []),
    ...(isWord && cell.length > LONG ? ["words"] : []),
    ...(OWN.has(cell) ? ["own"] : SHARED.has(cell) ? ["shared"] : []),
  ];
  return classes.length === 0 ? "" : ` class="${classes.join(" ")}"`;
}

function tableHtml(result: LadderResult, { title, head, rows, wordColumns }: Table): string {
  const heads = head.map((cell, i) => `<th scope="col"${i < wordColumns ? ' class="w"' : ""}>${escape(cell)}</th>`);
  const body = rows.map(([name = "", ...cells]) => {
    const tds = cells.map((cell, i) => `<td${cellClass(cell, i + 1 < wordColumns)}>${escape(cell)}</td>`);
    return `<tr><th scope="row">${dot(result, name)}${escape(name)}</th>${tds.join("")}</tr>`;
  });
  return `<div class="scroll"><table><caption>${escape(title)}</caption>
<thead><tr>${heads.join("")}</tr></thead>
<tbody>${body.join("\n")}</tbody></table></div>`;
}

function figure(result: LadderResult, svg: string, caption: string): string {
  if (svg === "") return "";
  return `<figure><div class="chart">${svg}</div><figcaption>${caption}${accelerators(result)}</figcaption></figure>`;
}

/** What executes the VMs' code: a note under each chart. */
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

function paragraphs(lines: readonly string[], cssClass = ""): string {
  return lines.map((line) => `<p${cssClass === "" ? "" : ` class="${cssClass}"`}>${escape(line)}</p>`).join("\n");
}

function cards(result: LadderResult): string {
  const items = CARDS.flatMap((name) => {
    const rung = present(result).find((one) => one.name === name);
    const start = seriesOf(result, "start", name, "start_first_output_ms");
    if (rung === undefined || start === undefined) return [];
    const idle = seriesOf(result, "memory", name, "idle_pss_kib");
    const calls = callsOf(result, rung);
    const more = [
      ...(rung.accelerator === null ? [] : [`on ${rung.accelerator}`]),
      ...(idle === undefined ? [] : [`${formatKib(idle.summary.median)} idle`]),
      ...(calls === undefined ? [] : [`${String(calls)} of the host's system calls`]),
    ];
    return [
      `<li style="--family:var(--${rung.family})"><b>${escape(name)}</b><strong>${formatMs(start.summary.median)}</strong>` +
        `<span>${more.map(escape).join("<br>")}</span></li>`,
    ];
  });
  return items.length === 0 ? "" : `<ul class="cards">${items.join("\n")}</ul>`;
}

export function page(result: LadderResult): string {
  const tables = tablesOf(result);
  const table = (name: keyof typeof tables): string => {
    const found = tables[name];
    return found === undefined ? "" : tableHtml(result, found);
  };
  const section = (heading: string, ...parts: readonly string[]): string =>
    parts.every((part) => part === "") ? "" : `<h2>${heading}</h2>\n${parts.join("\n")}`;
  const history = marked.parse(readFileSync(join(packageRoot(), "bench/ladder/HISTORY.md"), "utf8"), { async: false });
  const charts = {
    start: figure(
      result,
      startChart(result),
      "Each dot is one start, the bar their median, the band the middle half. Left is faster; each line of the grid is ten times the one before.",
    ),
    work: figure(
      result,
      workChart(result, "Work", WORKLOADS.kernel),
      "The same static program on every rung, against the plain process (the line at 1×). Longer is slower.",
    ),
    files: figure(
      result,
      workChart(result, "Files and disk", WORKLOADS.files),
      "Files made, looked at and removed; data written, each write told to the disk, and read past the page cache.",
    ),
    network: figure(
      result,
      workChart(result, "Network", WORKLOADS.network),
      "TCP to a program of the host over the link that the rung has: the host's loopback, a veth pair, Docker's bridge, a TAP interface.",
    ),
    memory: figure(
      result,
      memoryChart(result),
      "Low and left would be best: little memory, little of the host's kernel in reach. A virtual machine's program reaches none of the host's system calls; what it can reach is the monitor and KVM.",
    ),
  };
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>What isolation costs</title><link rel="icon" href="data:,"><style>${PAGE_CSS}</style></head><body>
<h1>What isolation costs</h1>
<p class="lead">One program, the same limits, and ever more between it and the host: from a plain process to a machine of its own.</p>
${cards(result)}
<p class="note">Launch to the program's first output, median.</p>
${paragraphs(accelerationNotes(result), "warning")}
<div class="host">${paragraphs(describeStamp(result))}</div>
${section("What each rung adds, and what it costs here", paragraphs(storyOf(result)), tableHtml(result, climbTable(result)))}
${section("Start-up", charts.start, table("start"), table("phases"), table("atOnce"))}
${section("Work", charts.work, table("work"))}
${section("Files and disk", charts.files, table("files"))}
${section("Network", charts.network, table("network"))}
${section("Memory and isolation", charts.memory, table("memory"), table("isolation"))}
${section("What these figures can tell", list(notesOf(result)), list(troubles(result)))}
<section class="history">
${history}</section>
</body></html>
`;
}

/** The chart of the start-up as a file of its own, for documents. */
export function startSvg(result: LadderResult): string {
  const background = '<rect width="100%" height="100%" fill="var(--page)"/>';
  return startChart(result).replace(/(<svg [^>]*>)/, `$1<style>${THEME_CSS}</style>${background}`);
}
