// Needs: nothing; as root, loop devices and a kernel with erofs for one test, tar for another. What archives hold, as a file system.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../../vmm/host/programs.js";
import { prepareDirectory } from "../../vmm/image/index.js";
import { readErofs, readParts, type ReadInode } from "../helpers/erofs-reader.js";
import { imageRig, textOf } from "../helpers/image-rig.js";
import { skip } from "../helpers/skip.js";
import { paxBody, tarOf, type TarItem } from "../helpers/tar-builder.js";

const S_IFMT = 0o170000;

describe("image: tree", function () {
  this.timeout(60_000);
  const { at, prepare, treeOf, treeOfLayers } = imageRig();

  it("all kinds of files, with all that an archive says of them", async () => {
    const long = "n".repeat(255);
    const tree = await treeOfLayers([
      { name: "./", type: "5", mode: 0o751, uid: 7 },
      { name: "dir/", type: "5", mode: 0o1777 },
      { name: "dir/file", body: "contents", mode: 0o4755, uid: 70_000, gid: 4_000_000_000, mtime: 12 },
      { name: "dir/empty", body: "" },
      { name: "dir/link", type: "1", linkName: "dir/file" },
      { name: "dir/symlink", type: "2", linkName: "../target\xff" },
      { name: "dev/null", type: "3", device: [1, 3], mode: 0o666 },
      { name: "dev/disk", type: "4", device: [259, 70_000] },
      { name: "fifo", type: "6" },
      { name: "na\xff\xfeme\n", body: "x" },
      { name: "old", pax: { mtime: "-1.25" }, body: "1" },
      { name: "before", mtime: -3, body: "1" },
      { name: "x", pax: { path: `long/${long}`, uid: "99999", mtime: "5.000000001" }, body: "2" },
      {
        name: "caps",
        pax: {
          "SCHILY.xattr.security.capability": "\x01\0\0\x02\0\x20\0\0\n=\xff\0",
          "SCHILY.xattr.user.empty": "",
          "SCHILY.xattr.trusted.t": "v",
          "SCHILY.xattr.system.posix_acl_access": "\x02\0\0\0",
          "SCHILY.xattr.trusted.overlay.opaque": "y",
          "SCHILY.xattr.com.apple.x": "y",
          "LIBARCHIVE.xattr.user.b%3Dc": Buffer.from("\0\x80", "latin1").toString("base64"),
        },
      },
    ]);
    const of = (path: string): ReadInode => tree.get(path) ?? assert.fail(`no ${path}`);
    assert.deepEqual([of("").mode & 0o7777, of("").uid], [0o751, 7]);
    assert.equal(of("dir").mode, 0o041777);
    const file = of("dir/file");
    assert.deepEqual(
      [file.mode, file.uid, file.gid, file.mtime, file.links, file.content.toString()],
      [0o104755, 70_000, 4_000_000_000, 12, 2, "contents"],
    );
    assert.equal(of("dir/link").nid, file.nid);
    assert.equal(of("dir/empty").size, 0);
    assert.equal(textOf(tree, "dir/symlink"), "../target\xff");
    assert.deepEqual([of("dev/null").mode, of("dev/null").device], [0o020666, (1 << 8) | 3]);
    assert.deepEqual(
      [of("dev/disk").mode & S_IFMT, of("dev/disk").device],
      [0o060000, (259 << 8) | (70_000 & 0xff) | ((70_000 & ~0xff) << 12)],
    );
    assert.equal(of("dev").mode, 0o040755, "a folder that is only implied");
    assert.equal(of("fifo").mode & S_IFMT, 0o010000);
    assert.equal(textOf(tree, "na\xff\xfeme\n"), "x");
    assert.deepEqual([of("old").mtime, of("old").mtimeNs], [-2, 750_000_000]);
    assert.equal(of("before").mtime, -3);
    const found = of(`long/${long}`);
    assert.deepEqual([found.uid, found.mtime, found.mtimeNs], [99_999, 5, 1]);
    assert.deepEqual(of("caps").xattrs, {
      "security.capability": "\x01\0\0\x02\0\x20\0\0\n=\xff\0",
      "trusted.t": "v",
      "user.empty": "",
      "system.posix_acl_access": "\x02\0\0\0",
      "user.b=c": "\0\x80",
    });
  });

  it("GNU's long names, old folders, prefixes, volume labels, names with dots and slashes", async () => {
    const long = `${"d".repeat(200)}/${"e".repeat(200)}`;
    const tree = await treeOfLayers([
      { name: "label", type: "V" },
      { name: "././@LongLink", type: "L", body: `${long}\0` },
      { name: "cut", body: "long" },
      { name: "././@LongLink", type: "K", body: `${"t".repeat(1000)}\0` },
      { name: "to", type: "2", linkName: "cut" },
      { name: "oldfolder/" },
      { name: "b", body: "prefix", change: (header) => header.write("a/a", 345, "latin1") },
      { name: "/abs//./x/../y", body: "y" },
      { name: "g", type: "g", body: paxBody({ comment: "made by a test", mtime: "77" }) },
      { name: "contiguous", type: "7", body: "7" },
    ]);
    assert.equal(textOf(tree, long), "long");
    assert.equal(textOf(tree, "to"), "t".repeat(1000));
    assert.equal(tree.get("oldfolder")?.mode, 0o040644);
    assert.equal(textOf(tree, "a/a/b"), "prefix");
    assert.equal(textOf(tree, "abs/y"), "y");
    assert.equal(tree.get("contiguous")?.mtime, 77);
    assert.ok(!tree.has("label") && !tree.has("abs/x"));
  });

  it("folders of many names, links of any length, attributes of 64 KiB, a file each beside block borders", async () => {
    const items: TarItem[] = [];
    for (let index = 0; index < 3000; index++) {
      const name = `many/${"n".repeat(1 + ((index * 7) % 200))}${String(index)}`;
      items.push({ name, pax: { path: name }, body: String(index) });
    }
    for (const length of [1, 100, 3900, 4031, 4032, 4033, 4095]) {
      items.push({ name: `l${String(length)}`, type: "2", pax: { linkpath: "l".repeat(length) } });
    }
    for (const length of [1, 4095, 4096, 4097, 1_000_000]) {
      items.push({ name: `f${String(length)}`, body: Buffer.alloc(length, length % 251) });
    }
    for (const length of [0, 1, 3900, 4000, 65_535]) {
      items.push({ name: `x${String(length)}/`, type: "5", pax: { "SCHILY.xattr.user.x": "v".repeat(length) } });
      items.push({ name: `x${String(length)}/in`, body: "i" });
    }
    const tree = await treeOfLayers(items);
    for (const item of items) {
      const inode = tree.get(item.name.replace(/\/$/, "")) ?? assert.fail(item.name);
      if (item.type === "2") assert.equal(inode.content.toString(), item.pax?.["linkpath"]);
      else if (item.type === "5") assert.equal(inode.xattrs["user.x"], item.pax?.["SCHILY.xattr.user.x"]);
      else assert.ok(inode.content.equals(Buffer.from((item.body ?? "") as string)), item.name);
    }
    assert.equal([...tree.keys()].filter((path) => path.startsWith("many/")).length, 3000);
  });

  it("files with holes, in all forms that tar has, and larger than 4 GiB", async () => {
    const pieces = [
      [4096, 5],
      [10_000, 3],
    ] as const;
    const data = "abcdeXYZ";
    const expected = Buffer.alloc(20_000);
    expected.write("abcde", 4096);
    expected.write("XYZ", 10_000);
    const front = Buffer.alloc(512);
    front.write("2\n4096\n5\n10000\n3\n");
    const tree = await treeOfLayers([
      {
        name: "old",
        type: "S",
        body: data,
        change: (header) => {
          header.write("ustar  \0", 257, "latin1");
          pieces.forEach(([offset, length], index) => {
            header.write(offset.toString(8).padStart(11, "0"), 386 + 24 * index, "latin1");
            header.write(length.toString(8).padStart(11, "0"), 398 + 24 * index, "latin1");
          });
          header.write((20_000).toString(8).padStart(11, "0"), 483, "latin1");
        },
      },
      {
        name: "a",
        pax: {
          "GNU.sparse.size": "20000",
          "GNU.sparse.numblocks": "2",
          "GNU.sparse.map": "4096,5,10000,3",
          "GNU.sparse.name": "pax01",
        },
        body: data,
      },
      {
        name: "b",
        pax: {
          "GNU.sparse.major": "1",
          "GNU.sparse.minor": "0",
          "GNU.sparse.realsize": "20000",
          "GNU.sparse.name": "pax10",
        },
        body: Buffer.concat([front, Buffer.from(data)]),
      },
      { name: "after", body: "after" },
    ]);
    for (const name of ["old", "pax01", "pax10"]) assert.ok(tree.get(name)?.content.equals(expected), name);
    assert.equal(textOf(tree, "after"), "after");
    const map = { "GNU.sparse.size": "5000000000", "GNU.sparse.map": "0,1,4999999999,1", "GNU.sparse.name": "large" };
    writeFileSync(at("large.tar"), tarOf([{ name: "x", pax: map, body: "!?" }]));
    const { manifestPath, bytes } = await prepare(`tar:${at("large.tar")}`);
    const large = readErofs(readParts(manifestPath, 8192), bytes).get("large");
    assert.deepEqual([large?.size, large?.content[0]], [5_000_000_000, 33]);
    const layers = readdirSync(join(at("cache"), "layers")).map((id) =>
      statSync(join(at("cache"), "layers", id, "data")),
    );
    const found = layers.find(({ size }) => size === Math.ceil(5e9 / 4096) * 4096);
    assert.ok(found !== undefined && found.blocks < 1000, "holes take no room");
  });

  it("what tar itself writes, sparse files included, is what it was", async function () {
    if (process.getuid?.() !== 0) skip(this, "needs root for owners and devices");
    const tree = at("tree");
    mkdirSync(join(tree, "deep".repeat(60), "more".repeat(60)), { recursive: true });
    writeFileSync(join(tree, "deep".repeat(60), "more".repeat(60), "file"), "deep");
    execFileSync("sh", [
      "-ec",
      `cd ${tree}; printf hello >a; ln a b; ln -s a c; mkfifo p; mknod n c 10 200; chown 5:6 a; chmod 4711 a
      truncate -s 3M sparse; printf mid | dd of=sparse bs=1 seek=1500000 conv=notrunc status=none`,
    ]);
    for (const format of ["gnu", "pax", "posix"]) {
      for (const sparse of [
        [],
        ["-S"],
        ...(format === "gnu"
          ? []
          : [
              ["-S", "--sparse-version=0.0"],
              ["-S", "--sparse-version=0.1"],
            ]),
      ]) {
        execFileSync("tar", ["-C", tree, `--format=${format}`, ...sparse, "-cf", at("made.tar"), "."]);
        const found = await treeOf(`tar:${at("made.tar")}`);
        const label = `${format} ${sparse.join(" ")}`;
        assert.equal(textOf(found, `${"deep".repeat(60)}/${"more".repeat(60)}/file`), "deep", label);
        assert.ok(found.get("sparse")?.content.equals(readFileSync(join(tree, "sparse"))), label);
        assert.deepEqual([found.get("a")?.mode, found.get("a")?.uid, found.get("a")?.links], [0o104711, 5, 2], label);
        assert.equal(found.get("n")?.device, (10 << 8) | 200);
      }
    }
  });

  it("Linux mounts it, and finds every file with all that it has", async function () {
    if (process.getuid?.() !== 0 || !readFileSync("/proc/filesystems", "latin1").includes("erofs")) {
      skip(this, "needs root and a kernel with erofs");
    }
    const source = at("source");
    mkdirSync(join(source, "d"), { recursive: true });
    for (let index = 0; index < 500; index++)
      writeFileSync(join(source, "d", `file ${String(index)}`), "x".repeat(index * 37));
    execFileSync("sh", [
      "-ec",
      `cd ${source}; ln d/'file 7' l; ln -s d s; mkfifo p; mknod n b 7 300; chown -h 70000:80000 s l; touch -d 1960-01-01 d`,
    ]);
    const { manifestPath } = await prepareDirectory(source, { cache: at("cache") });
    writeFileSync(at("whole"), readParts(manifestPath));
    mkdirSync(at("mnt"));
    if (spawnSync("mount", ["-t", "erofs", "-o", "loop,ro", at("whole"), at("mnt")]).status !== 0) {
      skip(this, "no loop device here");
    }
    try {
      const list = (top: string): string =>
        execFileSync(
          "sh",
          [
            "-c",
            `cd ${top}; find . ! -type d -printf '%p %y %m %U %G %s %T@ %n %l\n' | sort; find . -type d -printf '%p %m %U %G %T@ %n\n' | sort; find . -type f -print0 | sort -z | xargs -0 sha256sum; ls -l n`,
          ],
          {
            encoding: "utf8",
          },
        );
      assert.equal(list(at("mnt")), list(source));
    } finally {
      execFileSync("umount", [at("mnt")]);
    }
    if (findProgram("fsck.erofs") !== undefined) execFileSync("fsck.erofs", [at("whole")]);
  });
});
