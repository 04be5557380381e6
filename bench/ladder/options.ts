// argv of `vmlet bench` -> options.
import { parseWhole } from "../../vmm/cli/numbers.js";
import { parseOptions } from "../../vmm/cli/parse-options.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { RUNGS } from "./all-rungs.js";
import type { Rung } from "./rung.js";

export const BENCH_FLAGS = {
  quick: { type: "boolean" },
  only: { type: "string" },
  rounds: { type: "string" },
  json: { type: "string" },
  html: { type: "string" },
  svg: { type: "string" },
  markdown: { type: "string" },
  compare: { type: "string" },
  resume: { type: "string" },
  from: { type: "string" },
  yes: { type: "boolean" },
  list: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

export const BENCH_HELP = `Measures what isolation costs here, from a plain process to a micro-VM.

Usage: vmlet bench [options]

Every rung of the ladder starts the same static program in the same root
directory with the same limits: unshare, bubblewrap, systemd-nspawn, LXC, runc,
crun, podman, Docker, VMs. A rung that is not there is a row with the reason.
Most rungs need root; without it, the others run. Nothing is left behind.

Options:
      --quick            a first look, under 3 minutes: fewer rounds, no density
      --only A,B         only these rungs (--list names them); ratios need
                         "process" and "runc" among them
      --rounds N         rounds of the start-up stage, 1 or more
      --json FILE        write all figures with all samples
      --html FILE        write one page with charts and the story behind them
      --svg FILE         write the chart of the start-up alone
      --markdown FILE    write the most telling figures as a Markdown table
      --compare OLD      what has changed beyond noise since OLD, a --json file
      --resume FILE      keep FILE up to date after each round; if it is there,
                         go on from it
      --from FILE        measure nothing: table and page of FILE, a --json file
      --yes              install missing Debian packages without asking
      --list             print the rungs, and which are there
  -h, --help             print this text

Exit status: 0; 64 bad usage, 69 the host cannot, 73 a file cannot be written,
130 or 143 interrupted.

Examples:
  sudo vmlet bench --quick
  sudo vmlet bench --json ladder.json --html ladder.html
  sudo vmlet bench --only process,runc,vmlet --rounds 30 --compare ladder.json

More: performance.md; "vmlet --help" says where.
`;

export interface BenchOptions {
  readonly quick: boolean;
  readonly rungs: readonly Rung[];
  readonly rounds: number | undefined;
  readonly json: string | undefined;
  readonly html: string | undefined;
  readonly svg: string | undefined;
  readonly markdown: string | undefined;
  readonly compare: string | undefined;
  readonly resume: string | undefined;
  readonly from: string | undefined;
  readonly yes: boolean;
  readonly list: boolean;
  readonly help: boolean;
}

export function parseBench(argv: readonly string[]): BenchOptions {
  const { values } = parseOptions([...argv], BENCH_FLAGS, "vmlet bench");
  const rounds = values.rounds === undefined ? undefined : parseWhole(values.rounds);
  if (values.rounds !== undefined && (rounds === undefined || rounds === 0)) {
    throw new UsageError(`--rounds ${values.rounds}: not a whole number from 1`);
  }
  return {
    quick: values.quick ?? false,
    rungs: values.only === undefined ? RUNGS : chosen(values.only),
    rounds,
    json: values.json,
    html: values.html,
    svg: values.svg,
    markdown: values.markdown,
    compare: values.compare,
    resume: values.resume,
    from: values.from,
    yes: values.yes ?? false,
    list: values.list ?? false,
    help: values.help ?? false,
  };
}

function chosen(list: string): Rung[] {
  const names = list.split(",").map((name) => name.trim());
  const unknown = names.filter((name) => !RUNGS.some((rung) => rung.name === name));
  if (unknown.length > 0) {
    throw new UsageError(
      `--only ${unknown.join(",")}: no such rung; there are ${RUNGS.map(({ name }) => name).join(", ")}`,
    );
  }
  return RUNGS.filter(({ name }) => names.includes(name));
}
