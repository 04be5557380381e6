// Needs: nothing. The documents say what the program does.
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { ACCELERATORS, BOOT_FLAGS, DOCTOR_FLAGS } from "../../vmm/cli/arguments.js";
import * as exitCodes from "../../vmm/host/exit-codes.js";
import { BOOT_HELP, DOCTOR_HELP } from "../../vmm/cli/help.js";
import * as layout from "../../vmm/memory/layout.js";

const DOCUMENTS = [
  "README.md",
  "DESIGN.md",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "guest/README.md",
  "test/README.md",
  "vmm/doctor/README.md",
  "recipes/README.md",
] as const;
const text = Object.fromEntries(DOCUMENTS.map((path) => [path, readFileSync(path, "utf8")])) as Record<
  (typeof DOCUMENTS)[number],
  string
>;

/** The part of a document under a heading, up to the next heading of any level. */
function section(path: (typeof DOCUMENTS)[number], heading: string): string {
  const found = new RegExp(`^#+ ${heading}\\n([\\s\\S]*?)(?=^#+ |(?![\\s\\S]))`, "m").exec(text[path]);
  assert.ok(found !== null, `${path} has no section "${heading}"`);
  return found[1] ?? "";
}

/** Cells of the rows of a section's tables, back-ticks taken off. */
function rows(markdown: string): string[][] {
  return markdown
    .split("\n")
    .filter((line) => line.startsWith("|") && !/^\|[-:| ]+\|$/.test(line))
    .map((line) => line.split("|").slice(1, -1))
    .map((cells) => cells.map((cell) => cell.replaceAll("`", "").trim()));
}

function sorted(values: Iterable<string>): string[] {
  return [...new Set(values)].sort();
}

describe("docs: README", () => {
  it("lists every exit code with its number, and no other", () => {
    const listed = rows(section("README.md", "Exit codes"))
      .filter(([, name]) => name?.startsWith("EXIT_") === true)
      .map(([code, name]) => `${name ?? ""} ${code?.replace("+N", "") ?? ""}`);
    const known = Object.entries(exitCodes)
      .filter(([name]) => name.startsWith("EXIT_"))
      .map(([name, code]) => `${name} ${String(code)}`);
    assert.deepEqual(sorted(listed), sorted(known));
    assert.ok(known.length >= 12);
  });

  it("lists the options that vmlet boot takes, and so does --help", () => {
    const known = Object.entries(BOOT_FLAGS).flatMap(([name, flag]) => [
      `--${name}`,
      ...("short" in flag ? [`-${flag.short}`] : []),
    ]);
    const options = (markdown: string): string[] =>
      [...markdown.matchAll(/(?<![\w-])(--?[a-z][a-z-]*)/g)].map(([, option]) => option ?? "");
    const listed = rows(section("README.md", "Use")).flatMap(([option = ""]) => options(option));
    assert.deepEqual(sorted(listed), sorted(known));
    const help = /^Options:\n([\s\S]*?)\n\n/m.exec(BOOT_HELP)?.[1] ?? "";
    const helped = help.split("\n").flatMap((line) => options(line.slice(0, 24)));
    assert.deepEqual(sorted(helped), sorted(known));
    for (const kind of ACCELERATORS) assert.ok(section("README.md", "Use").includes(`\`${kind}\``));
  });

  it("its folder map is the tree's", () => {
    const folders = rows(section("README.md", "Folders")).flatMap(([folder]) => (folder ? [folder] : []));
    assert.ok(folders.length >= 14);
    assert.deepEqual(
      folders.filter((folder) => folder !== "Folder" && !existsSync(folder)),
      [],
    );
  });

  it("its names of the report's fields are the report's", () => {
    const source = readFileSync("vmm/cli/report.ts", "utf8");
    const declared = [...source.matchAll(/^ {2}readonly (\w+)/gm)].map(([, name]) => name ?? "");
    const listed = rows(section("README.md", "The report")).flatMap(([field = ""]) => field.split(/[ ,.]+/));
    assert.deepEqual(
      declared.filter((name) => !listed.includes(name)),
      [],
    );
  });
});

