// Needs: nothing. Folders of this host as images.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../../vmm/host/programs.js";
import { prepareDirectory } from "../../vmm/image/index.js";
import { readErofs, readParts, type ReadInode } from "../helpers/erofs-reader.js";
import { imageRig, pathsOf, textOf } from "../helpers/image-rig.js";
import { skip } from "../helpers/skip.js";

describe("image: folder", function () {
  this.timeout(60_000);
  const { at, treeOf } = imageRig();

  it("is copied once, and again when anything below it has changed", async () => {
    const root = at("root");
    mkdirSync(join(root, "sub"), { recursive: true });
    writeFileSync(join(root, "sub", "f"), "one", { mode: 0o640 });
    execFileSync("ln", [join(root, "sub", "f"), join(root, "hard")]);
    execFileSync("ln", ["-s", "sub/f", join(root, "soft")]);
    writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0x66, 0xff])]), "odd");
    writeFileSync(join(root, ".wh.x"), "a name like any");
    truncateSync(join(root, ".wh.x"), 3_000_000);
    const get = async (): Promise<{ id: string; tree: Map<string, ReadInode> }> => {
      const image = await prepareDirectory(root, { cache: at("cache") });
      image.release();
      return { id: image.id, tree: readErofs(readParts(image.manifestPath)) };
    };
    const first = await get();
    assert.deepEqual(pathsOf(first.tree), ["", ".wh.x", "f\xff", "hard", "soft", "sub", "sub/f"]);
    assert.deepEqual([textOf(first.tree, "hard"), first.tree.get("hard")?.links], ["one", 2]);
    assert.equal(first.tree.get("sub/f")?.mode, 0o100640);
    assert.ok(first.tree.get(".wh.x")?.content.equals(readFileSync(join(root, ".wh.x"))));
    assert.equal((await get()).id, first.id);
    writeFileSync(join(root, "sub", "f"), "two");
    const second = await get();
    assert.notEqual(second.id, first.id);
    assert.equal(textOf(second.tree, "sub/f"), "two");
    assert.equal(textOf(await treeOf(`tar:${root}`), "hard"), "two");
    assert.equal(textOf(await treeOf(root), "hard"), "two");
    await assert.rejects(prepareDirectory(join(root, "soft"), { cache: at("cache") }), /not a folder$/);
    await assert.rejects(prepareDirectory(at("none"), { cache: at("cache") }), /no such file or folder/);
  });

  it("has its attributes, and says what cannot be read", async function () {
    const root = at("root");
    mkdirSync(root);
    writeFileSync(join(root, "f"), "1");
    if (findProgram("setfattr") === undefined) skip(this, "no program setfattr (Debian: attr)");
    if (spawnSync("setfattr", ["-n", "user.t", "-v", "value", join(root, "f")]).status !== 0)
      skip(this, "no attributes here");
    const image = await prepareDirectory(root, { cache: at("cache") });
    image.release();
    assert.deepEqual(readErofs(readParts(image.manifestPath)).get("f")?.xattrs, { "user.t": "value" });
  });
});
