// Needs: nothing. What --help and the documents say about the command line is what the parsers take.
import assert from "node:assert/strict";
import { BENCH_FLAGS, BENCH_HELP, parseBench } from "../../bench/ladder/options.js";
import {
  BALLOON_FLAGS,
  BOOT_FLAGS,
  DOCTOR_FLAGS,
  LAB_FLAGS,
  PAUSE_FLAGS,
  STATS_FLAGS,
  parseBalloonCommand,
  parseBoot,
  parseDoctor,
  parseLab,
  parsePause,
  parseStats,
} from "../../vmm/cli/arguments.js";
import { ACCELERATORS } from "../../vmm/lab/accelerator.js";
import { parseBalloon } from "../../vmm/cli/balloon-argument.js";
import { parseDisk } from "../../vmm/cli/disk-argument.js";
import {
  BALLOON_HELP,
  BOOT_HELP,
  DOCTOR_HELP,
  LAB_HELP,
  PAUSE_HELP,
  RESUME_HELP,
  STATS_HELP,
  help,
} from "../../vmm/cli/help.js";
import { parseNet } from "../../vmm/cli/net-argument.js";
import { parseVsock } from "../../vmm/cli/vsock-argument.js";
import {
  MIGRATE_FLAGS,
  parseMigrate,
  parseSnapshotCreate,
  parseSnapshotCpuTemplate,
  parseSnapshotDelete,
  parseSnapshotInspect,
  parseSnapshotReceive,
  parseSnapshotRestore,
  SNAPSHOT_CREATE_FLAGS,
  SNAPSHOT_CPU_TEMPLATE_FLAGS,
  SNAPSHOT_DELETE_FLAGS,
  SNAPSHOT_INSPECT_FLAGS,
  SNAPSHOT_RECEIVE_FLAGS,
  SNAPSHOT_RESTORE_FLAGS,
} from "../../vmm/cli/snapshot-arguments.js";
import {
  MIGRATE_HELP,
  SNAPSHOT_CREATE_HELP,
  SNAPSHOT_CPU_TEMPLATE_HELP,
  SNAPSHOT_DELETE_HELP,
  SNAPSHOT_HELP,
  SNAPSHOT_INSPECT_HELP,
  SNAPSHOT_RECEIVE_HELP,
  SNAPSHOT_RESTORE_HELP,
} from "../../vmm/cli/snapshot-help.js";
import * as exitCodes from "../../vmm/host/exit-codes.js";
import { commandLines, documentedCommandLines, words, type CommandLine } from "../helpers/command-lines.js";
import { rows, section, textOf } from "../helpers/documents.js";

interface Flag {
  readonly type: "string" | "boolean";
  readonly short?: string;
}

const HELPS: readonly (readonly [command: string, text: string, flags: Readonly<Record<string, Flag>>])[] = [
  ["boot", BOOT_HELP, BOOT_FLAGS],
  ["stats", STATS_HELP, STATS_FLAGS],
  ["balloon", BALLOON_HELP, BALLOON_FLAGS],
  ["pause", PAUSE_HELP, PAUSE_FLAGS],
  ["resume", RESUME_HELP, PAUSE_FLAGS],
  ["snapshot create", SNAPSHOT_CREATE_HELP, SNAPSHOT_CREATE_FLAGS],
  ["snapshot restore", SNAPSHOT_RESTORE_HELP, SNAPSHOT_RESTORE_FLAGS],
  ["snapshot receive", SNAPSHOT_RECEIVE_HELP, SNAPSHOT_RECEIVE_FLAGS],
  ["migrate", MIGRATE_HELP, MIGRATE_FLAGS],
  ["snapshot inspect", SNAPSHOT_INSPECT_HELP, SNAPSHOT_INSPECT_FLAGS],
  ["snapshot delete", SNAPSHOT_DELETE_HELP, SNAPSHOT_DELETE_FLAGS],
  ["snapshot cpu-template", SNAPSHOT_CPU_TEMPLATE_HELP, SNAPSHOT_CPU_TEMPLATE_FLAGS],
  ["doctor", DOCTOR_HELP, DOCTOR_FLAGS],
  ["bench", BENCH_HELP, BENCH_FLAGS],
  ["lab", LAB_HELP, LAB_FLAGS],
];
const COLUMNS = 80;

