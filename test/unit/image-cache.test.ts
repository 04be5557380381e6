// Needs: nothing. The cache of images, whoever uses it and is killed.
import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  statSync,
  truncateSync,
  utimesSync,
  writeSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { listImages, prepareImage, removeImage, type ImageProgress } from "../../vmm/image/index.js";
import { configOf, dockerArchive, sha256, type MadeImage } from "../helpers/image-archives.js";
import { imageRig } from "../helpers/image-rig.js";
import { tarOf, type TarItem } from "../helpers/tar-builder.js";

/** Into a FIFO that holds little, which is not waited for: what it does not take now goes later, until it is closed. */
async function feed(fd: number, bytes: Buffer, isOver: () => boolean): Promise<void> {
  for (let at = 0; at < bytes.length && !isOver();) {
    try {
      at += writeSync(fd, bytes, at, Math.min(4096, bytes.length - at));
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}

describe("image: cache", function () {
  this.timeout(60_000);
  const { at, prepare, treeOf, refusal } = imageRig();

  const base: readonly TarItem[] = [{ name: "base", body: Buffer.alloc(2_000_000, 7) }];
  const made = (name: string): MadeImage => ({ layers: [base, [{ name, body: name }]], tags: [name] });
  const save = (name: string): string => {
    writeFileSync(at(`${name}.tar`), dockerArchive(made(name)));
    return `docker-archive:${at(`${name}.tar`)}`;
  };

  it("images share layers: a second one adds only what is new", async () => {
    await prepare(save("one"));
    const used = (): number => Number(execFileSync("du", ["-sk", at("cache")], { encoding: "latin1" }).split("\t")[0]);
    const before = used();
    const progress: ImageProgress[] = [];
    await prepare(save("two"), { onProgress: (step) => progress.push(step) });
    assert.ok(used() - before < 200, String(used() - before));
    const unpacked = progress.filter(({ phase }) => phase === "unpack");
    assert.ok(unpacked.length > 0 && unpacked.every(({ total = 0 }) => total < 100_000));
    assert.equal(unpacked[unpacked.length - 1]?.done, unpacked[0]?.total);
    assert.equal(progress[progress.length - 1]?.phase, "index");
    const [two, one] = await listImages({ cache: at("cache") });
    assert.deepEqual(
      [one?.references, two?.references],
      [[`docker-archive:${at("one.tar")}`], [`docker-archive:${at("two.tar")}`]],
    );
    assert.ok((one?.bytes ?? 0) > 2_000_000 && (one?.ownBytes ?? 1e9) < 100_000);
    await removeImage(`docker-archive:${at("one.tar")}`, { cache: at("cache") });
    assert.deepEqual(
      (await listImages({ cache: at("cache") })).map(({ id }) => id),
      [two?.id],
    );
    assert.ok(((await listImages({ cache: at("cache") }))[0]?.ownBytes ?? 0) > 2_000_000);
    assert.ok((await treeOf(`docker-archive:${at("two.tar")}`)).has("base"));
  });

  it("a file that has not changed is not read again, one that has is", async () => {
    const reference = save("one");
    const first = await prepare(reference);
    const again: ImageProgress[] = [];
    await prepare(reference, { onProgress: (step) => again.push(step) });
    assert.deepEqual(again, []);
    writeFileSync(at("one.tar"), dockerArchive(made("other")));
    assert.notEqual((await prepare(reference)).id, first.id);
  });

  it("what is in use is not removed; when it is not, it goes with its layers", async () => {
    const held = await prepareImage(save("one"), { cache: at("cache") });
    const { message, cure } = await refusal(removeImage(held.id, { cache: at("cache") }));
    assert.match(message, /: in use$/);
    assert.match(cure ?? "", /end the VMs/);
    assert.equal((await listImages({ cache: at("cache") }))[0]?.isInUse, true);
    held.release();
    held.release();
    assert.equal((await listImages({ cache: at("cache") }))[0]?.isInUse, false);
    await removeImage(held.id.slice(0, 10), { cache: at("cache") });
    assert.deepEqual(readdirSync(join(at("cache"), "layers")), []);
    assert.deepEqual(readdirSync(join(at("cache"), "names")), []);
    assert.match((await refusal(removeImage("nothing", { cache: at("cache") }))).message, /no such image in the cache/);
  });

  it("beyond its size, what was used last stays, and what is in use", async () => {
    const big = (name: string): string => {
      const layers = [[{ name, body: Buffer.from(name.repeat(200_000)) }]];
      writeFileSync(at(`${name}.tar`), dockerArchive({ layers }));
      return `docker-archive:${at(`${name}.tar`)}`;
    };
    const limits = { cacheBytes: 2_000_000 };
    const held = await prepareImage(big("aaa"), { cache: at("cache"), limits });
    const second = await prepare(big("bbb"), { limits });
    const third = await prepare(big("ccc"), { limits });
    assert.equal(readdirSync(join(at("cache"), "layers")).length, 3);
    const fourth = await prepare(big("ddd"), { limits });
    const left = (await listImages({ cache: at("cache") })).map(({ id }) => id);
    assert.ok(
      left.includes(held.id) && left.includes(third.id) && left.includes(fourth.id) && !left.includes(second.id),
    );
    assert.equal(readdirSync(join(at("cache"), "layers")).length, 3);
    held.release();
  });

  it("what was damaged or left by a process that was killed is made anew", async () => {
    const reference = save("one");
    const first = await prepare(reference);
    const [layer = ""] = readdirSync(join(at("cache"), "layers"));
    truncateSync(join(at("cache"), "layers", layer, "data"), 10);
    assert.ok((await treeOf(reference)).has("base"));
    writeFileSync(join(at("cache"), "images", first.id, "image.json"), "{");
    assert.ok((await treeOf(reference)).has("base"));
    truncateSync(join(at("cache"), "images", first.id, "meta.erofs"), 4096);
    assert.ok((await treeOf(reference)).has("base"));
    const old = join(at("cache"), "tmp", "0123");
    mkdirSync(old);
    execFileSync("touch", ["-d", "2001-01-01", old]);
    await prepare(reference);
    assert.deepEqual(readdirSync(join(at("cache"), "tmp")), []);
  });

  it("two that prepare the same image at once both get it; one that is called off leaves nothing", async () => {
    const reference = save("one");
    const both = await Promise.all([prepare(reference), prepare(reference), prepare(reference)]);
    assert.equal(new Set(both.map(({ id }) => id)).size, 1);
    const stop = new AbortController();
    const progress = (): void => stop.abort(new Error("called off"));
    await assert.rejects(prepare(save("two"), { signal: stop.signal, onProgress: progress }), /called off/);
    assert.deepEqual(readdirSync(join(at("cache"), "tmp")), []);
    assert.equal((await listImages({ cache: at("cache") })).length, 1);
  });

  /** Another process that prepares an image, and says its id. */
  function preparing(reference: string, limits = "{}"): ChildProcess {
    const module = new URL("../../vmm/image/index.js", import.meta.url).href;
    const program = `import { prepareImage } from ${JSON.stringify(module)};
      const image = await prepareImage(process.argv[1], { cache: process.argv[2], limits: ${limits} });
      console.log(image.id);
      image.release();`;
    const words = ["--input-type=module", "-e", program, reference, at("cache")];
    return spawn(process.execPath, words, { stdio: ["ignore", "pipe", "inherit"] });
  }

  it("a process that is killed halfway leaves nothing that is taken for whole, and others clear it away", async () => {
    execFileSync("mkfifo", [at("slow")]);
    const tar = tarOf([{ name: "a", body: Buffer.alloc(3_000_000, 1) }]);
    const feeder = openSync(at("slow"), constants.O_RDWR | constants.O_NONBLOCK);
    const child = preparing(`tar:${at("slow")}`);
    const ended = new Promise((resolve) => child.once("close", resolve));
    let isOver = false;
    const fed = feed(feeder, tar.subarray(0, 2_500_000), () => isOver);
    const data = async (): Promise<string> => {
      for (;;) {
        for (const name of existsSync(join(at("cache"), "tmp")) ? readdirSync(join(at("cache"), "tmp")) : []) {
          const path = join(at("cache"), "tmp", name);
          if ((statSync(join(path, "data"), { throwIfNoEntry: false })?.size ?? 0) > 1_000_000) return path;
        }
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    };
    const left = await data();
    // Whoever comes meanwhile leaves alone what is being made.
    utimesSync(left, 1, 1);
    assert.deepEqual(await listImages({ cache: at("cache") }), []);
    assert.ok(existsSync(left));
    child.kill("SIGKILL");
    await ended;
    isOver = true;
    await fed;
    closeSync(feeder);
    utimesSync(left, 1, 1);
    assert.deepEqual(await listImages({ cache: at("cache") }), []);
    assert.deepEqual([readdirSync(join(at("cache"), "tmp")), readdirSync(join(at("cache"), "layers"))], [[], []]);
  });

  it("several processes at once, in a cache that is too small for all, each get what they asked for", async () => {
    const references = ["one", "two", "one", "two", "one"].map(save);
    const results = await Promise.all(
      references.map(async (reference) => {
        const child = preparing(reference, "{ cacheBytes: 1_000_000 }");
        let said = "";
        child.stdout?.on("data", (bytes: Buffer) => (said += bytes.toString()));
        const status = await new Promise((resolve) => child.once("close", resolve));
        return [status, said.trim()];
      }),
    );
    const ids = ["one", "two", "one", "two", "one"].map((name) => sha256(configOf(made(name))));
    assert.deepEqual(
      results,
      ids.map((id) => [0, id]),
    );
    assert.ok((await treeOf(`docker-archive:${at("one.tar")}`)).has("base"));
  });

  it("leaves no descriptor open", async () => {
    const open = (): number => readdirSync("/proc/self/fd").length;
    await prepare(save("one"));
    const before = open();
    for (const name of ["one", "two"]) await prepare(save(name));
    writeFileSync(at("bad.tar"), tarOf([{ name: "a", size: 5_000 }]));
    await refusal(prepare(`docker-archive:${at("bad.tar")}`));
    await refusal(prepare(`tar:${at("bad.tar")}`));
    await listImages({ cache: at("cache") });
    assert.equal(open(), before);
  });
});
