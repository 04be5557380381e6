// Colours of charts. A chart is drawn with stand-ins, which then become CSS variables, so that one
// drawing fits light and dark pages and print.
import type { Family } from "../rung.js";

interface Colour {
  /** Nothing else in a drawing has this colour. */
  readonly standIn: string;
  readonly light: string;
  readonly dark: string;
}

const COLOURS = {
  ink: { standIn: "#010101", light: "#1f2328", dark: "#e6edf3" },
  muted: { standIn: "#020202", light: "#656d76", dark: "#9198a1" },
  grid: { standIn: "#030303", light: "#d8dee4", dark: "#30363d" },
  page: { standIn: "#040404", light: "#ffffff", dark: "#0d1117" },
  shade: { standIn: "#0a0a0a", light: "#f6f8fa", dark: "#161b22" },
  process: { standIn: "#050505", light: "#6e7781", dark: "#8b949e" },
  namespaces: { standIn: "#060606", light: "#1a7f37", dark: "#3fb950" },
  runtime: { standIn: "#070707", light: "#0969da", dark: "#58a6ff" },
  engine: { standIn: "#080808", light: "#8250df", dark: "#bc8cff" },
  vm: { standIn: "#090909", light: "#bc4c00", dark: "#f0883e" },
} as const satisfies Record<string, Colour>;

type Role = keyof typeof COLOURS;

export const FAMILY_NAMES: Readonly<Record<Family, string>> = {
  process: "process",
  namespaces: "namespaces, cgroups",
  runtime: "container runtime",
  engine: "container engine",
  vm: "virtual machine",
};

export function standIn(role: Role): string {
  return COLOURS[role].standIn;
}

function variables(theme: "light" | "dark"): string {
  return Object.entries(COLOURS)
    .map(([role, colour]) => `--${role}:${colour[theme]}`)
    .join(";");
}

/** Dark if the reader's system is, except on paper. */
export const THEME_CSS = `:root{${variables("light")}}@media screen and (prefers-color-scheme:dark){:root{${variables("dark")}}}`;

export function withVariables(svg: string): string {
  let result = svg;
  for (const [role, colour] of Object.entries(COLOURS)) result = result.replaceAll(colour.standIn, `var(--${role})`);
  return result;
}