/** Parts of --help begin with a line that has no indentation, and end before an empty line. */
function part(text: string, title: string): string {
  const found = new RegExp(`^${title}[^\\n]*\\n((?:.+\\n)+)`, "m").exec(text);
  assert.ok(found !== null, `no part "${title}"`);
  return found[1] ?? "";
}

/** "-k, --kernel VALUE" for each option of a part of --help. */
function helped(text: string): string[] {
  return [...part(text, "Options:").matchAll(/^ {2}(?:(-\w), | {4})(--[a-z-]+)( [A-Z,]+)?/gm)].map(
    ([, short, long = "", value]) => `${short ?? ""} ${long}${value === undefined ? "" : " VALUE"}`,
  );
}

function known(flags: Readonly<Record<string, Flag>>): string[] {
  return Object.entries(flags).map(
    ([name, { type, short }]) =>
      `${short === undefined ? "" : `-${short}`} --${name}${type === "string" ? " VALUE" : ""}`,
  );
}

/** The keys that a list of KEY[=VALUE] may have, as its parser names them for a key that it does not know. */
function keysOf(parse: (text: string) => unknown): string[] {
  let message = "";
  try {
    parse("path=x,no-such-key");
  } catch (error) {
    message = (error as Error).message;
  }
  const [, list = ""] = /known are (.*)$/.exec(message) ?? [];
  assert.notEqual(list, "", message);
  return list
    .split(", ")
    .filter((key) => key !== "a number of MiB")
    .sort();
}

function sorted(values: Iterable<string>): string[] {
  return [...new Set(values)].sort();
}

describe("help: each text", () => {
  for (const [command, text, flags] of HELPS) {
    it(`${command}: has the options that the parser takes, and no other`, () => {
      assert.deepEqual(helped(text).sort(), known(flags).sort());
    });

    it(`${command}: says how it is called, with an example that it takes`, () => {
      assert.match(text, new RegExp(`^Usage: vmlet ${command}\\b`, "m"));
      assert.ok(commandLines("help", part(text, "Examples?:")).some(({ argv }) => argv.join(" ").startsWith(command)));
    });
  }

  it("no line is longer than 80 columns, or ends within quotation marks", () => {
    const overview = help().replace(/^Documentation, in .*$/m, "");
    for (const [command, text] of [...HELPS, ["", overview] as const, ["snapshot", SNAPSHOT_HELP] as const]) {
      for (const line of text.split("\n")) {
        assert.ok(line.length <= COLUMNS, `${command}: ${line}`);
        // Where "\n" was written into a text, a real newline came out.
        assert.equal(line.split('"').length % 2, 1, `${command}: ${line}`);
      }
      assert.ok(text.endsWith("\n") && !text.endsWith("\n\n"), command);
    }
  });

  it("the overview has every command", () => {
    for (const [command] of HELPS) assert.match(help() + SNAPSHOT_HELP, new RegExp(`^ {2}vmlet ${command}\\b`, "m"));
  });

  it("boot: has the exit codes, all but the one of doctor", () => {
    const listed = [...part(BOOT_HELP, "Exit status:").matchAll(/(?<![\w-])(\d+)(?:\+N)? {2,}\w/g)].map(([, code]) =>
      Number(code),
    );
    const { EXIT_LAB_ONLY, ...others } = exitCodes;
    assert.deepEqual(
      listed.sort((a, b) => a - b),
      Object.values(others).sort((a, b) => a - b),
    );
    assert.match(
      DOCTOR_HELP,
      new RegExp(
        `^Exit status: 0 .*, ${String(EXIT_LAB_ONLY)} if only in the\\nlab, ${String(exitCodes.EXIT_HOST)} `,
        "m",
      ),
    );
  });
});

