// Needs: nothing. What comments and documents cite exists: files, sections of documents, targets of make.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { anchors, filesOfTree, textOf } from "../helpers/documents.js";

const TREE = filesOfTree("");
/** Written by people; package-lock.json and drawings are not. */
const WRITTEN = TREE.filter((path) => !/\.(svg|json|png)$/.test(path) && path !== "LICENSE");
const SOURCES = /\.(ts|js|mjs|c|h|S)$/;
const ROOTS = "vmm|devices|test|guest|bench|docs|recipes";
/** Made by a build, or somebody else's. */
const NOT_OURS = /^(guest\/out|bench\/out|bench\/results)\b/;

interface Citation {
  readonly from: string;
  readonly line: string;
  readonly cited: string;
}

/** Comments of a source, all of anything else. */
function prose(path: string): string[] {
  const lines = textOf(path).split("\n");
  return SOURCES.test(path) ? lines.filter((line) => /^\s*(\/\/|\/?\*)|\s\/\/ /.test(line)) : lines;
}

function citations(pattern: RegExp): Citation[] {
  return WRITTEN.flatMap((from) =>
    prose(from).flatMap((line) => [...line.matchAll(pattern)].map(([, cited = ""]) => ({ from, line, cited }))),
  );
}

function wrong(found: readonly Citation[], isRight: (citation: Citation) => boolean): string[] {
  return found.filter((citation) => !isRight(citation)).map(({ from, line }) => `${from}: ${line.trim()}`);
}

/** Stars and {a,b} stand for names, as in a shell. */
function matchesTree(cited: string): boolean {
  const pattern = cited
    .replaceAll(/[.+?^$()|[\]\\]/g, "\\$&")
    .replaceAll(/\*+/g, ".*")
    .replaceAll(/\{([^}]*)\}/g, (_, names: string) => `(?:${names.replaceAll(",", "|")})`);
  return TREE.some((path) => new RegExp(`^${pattern}`).test(path));
}

describe("citations", () => {
  it("files and folders that are cited from the top folder exist", () => {
    const found = citations(new RegExp(`(?<![\\w/.-])((?:${ROOTS})/[\\w./*{},@-]*[\\w*/}])`, "g"));
    assert.ok(found.length > 100, String(found.length));
    assert.deepEqual(
      wrong(found, ({ cited }) => NOT_OURS.test(cited) || existsSync(cited) || matchesTree(cited)),
      [],
    );
  });

  it("files that are cited by the end of their path exist, the nearest beside the file that cites them", () => {
    const found = citations(
      /(?<![\w/.$-])((?!www\.)[\w-]+(?:\/[\w.-]+)*\.(?:test\.ts|bench\.ts|ts|mjs|config|yml))\b/g,
    );
    assert.ok(found.length > 50, String(found.length));
    const exists = ({ from, cited }: Citation): boolean =>
      existsSync(join(dirname(from), cited)) || TREE.some((path) => path === cited || path.endsWith(`/${cited}`));
    assert.deepEqual(wrong(found, exists), []);
  });

  it("sections that are cited by document and title exist", () => {
    const found = citations(/((?:[\w/]+\/)?[A-Za-z-]+\.md,? \(?"[^"]+")/g);
    assert.ok(found.length > 5, String(found.length));
    const exists = ({ from, cited }: Citation): boolean => {
      const [, document = "", title = ""] = /^(\S+\.md),? \(?"([^"]+)"$/.exec(cited) ?? [];
      const path = [document, join(dirname(from), document)].find((candidate) => existsSync(candidate));
      const anchor = title
        .toLowerCase()
        .replaceAll(/[^\p{L}\d_ -]/gu, "")
        .replaceAll(" ", "-");
      return path !== undefined && anchors(path).includes(anchor);
    };
    assert.deepEqual(wrong(found, exists), []);
  });

  it("targets of make that are cited exist", () => {
    const targets = (file: string): string[] =>
      [...textOf(file).matchAll(/^([a-z-]+):/gm)].map(([, name]) => name ?? "");
    const found = citations(/`make ((?:-C \w+ )?[a-z][a-z-]*)/g);
    assert.ok(found.length > 10, String(found.length));
    assert.deepEqual(
      wrong(found, ({ cited }) => {
        const [, folder, target = ""] = /^(?:-C (\w+) )?(.*)$/.exec(cited) ?? [];
        return targets(folder === undefined ? "Makefile" : `${folder}/Makefile`).includes(target);
      }),
      [],
    );
  });
});
