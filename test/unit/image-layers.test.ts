// Needs: nothing. Layers of images over each other.
import assert from "node:assert/strict";
import { listImages } from "../../vmm/image/index.js";
import { imageRig, pathsOf, textOf } from "../helpers/image-rig.js";
import { paxBody, type TarItem } from "../helpers/tar-builder.js";

const S_IFMT = 0o170000;

describe("image: layers", function () {
  this.timeout(60_000);
  const { at, treeOfLayers, refusal } = imageRig();

  it("whiteouts and opaque folders take away what is below, wherever they stand, and nothing of their own layer", async () => {
    const tree = await treeOfLayers(
      [
        { name: "gone", body: "1" },
        { name: "kept", body: "1" },
        { name: "again", body: "1" },
        { name: "folder/a", body: "1" },
        { name: "folder/b", body: "1" },
        { name: "opaque/old", body: "1" },
        { name: "opaque/sub/old", body: "1" },
        { name: "late/old", body: "1" },
      ],
      [
        { name: ".wh.gone" },
        { name: "again", body: "2" },
        { name: ".wh.again" },
        { name: ".wh.folder" },
        { name: "folder/c", body: "2" },
        { name: "opaque/", type: "5", mode: 0o700 },
        { name: "opaque/.wh..wh..opq" },
        { name: "opaque/new", body: "2" },
        { name: "late/new", body: "2" },
        { name: "late/.wh..wh..opq" },
        { name: ".wh.never-there" },
        { name: "nowhere/.wh.x" },
        { name: ".wh..wh.plnk/1.2", body: "left by a union file system" },
        { name: ".wh..wh.aufs", body: "" },
      ],
    );
    assert.deepEqual(pathsOf(tree), [
      "",
      "again",
      "folder",
      "folder/c",
      "kept",
      "late",
      "late/new",
      "opaque",
      "opaque/new",
    ]);
    assert.equal(textOf(tree, "again"), "2");
    assert.equal(tree.get("opaque")?.mode, 0o040700);
  });

  it("a later layer replaces: files by folders, folders by files, and keeps what a folder holds", async () => {
    const tree = await treeOfLayers(
      [
        { name: "f", body: "file" },
        { name: "d/x", body: "in" },
        { name: "e/", type: "5", mode: 0o700 },
        { name: "e/y", body: "kept" },
        { name: "s", type: "2", linkName: "e" },
        { name: "twice", body: "first" },
        { name: "twice", body: "second" },
      ],
      [
        { name: "f/", type: "5" },
        { name: "f/in", body: "1" },
        { name: "d", body: "now a file" },
        { name: "e/", type: "5", mode: 0o711 },
        { name: "s/", type: "5" },
      ],
    );
    assert.deepEqual(pathsOf(tree), ["", "d", "e", "e/y", "f", "f/in", "s", "twice"]);
    assert.equal(textOf(tree, "d"), "now a file");
    assert.equal(tree.get("e")?.mode, 0o040711);
    assert.equal((tree.get("s")?.mode ?? 0) & S_IFMT, 0o040000);
    assert.equal(textOf(tree, "twice"), "second");
  });

  it("hard links lead to files of lower layers; the file stays when its first name goes", async () => {
    const tree = await treeOfLayers(
      [
        { name: "bin/tool", body: "tool", mode: 0o755 },
        { name: "s", type: "2", linkName: "bin" },
      ],
      [
        { name: "usr/tool", type: "1", linkName: "/bin/tool" },
        { name: "usr/through", type: "1", linkName: "s/tool" },
        { name: "usr/link", type: "1", linkName: "s" },
      ],
      [{ name: "bin/.wh.tool" }],
    );
    assert.ok(!tree.has("bin/tool"));
    assert.deepEqual([textOf(tree, "usr/tool"), tree.get("usr/tool")?.links], ["tool", 2]);
    assert.equal(tree.get("usr/through")?.nid, tree.get("usr/tool")?.nid);
    assert.equal(tree.get("usr/link")?.nid, tree.get("s")?.nid);
  });

  it("a path through a symlink of a lower layer stays inside, and leads where the guest would find it", async () => {
    const tree = await treeOfLayers(
      [
        { name: "run/", type: "5" },
        { name: "var/run", type: "2", linkName: "/run" },
        { name: "up", type: "2", linkName: "../../../../../../etc" },
        { name: "a/b/c", type: "2", linkName: "../../run/./" },
      ],
      [
        { name: "var/run/pid", body: "1" },
        { name: "up/passwd", body: "root" },
        { name: "a/b/c/deep", body: "2" },
      ],
    );
    assert.equal(textOf(tree, "run/pid"), "1");
    assert.equal(textOf(tree, "etc/passwd"), "root");
    assert.equal(textOf(tree, "run/deep"), "2");
    assert.equal((tree.get("up")?.mode ?? 0) & S_IFMT, 0o120000);
  });

  const refused: [what: string, items: readonly TarItem[], message: RegExp][] = [
    ["a name that leads out", [{ name: "../x", body: "1" }], /Path "\.\.\/x" leads out of the image/],
    ["one that leads out further in", [{ name: "a/../../x", body: "1" }], /leads out/],
    ["a hard link that leads out", [{ name: "l", type: "1", linkName: "../../etc/shadow" }], /leads out/],
    [
      "a hard link to nothing",
      [{ name: "l", type: "1", linkName: "none" }],
      /"l" is a hard link to "none", which is not there/,
    ],
    [
      "a hard link to a folder",
      [
        { name: "d/", type: "5" },
        { name: "l", type: "1", linkName: "d" },
      ],
      /which is a folder/,
    ],
    [
      "links in circles",
      [{ name: "a", type: "2", linkName: "b" }, { name: "b", type: "2", linkName: "a" }, { name: "a/x" }],
      /too many symbolic links/,
    ],
    [
      "a path through a file",
      [
        { name: "f", body: "1" },
        { name: "f/x", body: "1" },
      ],
      /"f" is no folder/,
    ],
    ["a root that is a file", [{ name: "/", type: "2", linkName: "x" }], /The root is a symlink, not a folder/],
    ["a name of 256 bytes", [{ name: "x", pax: { path: "n".repeat(256) } }], /256 bytes, more than 255/],
    [
      "a name of 256 bytes in a link's target that a path goes through",
      [{ name: "l", type: "2", pax: { linkpath: `${"n".repeat(256)}/x` } }, { name: "l/y" }],
      /256 bytes, more than 255/,
    ],
    ["a path of 4,096 bytes", [{ name: "x", pax: { path: "n/".repeat(2048) } }], /4096 bytes, more than 4095/],
    ["a name with a zero byte", [{ name: "x", pax: { path: "a\0b" } }], /has a zero byte/],
    ["a link to nothing", [{ name: "x", type: "2", linkName: "" }], /symbolic link to nothing/],
    ["a whiteout of the folder it is in", [{ name: "d/.wh.." }], /from within/],
    ["a whiteout of its parent", [{ name: "d/.wh..." }], /from within/],
    ["a whiteout without a name", [{ name: "d/.wh." }], /from within/],
    ["an unknown type", [{ name: "x", type: "Z" }], /of a type that no file system has: "Z"/],
    ["an owner that cannot be", [{ name: "x", pax: { uid: "4294967295" } }], /the uid 4294967295/],
    ["a negative owner", [{ name: "x", uid: -1 }], /the uid -1/],
    ["a device that cannot be", [{ name: "x", type: "3", device: [4096, 0] }], /the device 4096:0/],
    [
      "an attribute that is too long",
      [{ name: "x", pax: { "SCHILY.xattr.user.x": "v".repeat(65_536) } }],
      /65536 bytes; names have/,
    ],
    ["a negative size", [{ name: "x", size: -5 }], /an entry of -5 bytes/],
    ["a size beyond all", [{ name: "x", size: 2 ** 52 }], /more than 68719476736 bytes of files/],
    ["a size that is no number", [{ name: "x", pax: { size: "12x" } }], /size is not a number that can be/],
    [
      "a checksum that is wrong",
      [
        { name: "x", body: "1" },
        { name: "y", body: Buffer.alloc(512, 65), size: 0 },
      ],
      /checksum is wrong/,
    ],
    [
      "an extended header without an entry",
      [{ name: "x", type: "x", body: paxBody({ path: "y" }) }],
      /extended header has no entry/,
    ],
    [
      "a damaged extended header",
      [{ name: "x", type: "x", body: "99 path=y\n" }, { name: "y" }],
      /extended header is damaged/,
    ],
    [
      "an extended header that is too long",
      [{ name: "x", type: "x", size: 2 ** 30 }],
      /extended header has 1073741824 bytes/,
    ],
    [
      "one path for all entries",
      [{ name: "g", type: "g", body: paxBody({ path: "y" }) }, { name: "y" }],
      /gives all its entries one path/,
    ],
    [
      "a map of holes that lies",
      [{ name: "x", pax: { "GNU.sparse.size": "10", "GNU.sparse.map": "5,8" }, body: "12345678" }],
      /map of a sparse file is damaged/,
    ],
    [
      "pieces of a file that overlap",
      [{ name: "x", pax: { "GNU.sparse.size": "10", "GNU.sparse.map": "5,2,4,2" }, body: "1234" }],
      /map of a sparse file is damaged/,
    ],
  ];
  for (const [what, items, message] of refused) {
    it(`refuses ${what}`, async () => {
      assert.match((await refusal(treeOfLayers(items))).message, message);
      assert.deepEqual((await listImages({ cache: at("cache") })).length, 0);
    });
  }

  it("a message about a name shows no control characters", async () => {
    const { message } = await refusal(treeOfLayers([{ name: "l\x1b[2J\n", type: "1", linkName: "\x07\xff" }]));
    assert.ok(!/[\x00-\x1f\x7f]/.test(message), JSON.stringify(message));
  });
});