describe("help: docs/command-line.md", () => {
  it("its table of options is that of boot", () => {
    const listed = rows(section("docs/command-line.md", "Boot")).map(([option = ""]) => {
      const [, short, long = "", value] = /^(?:(-\w), )?(--[a-z-]+)( [A-Z]+)?$/.exec(option) ?? [];
      return `${short ?? ""} ${long}${value === undefined ? "" : " VALUE"}`;
    });
    assert.deepEqual(listed.sort(), known(BOOT_FLAGS).sort());
    for (const kind of ACCELERATORS) assert.ok(section("docs/command-line.md", "Boot").includes(`\`${kind}\``), kind);
  });

  it("its table of keys is that of boot --help", () => {
    const table = rows(section("docs/command-line.md", "Keys")).map(([keys]) => keys);
    const helped = [...part(BOOT_HELP, "Keys").matchAll(/^ {2}(\S+ \S+) /gm)].map(([, keys]) => keys);
    assert.deepEqual(helped, table);
  });

  it("vmm/doctor/README.md has the options of doctor", () => {
    for (const name of Object.keys(DOCTOR_FLAGS)) {
      if (name !== "help") assert.ok(textOf("vmm/doctor/README.md").includes(`--${name}`), name);
    }
  });
});

describe("help: values that are lists", () => {
  for (const [title, heading, parse] of [
    ["SPEC", "Disks", parseDisk],
    ["NET", "Networks", parseNet],
    ["VSOCK", "Vsock", parseVsock],
    ["BALLOON", "Balloon", parseBalloon],
  ] as const) {
    it(`${title}: the parser, boot --help and docs/devices.md have the same keys`, () => {
      // "path=" and "readonly" as the parser names them.
      const keys = keysOf(parse);
      const [usage = ""] = new RegExp(`^${title}:(?:.*\\n)(?: {6}[^ ].*\\n)*`, "m").exec(BOOT_HELP) ?? [];
      const inUsage = usage
        .slice(title.length + 1)
        .split(/[[\],;\s]+/)
        .map((word) => /^[a-z][a-z-]*(?:=|$)/.exec(word)?.[0] ?? "");
      assert.deepEqual(sorted(inUsage.filter((word) => !["", "or", "each", "with"].includes(word))), keys, usage);
      const table = rows(section("docs/devices.md", heading)).flatMap(([key = ""]) => key.split(", "));
      const listed = table.map((key) => key.replace(/=.*/, "="));
      assert.deepEqual(sorted(listed.filter((key) => key !== "MIB")), keys);
    });
  }
});

describe("help: command lines that a reader copies", () => {
  const snapshotParsers: Readonly<Record<string, (argv: readonly string[]) => unknown>> = {
    create: parseSnapshotCreate,
    restore: parseSnapshotRestore,
    receive: parseSnapshotReceive,
    inspect: parseSnapshotInspect,
    delete: parseSnapshotDelete,
    "cpu-template": parseSnapshotCpuTemplate,
  };
  const parsers: Readonly<Record<string, (argv: readonly string[]) => unknown>> = {
    boot: parseBoot,
    stats: parseStats,
    balloon: parseBalloonCommand,
    pause: (argv) => parsePause("pause", argv),
    resume: (argv) => parsePause("resume", argv),
    snapshot: ([command = "", ...argv]) => snapshotParsers[command]?.(argv) ?? assert.fail(`snapshot ${command}`),
    doctor: parseDoctor,
    bench: parseBench,
    lab: parseLab,
    migrate: parseMigrate,
  };
  const parse = ({ place, argv: [command = "", ...rest] }: CommandLine): void => {
    try {
      parsers[command]?.(rest.map((word) => word.replace(/^\$\w+$|^\$\(.*\)$/, "kvm")));
    } catch (error) {
      assert.fail(`${place}: ${(error as Error).message}`);
    }
  };

  it("the examples of --help are taken by the parsers", () => {
    const examples = HELPS.flatMap(([, text]) => commandLines("help", part(text, "Examples?:")));
    assert.ok(examples.length >= 15);
    examples.forEach(parse);
  });

  it("those of the documents are taken by the parsers", () => {
    const found = documentedCommandLines();
    assert.ok(found.length >= 30, String(found.length));
    for (const command of Object.keys(parsers))
      assert.ok(
        found.some(({ argv }) => argv[0] === command),
        command,
      );
    found.forEach(parse);
  });

  it("a command line is read as a shell would", () => {
    assert.deepEqual(words("boot -- sh -c 'a; b' | cat"), ["boot", "--", "sh", "-c", "a; b"]);
    assert.deepEqual(words("stats FILE     # what it uses"), ["stats", "FILE"]);
    assert.deepEqual(commandLines("", "ls | npx vmlet boot -q -- wc -l"), [
      { place: ": ls | npx vmlet boot -q -- wc -l", argv: ["boot", "-q", "--", "wc", "-l"] },
    ]);
  });
});
