// Needs: bash; systemd-analyze for the unit; root and a /dev/kvm of any kind for the step that is run. The
// recipes say what the program and the tree do.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  accessSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parse } from "yaml";
import { parseBoot, parseDoctor } from "../../vmm/cli/arguments.js";
import { ACCELERATORS } from "../../vmm/lab/accelerator.js";
import * as exitCodes from "../../vmm/host/exit-codes.js";
import { findProgram } from "../../vmm/host/programs.js";
import { commandLines } from "../helpers/command-lines.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { withPrivateDev } from "../helpers/private-dev.js";
import { skip } from "../helpers/skip.js";

interface Step {
  readonly name?: string;
  readonly id?: string;
  readonly uses?: string;
  readonly run?: string;
  readonly with?: Readonly<Record<string, unknown>>;
}

interface Job {
  readonly needs?: string;
  readonly "runs-on": string;
  readonly "timeout-minutes": number;
  readonly steps: readonly Step[];
}

const WORKFLOW = ".github/workflows/ci.yml";
const GITLAB = ".gitlab-ci.yml";
const UNIT = "recipes/vmlet@.service";
/** What a runner has by itself, beside the shell's own words. */
const RUNNER_PROGRAMS = ["npm", "npx", "docker", "sudo", "udevadm", "tee", "chmod"];
const SHELL_WORDS = ["if", "then", "else", "fi", "case", "esac", "echo", "test", "exit", "[", "*)", "0)", "72)"];

const jobs = (parse(readFileSync(WORKFLOW, "utf8")) as { jobs: Readonly<Record<string, Job>> }).jobs;
const gitlab = parse(readFileSync(GITLAB, "utf8")) as Readonly<Record<string, { script?: readonly string[] }>>;

/** The page for users: its blocks are scripts. */
const page = readFileSync("docs/ci.md", "utf8");

/** Every script of the recipes, by where it stands. */
const scripts: readonly (readonly [place: string, script: string])[] = [
  ...Object.entries(jobs).flatMap(([job, { steps }]) =>
    steps.flatMap(({ name, run }): [string, string][] => (run === undefined ? [] : [[`${job}: ${name ?? run}`, run]])),
  ),
  ...[...page.matchAll(/^```\n([\s\S]*?)^```/gm)].map(([, script = ""]): [string, string] => ["docs/ci.md", script]),
  ...Object.entries(gitlab).flatMap(([job, { script }]) =>
    (Array.isArray(script) ? (script as string[]) : []).map((run): [string, string] => [`gitlab ${job}`, run]),
  ),
];

/** First words of the commands of a script, expressions of GitHub taken out. */
function commands(script: string): string[] {
  return script
    .split(/\n|;;|;|\|\||&&|\|/)
    .map((part) => part.trim().replace(/^(?:then|else|\*\)|\d+\)) ?/, ""))
    .map((part) => part.split(/\s+/)[0] ?? "")
    .filter((word) => word !== "" && !word.includes("=") && !word.startsWith("#"));
}

