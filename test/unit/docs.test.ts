// Needs: nothing; npm for the package's list of files. The documents say what the program does.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import * as api from "../../vmm/index.js";
import { help } from "../../vmm/cli/help.js";
import { makeReport } from "../../vmm/cli/report.js";
import * as defaults from "../../vmm/config/defaults.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import type { AcceleratorKind } from "../../vmm/host/facts.js";
import * as exitCodes from "../../vmm/host/exit-codes.js";
import type { GuestOutcome, VmExit } from "../../vmm/machine/vm-exit.js";
import type { KernelFormat } from "../../vmm/x86/kernel.js";
import { DOCUMENTS, anchors, filesOfTree, links, rows, section, textOf } from "../helpers/documents.js";

const COMMAND_LINE = "docs/command-line.md";

function sorted(values: Iterable<string>): string[] {
  return [...new Set(values)].sort();
}

/** Paths of all values of an object that are not objects themselves. */
function leaves(value: unknown, path = ""): string[] {
  if (typeof value !== "object" || value === null) return [path];
  return Object.entries(value).flatMap(([key, inner]) => leaves(inner, path === "" ? key : `${path}.${key}`));
}

describe("docs: the command line", () => {
  it("the table of exit codes has every constant with its number, and no other", () => {
    const listed = rows(section(COMMAND_LINE, "Exit codes"))
      .filter(([, name]) => name?.startsWith("EXIT_") === true)
      .map(([code, name]) => `${name ?? ""} ${code?.replace("+N", "") ?? ""}`);
    const known = Object.entries(exitCodes)
      .filter(([name]) => name.startsWith("EXIT_"))
      .map(([name, code]) => `${name} ${String(code)}`);
    assert.deepEqual(sorted(listed), sorted(known));
  });

  it("the report's table has the fields of a report, and no other", () => {
    const exit: VmExit = {
      outcome: "poweroff",
      exitStatus: 0,
      milestones: { firstRun: 1n, init: 2n, commandStart: 3n, commandEnd: 4n, end: 5n },
      exits: { io: 1 },
      fixups: { int3: 1 },
      devices: { vda: { reads: 1 } },
      registers: undefined,
    };
    const report = makeReport(resolveConfig({ kernel: "vmlinux" }), { format: "elf-pvh", hash: undefined }, exit, 0);
    const listed = rows(section(COMMAND_LINE, "The report")).flatMap(([fields = ""]) => fields.split(", "));
    const patterns = listed.map((field): [string, RegExp] => [
      field,
      new RegExp(`^${field.replaceAll(".", "\\.").replaceAll("*", "[^.]+")}$`),
    ]);
    const found = leaves(report);
    assert.deepEqual(
      found.filter((path) => !patterns.some(([, pattern]) => pattern.test(path))),
      [],
      "fields that are not listed",
    );
    assert.deepEqual(
      patterns.filter(([, pattern]) => !found.some((path) => pattern.test(path))).map(([field]) => field),
      [],
      "listed fields that no report has",
    );
  });

  it("the report's table has the values that some fields may have, and no other", () => {
    // The types keep these complete.
    const outcomes: Record<GuestOutcome, true> = {
      poweroff: true,
      reboot: true,
      panic: true,
      "triple-fault": true,
      halted: true,
      killed: true,
    };
    const formats: Record<KernelFormat, true> = { "elf-linux64": true, "elf-pvh": true, bzimage: true };
    const kinds: Record<Exclude<AcceleratorKind, "none">, true> = {
      kvm: true,
      "kvm-intel": true,
      "kvm-amd": true,
      "kvm-pvm": true,
    };
    const table = rows(section(COMMAND_LINE, "The report").replaceAll("`", "'"));
    for (const [field, values] of [
      ["outcome", outcomes],
      ["kernel.format", formats],
      ["accelerator.kind", kinds],
    ] as const) {
      const [, meaning = ""] = table.find(([name]) => name === `'${field}'`) ?? [];
      const listed = [...meaning.matchAll(/'([^']+)'/g)].map(([, value = ""]) => value);
      assert.deepEqual(sorted(listed), sorted(Object.keys(values)), field);
    }
  });
});