describe("docs: doctor", () => {
  it("--help has the options that it takes, and its README those that need a word", () => {
    for (const name of Object.keys(DOCTOR_FLAGS)) {
      assert.match(DOCTOR_HELP, new RegExp(`--${name}\\b`));
      if (name !== "help") assert.ok(text["vmm/doctor/README.md"].includes(`--${name}`), name);
    }
  });

  it("its README has the exit codes of doctor", () => {
    const listed = rows(section("vmm/doctor/README.md", "Doctor")).map(([code]) => code);
    for (const code of [0, exitCodes.EXIT_LAB_ONLY, exitCodes.EXIT_HOST]) assert.ok(listed.includes(String(code)));
    assert.match(DOCTOR_HELP, new RegExp(`\\b${String(exitCodes.EXIT_LAB_ONLY)} if only in the lab`));
  });
});

describe("docs: DESIGN", () => {
  const picture = /```\n(\s*guest-physical[\s\S]*?)```/.exec(section("DESIGN.md", "Guest memory"))?.[1] ?? "";
  const constants = layout as unknown as Readonly<Record<string, unknown>>;

  it("its picture of guest memory has the addresses of layout.ts, all of them", () => {
    const drawn = [...picture.matchAll(/^\s*(0x[\d_a-f]+)\s+│ ([A-Z\d_]+(?:, [A-Z\d_]+)*)/gm)].flatMap(
      ([, address = "", names = ""]) =>
        names.split(", ").map((name): [string, number] => [name, Number(address.replaceAll("_", ""))]),
    );
    for (const [name, address] of drawn) assert.equal(address, constants[name], name);
    const declared = Object.keys(constants).filter((name) => name.endsWith("_GPA"));
    assert.deepEqual(sorted(drawn.map(([name]) => name)), sorted(declared));
  });

  it("its picture is in ascending order", () => {
    const addresses = [...picture.matchAll(/^\s*(0x[\d_a-f]+)\s+[│├┌]/gm)].map(([, address = ""]) =>
      Number(address.replaceAll("_", "")),
    );
    assert.ok(addresses.length > 20);
    assert.deepEqual(
      addresses,
      addresses.toSorted((a, b) => a - b),
    );
  });
});

describe("docs: all", () => {
  for (const path of DOCUMENTS) {
    it(`${path}: targets of make, files and sections exist`, () => {
      const targets = (file: string): Set<string> =>
        new Set([...readFileSync(file, "utf8").matchAll(/^([a-z-]+):/gm)].map(([, name]) => name ?? ""));
      // In a code span, or as a line of a block.
      for (const [, folder, target = ""] of text[path].matchAll(/(?:`|^(?:\$ )?)make (?:-C (\w+) )?([a-z-]+)/gm)) {
        const file = folder === undefined ? "Makefile" : `${folder}/Makefile`;
        assert.ok(targets(file).has(target), `${file} has no target ${target}`);
      }
      const folder = path.includes("/") ? path.slice(0, path.lastIndexOf("/") + 1) : "";
      for (const [, target = ""] of text[path].matchAll(/\]\((?!https?:)([^)]+)\)/g)) {
        const [file = "", anchor] = target.split("#");
        assert.ok(file === "" || existsSync(folder + file), `${path} links to ${file}`);
        if (anchor === undefined) continue;
        const linked = file === "" ? text[path] : readFileSync(folder + file, "utf8");
        const anchors = [...linked.matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
          title
            .toLowerCase()
            .replaceAll(/[^\w -]/g, "")
            .replaceAll(" ", "-"),
        );
        assert.ok(anchors.includes(anchor), `${path} links to #${anchor}`);
      }
      for (const [, file = ""] of text[path].matchAll(/`((?:vmm|devices|test|guest|bench)\/[\w./-]+\.\w+)`/g)) {
        assert.ok(existsSync(file), `${path} names ${file}`);
      }
    });
  }
});