describe("recipes: continuous integration", () => {
  for (const [place, script] of scripts) {
    it(`${place}: a script whose commands exist`, () => {
      const { status, stderr } = spawnSync("bash", ["-n"], { input: script, encoding: "utf8" });
      assert.equal(status, 0, stderr);
      for (const command of commands(script)) {
        if (SHELL_WORDS.includes(command) || RUNNER_PROGRAMS.includes(command)) continue;
        if (command === "make") continue;
        const path = command.replace(/^node_modules\/vmlet\//, "");
        const isOurs = path.includes("/") && (path.startsWith("dist/") || existsSync(path));
        assert.ok(isOurs, `${command} in: ${script}`);
        if (!path.startsWith("dist/")) accessSync(path, constants.X_OK);
      }
      const targets = new Set([...readFileSync("Makefile", "utf8").matchAll(/^([a-z-]+):/gm)].map(([, name]) => name));
      for (const [, words = ""] of script.matchAll(/^make (.*)$/gm)) {
        for (const target of words.split(" ")) assert.ok(targets.has(target), `make ${target}`);
      }
      for (const { argv } of commandLines(place, script)) {
        const [command = "", ...words] = argv;
        const parse = { boot: parseBoot, doctor: parseDoctor }[command];
        assert.ok(parse !== undefined, command);
        assert.doesNotThrow(() => parse(words.map((word) => word.replace(/^\$\w+$/, "kvm"))), argv.join(" "));
      }
    });
  }

  describe("asks doctor, and boots where it says", () => {
    /** Everything is a fake but the script: vmlet prints how it is called, and doctor answers as it is told. */
    const VMLET = `#!/bin/sh
      case "$*" in
        doctor) exit "$DOCTOR" ;;
        *) echo "$*" ;;
      esac`;
    let folder = "";
    before(() => {
      folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
      mkdirSync(join(folder, "dist"));
      const mode = { mode: 0o755 };
      writeFileSync(join(folder, "dist/vmlet.js"), VMLET, mode);
      writeFileSync(join(folder, "npx"), `#!/bin/sh\nshift\nexec ${folder}/dist/vmlet.js "$@"\n`, mode);
    });
    after(() => {
      rmSync(folder, { recursive: true });
    });

    /** As CI runs it: bash -e; GitHub's steps hand words on through a file. */
    function run(script: string, doctor: number): { status: number | null; stdout: string } {
      const output = join(folder, "output");
      writeFileSync(output, "");
      const env = { PATH: `${folder}:${process.env["PATH"] ?? ""}`, GITHUB_OUTPUT: output, DOCTOR: String(doctor) };
      return spawnSync("bash", ["--noprofile", "--norc", "-eo", "pipefail", "-c", script], {
        cwd: folder,
        env,
        encoding: "utf8",
      });
    }

    const steps = jobs["use"]?.steps ?? [];
    const asking = steps.findIndex(({ id }) => id === "doctor");
    const flows: readonly (readonly [place: string, script: string])[] = [
      [WORKFLOW, `${steps[asking]?.run ?? ""}\n. "$GITHUB_OUTPUT"; ACCEL=$accel\n${steps[asking + 1]?.run ?? ""}`],
      [GITLAB, (gitlab["use"]?.script ?? []).filter((line) => !line.startsWith("make ")).join("\n")],
      ["docs/ci.md", /^```\n([\s\S]*?)^```/m.exec(page)?.[1] ?? ""],
    ];
    for (const [place, script] of flows) {
      it(`${place}: on this host's /dev/kvm, in the lab, or not at all`, () => {
        for (const [doctor, accel] of [
          [0, "kvm"],
          [exitCodes.EXIT_LAB_ONLY, "lab"],
        ] as const) {
          assert.ok(ACCELERATORS.includes(accel));
          const { status, stdout } = run(script, doctor);
          assert.deepEqual([status, stdout], [0, `boot --accel ${accel} --quiet -- uname -a\n`]);
        }
        for (const doctor of [exitCodes.EXIT_HOST, exitCodes.EXIT_INTERNAL]) {
          const { status, stdout } = run(script, doctor);
          assert.deepEqual([status, stdout], [doctor, "doctor --fix\n"]);
        }
      });
    }
  });

  it("what a job takes from another, that one gives", () => {
    const names = (job: Job | undefined, action: string): unknown[] =>
      (job?.steps ?? []).filter(({ uses }) => uses?.startsWith(action) === true).map((step) => step.with?.["name"]);
    for (const job of Object.values(jobs)) {
      assert.ok(job["timeout-minutes"] > 0 && job["runs-on"] !== "");
      const given = job.needs === undefined ? [] : names(jobs[job.needs], "actions/upload-artifact");
      for (const name of names(job, "actions/download-artifact")) assert.ok(given.includes(name), String(name));
    }
  });

  describe("the step that asks doctor", () => {
    let folder = "";
    before(function () {
      const reason = whyNoKvm() ?? (existsSync("dist/vmlet.js") ? undefined : "dist/vmlet.js is not built");
      if (reason !== undefined) skip(this, reason);
      folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
      // `npx vmlet` as an installed package would have it.
      writeFileSync(join(folder, "npx"), `#!/bin/sh\nshift\nexec node ${resolve("dist/vmlet.js")} "$@"\n`, {
        mode: 0o755,
      });
      const step = jobs["use"]?.steps.find(({ id }) => id === "doctor");
      writeFileSync(join(folder, "step.sh"), step?.run ?? "");
    });
    after(() => {
      if (folder !== "") rmSync(folder, { recursive: true });
    });

    /** As GitHub runs it: bash -e, outputs in a file. */
    function run(words: (command: string) => readonly string[]): {
      status: number | null;
      output: string;
      text: string;
    } {
      const output = join(folder, "output");
      writeFileSync(output, "");
      const [file = "", ...argv] = words(`bash --noprofile --norc -eo pipefail ${join(folder, "step.sh")}`);
      const env = { ...process.env, GITHUB_OUTPUT: output, PATH: `${folder}:${process.env["PATH"] ?? ""}` };
      const { status, stdout, stderr } = spawnSync(file, argv, { env, encoding: "utf8" });
      return { status, output: readFileSync(output, "utf8"), text: stdout + stderr };
    }

    it("chooses kvm where guests boot", () => {
      const { status, output, text } = run((command) => ["sh", "-c", command]);
      assert.deepEqual([status, output], [0, "accel=kvm\n"], text);
    });

    it("chooses the lab without a /dev/kvm, or prints the cures and fails", function () {
      if (process.getuid?.() !== 0) skip(this, "taking the device away needs root");
      const { status, output, text } = run((command) => withPrivateDev("", command));
      if (status === 0) assert.equal(output, "accel=lab\n", text);
      else assert.ok(status === exitCodes.EXIT_HOST && /^# lab: /m.test(text), text);
    });
  });
});

describe("recipes: systemd", () => {
  const unit = readFileSync(UNIT, "utf8");
  const value = (key: string): string => new RegExp(`^${key}=(.*)$`, "m").exec(unit)?.[1] ?? "";

  it("starts what the program takes, with the options of its example, and knows its exit codes", () => {
    const [, command, ...words] = value("ExecStart").split(" ");
    const [, example = ""] = /^# +OPTIONS=(.*)$/m.exec(unit) ?? [];
    assert.equal(command, "boot");
    const argv = words.flatMap((word) => (word === "$OPTIONS" ? example.split(" ") : [word]));
    const options = parseBoot(argv);
    assert.deepEqual([options.accel, options.quiet, options.memoryMib, options.vsock?.cid], ["kvm", true, 512, 3]);
    assert.equal(options.disks[0]?.isRoot, true);
    assert.equal(Number(value("RestartForceExitStatus")), exitCodes.EXIT_REBOOT);
    const { EXIT_USAGE, EXIT_CONFIG, EXIT_HOST, EXIT_CANNOT_WRITE } = exitCodes;
    const final = [EXIT_USAGE, EXIT_CONFIG, EXIT_HOST, EXIT_CANNOT_WRITE];
    assert.deepEqual(value("RestartPreventExitStatus").split(" ").map(Number), final);
  });

  it("systemd has no complaint about it, and finds it well confined", function () {
    if (findProgram("systemd-analyze") === undefined) skip(this, "systemd-analyze is not installed (Debian: systemd)");
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    try {
      // The program need not be installed: any that exists will do for the check.
      const file = join(folder, "vmlet@one.service");
      writeFileSync(file, unit.replace("/usr/local/bin/vmlet", "/bin/true"));
      const { stdout, stderr, status } = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
      assert.deepEqual([status, stdout, stderr], [0, "", ""]);
      const exposure = spawnSync("systemd-analyze", ["security", "--offline=yes", "--threshold=25", file], {
        encoding: "utf8",
      });
      assert.equal(exposure.status, 0, exposure.stdout.split("\n").slice(-4).join("\n"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