describe("docs: limits and defaults", () => {
  it("the numbers in the table of options and in docs/limits.md are those of vmm/config/defaults.ts", () => {
    const options = rows(section(COMMAND_LINE, "Boot"));
    const meaning = (option: string): string => options.find(([name]) => name?.includes(option) === true)?.[1] ?? "";
    assert.match(meaning("--memory"), new RegExp(`default ${String(defaults.DEFAULT_MEMORY_MIB)}$`));
    assert.match(
      meaning("--cpus"),
      new RegExp(` 1 to ${String(defaults.MAX_CPUS)}; default ${String(defaults.DEFAULT_CPUS)}$`),
    );
    const limits = textOf("docs/limits.md");
    const [, cpus, least, most] = /^- 1 to (\d+) vCPUs, (\d+) MiB to (\d+) TiB of RAM,/m.exec(limits) ?? [];
    assert.deepEqual(
      [Number(cpus), Number(least), Number(most) * 2 ** 20],
      [defaults.MAX_CPUS, defaults.MIN_MEMORY_MIB, defaults.MAX_MEMORY_MIB],
    );
    assert.ok(limits.includes(`- At most ${String(defaults.MAX_VIRTIO_DEVICES)} virtio devices.`));
    assert.ok(textOf("docs/devices.md").includes(`at\nmost ${String(defaults.MAX_VIRTIO_DEVICES)}.`));
  });
});

describe("docs: the API", () => {
  it("the table of errors has every class with its code", () => {
    const listed = rows(section("docs/api.md", "Errors")).map(([name, code]) => `${name ?? ""} ${code ?? ""}`);
    const classes: Readonly<Record<string, api.VmmError>> = {
      ConfigError: new api.ConfigError([]),
      KernelImageError: new api.KernelImageError(""),
      DiskError: new api.DiskError(""),
      HostError: new api.HostError(""),
      SystemCallError: new api.SystemCallError("", 1, ""),
      KvmIoctlError: new api.KvmIoctlError("", 1, ""),
      SnapshotError: new api.SnapshotError(""),
      VmStateError: new api.VmStateError("", "", ""),
      GuestMemoryError: new api.GuestMemoryError(""),
      BusError: new api.BusError(""),
      VcpuExitError: new api.VcpuExitError(""),
      LabError: new api.LabError(""),
      ImageError: new api.ImageError(""),
      AgentError: new api.AgentError("closed", ""),
      GuestRequestError: new api.GuestRequestError("", 0, "", ""),
      ExecError: new api.ExecError("", { command: [], exitCode: 1, signal: null }),
    };
    const exported = Object.keys(api).filter((name) => name.endsWith("Error") && name !== "VmmError");
    assert.deepEqual(sorted(Object.keys(classes)), sorted(exported));
    assert.deepEqual(sorted(listed), sorted(Object.entries(classes).map(([name, error]) => `${name} ${error.code}`)));
    assert.deepEqual(sorted(Object.values(classes).map(({ code }) => code)), sorted(api.ERROR_CODES));
  });

  it("the methods in its table are those of a Machine", () => {
    const listed = rows(section("docs/api.md", "Methods")).map(([call]) => /^vm\.(\w+)/.exec(call ?? "")?.[1] ?? "");
    assert.ok(listed.length >= 8);
    const methods = Object.getOwnPropertyNames(api.Machine.prototype);
    assert.deepEqual(
      listed.filter((name) => !methods.includes(name)),
      [],
    );
  });
});

describe("docs: doctor", () => {
  it("its README has the exit codes of doctor", () => {
    const listed = rows(section("vmm/doctor/README.md", "Doctor")).map(([code]) => code);
    for (const code of [0, exitCodes.EXIT_LAB_ONLY, exitCodes.EXIT_HOST]) assert.ok(listed.includes(String(code)));
  });
});

describe("docs: guest/README", () => {
  it("the options that it lists are in the kernels' configurations", () => {
    const configured = ["base", "containers", "fast", "pci"]
      .map((name) => textOf(`guest/kernel/${name}.config`))
      .join("\n");
    const table = rows(section("guest/README.md", "Options, by what needs them"));
    const names = table.flatMap(([, text = ""]) =>
      [...text.matchAll(/\b[A-Z][A-Z\d]+(?:_[A-Z\d]+)*\b/g)].map(([name]) => name),
    );
    assert.ok(names.length > 40, String(names.length));
    const prose = new Set(["ACPI"]);
    assert.deepEqual(
      names.filter((name) => !prose.has(name) && !new RegExp(`^CONFIG_${name}=`, "m").test(configured)),
      [],
    );
  });
});

