// Needs: nothing. One version, in all the places that have it.
import assert from "node:assert/strict";
import { VERSION } from "../../vmm/host/version.js";
import { textOf } from "../helpers/documents.js";

describe("version", () => {
  it("is that of the package, of its lock file and of README", () => {
    const { version } = JSON.parse(textOf("package.json")) as { version: string };
    const lock = JSON.parse(textOf("package-lock.json")) as { version: string; packages: { "": { version: string } } };
    const readme = textOf("README.md");
    assert.equal(VERSION, version);
    assert.deepEqual([lock.version, lock.packages[""].version], [version, version]);
    assert.ok(readme.includes(`Version ${version},`));
    for (const [, named] of readme.matchAll(/vmlet-([\d.]+)\.tgz/g)) assert.equal(named, version);
  });
});