describe("docs: finding one's way", () => {
  const pages = readdirSync("docs").filter((name) => name.endsWith(".md") && name !== "README.md");

  it("README takes no more than 200 lines", () => {
    assert.ok(textOf("README.md").split("\n").length <= 201);
  });

  it("README, the index and --help lead to every page of docs/", () => {
    assert.ok(pages.length >= 8);
    const linked = (path: string): string[] => links(path).map(({ file }) => file);
    for (const page of pages) {
      assert.ok(linked("README.md").includes(`docs/${page}`), `README.md: ${page}`);
      assert.ok(linked("docs/README.md").includes(`docs/${page}`), `docs/README.md: ${page}`);
      assert.match(help(), new RegExp(`^ +${page} +\\w`, "m"));
    }
    const [, folder = ""] = /^Documentation, in (.+):$/m.exec(help()) ?? [];
    assert.deepEqual(readdirSync(folder), readdirSync("docs"));
  });

  it("the package has every file that README and docs/ link to", function () {
    const { status, stdout, stderr } = spawnSync("npm", ["pack", "--ignore-scripts", "--dry-run", "--json"], {
      encoding: "utf8",
    });
    assert.equal(status, 0, stderr);
    const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
    const packed = new Set(files.map(({ path }) => path));
    for (const document of ["README.md", "docs/README.md", ...pages.map((page) => `docs/${page}`)]) {
      assert.ok(packed.has(document), document);
      const missing = links(document).filter(({ file }) => !packed.has(file));
      assert.deepEqual(missing, [], document);
    }
  }).timeout(60_000);
});

describe("docs: test/README", () => {
  it("its table of folders has every folder of tests", () => {
    const listed = rows(section("test/README.md", "Tests")).map(([folder = ""]) => folder);
    const folders = filesOfTree(".test.ts").map((path) => path.split("/")[1] ?? "");
    assert.deepEqual(
      sorted(folders).filter((folder) => !listed.includes(`${folder}/`)),
      [],
    );
  });
});

describe("docs: CHANGELOG", () => {
  it("has the form of Keep a Changelog: kinds of changes, each once a version, in one list", () => {
    const KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    const [, ...versions] = textOf("CHANGELOG.md").split(/^## /m);
    assert.match(versions[0] ?? "", /^\[Unreleased\]\n/);
    for (const version of versions) {
      const [head = "", ...parts] = version.split(/^### /m);
      const kinds = parts.map((part) => part.split("\n")[0] ?? "");
      assert.deepEqual(
        kinds,
        KINDS.filter((kind) => kinds.includes(kind)),
        head,
      );
      for (const part of parts) assert.match(part, /^\w+\n\n(?:- .+\n(?: {2}.+\n)*)+\n?$/);
    }
  });
});

describe("docs: all", () => {
  it("tables: each row has as many cells as the head, and each row belongs to a table", () => {
    const cells = (line: string): number => line.replaceAll(/`[^`]*`/g, "").split(/(?<!\\)\|/).length;
    for (const path of DOCUMENTS) {
      const lines = textOf(path).split("\n");
      lines.forEach((line, i) => {
        if (!line.startsWith("|")) return;
        let head = i;
        while (lines[head - 1]?.startsWith("|") === true) head--;
        assert.match(lines[head + 1] ?? "", /^\|[-:| ]+\|$/, `${path}: no head: ${line}`);
        assert.equal(cells(line), cells(lines[head] ?? ""), `${path}: ${line}`);
      });
    }
  });

  for (const path of DOCUMENTS) {
    it(`${path}: targets of make, files and sections exist`, () => {
      const targets = (file: string): Set<string> =>
        new Set([...textOf(file).matchAll(/^([a-z-]+):/gm)].map(([, name]) => name ?? ""));
      // In a code span, or as a line of a block.
      for (const [, folder, target = ""] of textOf(path).matchAll(/(?:`|^(?:\$ )?)make (?:-C (\w+) )?([a-z-]+)/gm)) {
        const file = folder === undefined ? "Makefile" : `${folder}/Makefile`;
        assert.ok(targets(file).has(target), `${file} has no target ${target}`);
      }
      for (const { file, anchor } of links(path)) {
        assert.ok(existsSync(file), `${path} links to ${file}`);
        if (anchor !== undefined) assert.ok(anchors(file).includes(anchor), `${path} links to ${file}#${anchor}`);
      }
    });
  }
});
