// Needs: a /dev/kvm on which guests run, a built program, busybox, virtiofsd and the right to start it, e2fsprogs. Folders and files
// of this host, and a disk of its own, in one VM.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { findProgram } from "../../vmm/host/programs.js";
import { Vm } from "../../vmm/sdk/vm.js";
import { StateFolder } from "../../vmm/sdk/state-folder.js";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { shareProblem } from "../helpers/share-guard.js";
import { serversOf } from "../helpers/share-servers.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 300_000;
const ENOUGH_MIB = 32;

describe("boot: volumes and a disk", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let disk = "";
  let state: StateFolder;
  const environment = process.env["VMLET_STATE"];
  const cache = process.env["VMLET_CACHE"];
  const at = (name: string): string => join(folder, name);

  before(async function () {
    const reason =
      whyNoKvm() ??
      (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built") ??
      whyNoBusybox() ??
      (findProgram("mke2fs") === undefined ? "e2fsprogs is not installed" : undefined) ??
      shareProblem();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-volumes-"));
    process.env["VMLET_STATE"] = at("state");
    state = new StateFolder();
    const root = busyboxTree(folder);
    mkdirSync(join(root, "data/covered"), { recursive: true });
    writeFileSync(join(root, "data/covered/own"), "of the disk");
    disk = at("disk.img");
    const made = await ask("mke2fs", "-q", "-t", "ext4", "-d", root, disk, `${String(ENOUGH_MIB)}M`);
    assert.equal(made.status, 0, made.stderr);
  });

  after(async () => {
    if (folder !== "") {
      for (const { name } of state.list()) await ask(PROGRAM, "rm", "--force", name);
      rmSync(folder, { recursive: true, force: true });
    }
    if (cache === undefined) delete process.env["VMLET_CACHE"];
    else process.env["VMLET_CACHE"] = cache;
    if (environment === undefined) delete process.env["VMLET_STATE"];
    else process.env["VMLET_STATE"] = environment;
  });

  it("are what they are on this host, in one another, over what is there, alone; read-only is this host's doing; a stopped VM's disk is clean", async () => {
    for (const name of ["outer/inner", "inner", "covering"]) mkdirSync(at(name), { recursive: true });
    writeFileSync(at("outer/file"), "outer");
    writeFileSync(at("inner/file"), "inner");
    writeFileSync(at("config"), "config");
    writeFileSync(at("beside"), "secret");
    writeFileSync(at("fixed"), "fixed");
    const odd = Buffer.concat([Buffer.from(`${at("outer")}/`), Buffer.from([0xff, 0x0a, 0x41])]);
    writeFileSync(odd, "odd");
    // Of the guest's own file system, or of nothing: never of this host's.
    symlinkSync("../beside", at("outer/up"));
    symlinkSync("/etc/passwd", at("outer/passwd"));
    const script = [
      "cat /out/file /out/in/file /etc/config /new/fixed",
      "cat /out/??A; ls /data/covered; cat /out/passwd; ls /new",
      "cat /out/up || echo not there",
      "for path in /out/in/new /new/fixed; do echo x >$path || echo read-only; done",
      "mount -o remount,rw /out/in; echo x >/out/in/new || echo still read-only",
      "echo changed >/etc/config; echo made >/out/made; echo kept >/kept; echo covered >/data/covered/file",
      "touch /t/x || echo tmpfs read-only; echo done; while :; do sleep 1; done",
    ].join("\n");
    const volumes = [
      // In no order.
      ...["-v", `${at("inner")}:/out/in:ro`, "-v", `${at("outer")}:/out`, "-v", `${at("covering")}:/data/covered/`],
      ...["-v", `${at("config")}:/etc/config`, "-v", `${at("fixed")}:/new/fixed:ro`, "--tmpfs", "/t:ro"],
    ];
    const options = ["run", "-d", "--name", "volumes", "--memory", "128", ...volumes, "--disk", disk];
    const { status, stderr } = await ask(PROGRAM, ...options, "sh", "-c", script);
    assert.equal(status, 0, stderr);
    countBoot();
    const logs = () => ask(PROGRAM, "logs", "volumes");
    while (!(await logs()).stdout.endsWith("done\n")) {
      assert.equal(state.find("volumes").status, "running", (await logs()).stderr);
      await sleep(200);
    }
    assert.equal(
      (await logs()).stdout,
      [
        "outerinnerconfigfixedoddroot:x:0:0:root:/root:/bin/sh",
        "fixed",
        "not there",
        "read-only",
        "read-only",
        "still read-only",
        "tmpfs read-only",
        "done",
        "",
      ].join("\n"),
    );
    // All of it has a server each.
    for (const name of ["outer", "inner", "covering"]) assert.ok(serversOf(at(name)).length > 0, name);

    const stopped = await ask(PROGRAM, "stop", "--time", "0", "volumes");
    assert.equal(stopped.status, 0, stopped.stderr);
    assert.equal(readFileSync(at("config"), "utf8"), "changed\n");
    assert.equal(readFileSync(at("outer/made"), "utf8"), "made\n");
    assert.equal(readFileSync(at("covering/file"), "utf8"), "covered\n");
    assert.equal(readFileSync(at("fixed"), "utf8"), "fixed");
    assert.deepEqual(readdirSync(at("inner")), ["file"]);
    assert.equal(statSync(at("beside")).size, 6);
    for (const name of ["outer", "inner", "covering"]) assert.deepEqual(serversOf(at(name)), [], name);

    const checked = await ask("e2fsck", "-fn", disk);
    assert.equal(checked.status, 0, checked.stdout + checked.stderr);
    assert.equal((await ask("debugfs", "-R", "cat /kept", disk)).stdout, "kept\n");
    assert.equal((await ask("debugfs", "-R", "cat /data/covered/own", disk)).stdout, "of the disk");
    assert.match((await ask("dumpe2fs", "-h", disk)).stdout, /^Filesystem state: +clean$/m);
  });

  it("go on from one template, whichever folders they are, and a program that comes again from behind its exec; a VM that has looked at one is not saved; kill -9 leaves no server", async () => {
    process.env["VMLET_CACHE"] = at("cache");
    const words = ["--memory", "128", "--network", "none", "--rootfs", at("root")];
    const script =
      "cat /a/file /b/file; echo new >/a/new; echo x >/b/new || echo read-only; echo t >/t/x; df -k /t | tail -1";
    for (let time = 1; time <= 4; time++) {
      const [a, b] = ["a", "b"].map((name) => at(`${name}-${String(time)}`));
      assert.ok(a !== undefined && b !== undefined);
      for (const folder of [a, b]) {
        mkdirSync(folder);
        writeFileSync(join(folder, "file"), `${folder}\n`);
      }
      const volumes = ["-v", `${a}:/a`, "-v", `${b}:/b:ro`, "--tmpfs", "/t:size=64k"];
      const { status, stdout, stderr } = await ask(PROGRAM, "run", "--rm", ...words, ...volumes, "sh", "-c", script);
      assert.equal(status, 0, stderr);
      assert.equal(stderr.includes("it boots, once"), time === 1, stderr);
      assert.match(stdout, new RegExp(`^${a}\n${b}\nread-only\ntmpfs +64 .* /t\n$`));
      assert.equal(readFileSync(join(a, "new"), "utf8"), "new\n");
      assert.deepEqual(readdirSync(b), ["file"]);
      assert.deepEqual([...serversOf(a), ...serversOf(b)], []);
    }
    countBoot();
    const templates = readdirSync(at("cache/templates"));
    const [programs] = templates.filter((name) => name.endsWith(".programs"));
    assert.equal(templates.filter((name) => /^[0-9a-f]+$/.test(name)).length, 1);
    const [held] = readdirSync(at(`cache/templates/${programs ?? ""}`)).filter((name) => !name.endsWith(".lock"));
    assert.ok(existsSync(at(`cache/templates/${programs ?? ""}/${held ?? ""}/state.json`)));

    const volumes = [
      { hostPath: at("a-1"), guestPath: "/a" },
      { hostPath: at("b-1"), guestPath: "/b" },
    ];
    const vm = await Vm.start({ rootfs: at("root"), memoryMib: 128, network: "none", volumes });
    try {
      assert.ok(vm.restored);
      assert.equal((await vm.exec(["cat", "/b/file"])).stdout, `${at("b-1")}\n`);
      await assert.rejects(vm.clone(), {
        message: /share1: the guest has used it, .* cannot be saved or moved any more/,
      });
      assert.equal((await vm.exec(["cat", "/a/new"])).stdout, "new\n", "it goes on");
      const { pid } = state.find(vm.name).owner;
      assert.ok(serversOf(at("a-1")).length > 0 && pid > 0);
      process.kill(pid, "SIGKILL");
      const end = performance.now() + 20_000;
      while (["a-1", "b-1"].some((name) => serversOf(at(name)).length > 0)) {
        assert.ok(performance.now() < end, "servers go on");
        await sleep(20);
      }
    } finally {
      await vm.close();
    }
  });

  it("a disk whose VM is cut off at any moment has all that was synced; its journal puts it right here, and in the next VM", async () => {
    const own = at("cut.img");
    copyFileSync(disk, own);
    const script = `i=0
      while :; do
        i=$((i + 1)); echo $i >/file$i; mkdir /folder$i; mv /file$i /folder$i/; rm -rf /folder$((i - 1)); echo $i >/synced; sync; echo $i
      done`;
    const words = ["run", "--quiet", "--memory", "128", "--disk", own];
    const child = spawn(PROGRAM, [...words, "sh", "-c", script], { stdio: ["ignore", "pipe", "inherit"] });
    const closed = once(child, "close");
    // What the host would have, were the machine without power in that moment, and the last number that the guest has synced.
    const cuts: [copy: string, synced: number][] = [];
    try {
      countBoot();
      let synced = 0;
      for await (const line of createInterface(child.stdout)) {
        synced = Number(line);
        child.kill("SIGSTOP");
        cuts.push([at(`cut${String(synced)}.img`), synced]);
        copyFileSync(own, cuts.at(-1)?.[0] ?? "");
        child.kill("SIGCONT");
        if (cuts.length === 3) child.kill("SIGKILL");
      }
      await closed;
      copyFileSync(own, at("killed.img"));
      cuts.push([at("killed.img"), synced]);
    } finally {
      child.kill("SIGKILL");
    }
    for (const [copy, synced] of cuts) {
      const replayed = await ask("e2fsck", "-fp", copy);
      assert.ok(replayed.status === 0 || replayed.status === 1, replayed.stdout + replayed.stderr);
      const checked = await ask("e2fsck", "-fn", copy);
      assert.equal(checked.status, 0, checked.stdout + checked.stderr);
      const found = Number((await ask("debugfs", "-R", "cat /synced", copy)).stdout);
      assert.ok(found >= synced, `${copy}: ${String(found)} is older than ${String(synced)}`);
    }

    // Another VM goes on with the disk as it was left; the end of its time is an end in order.
    const more = "cat /synced; echo more >/more; exec sleep 1000";
    const over = await ask(PROGRAM, ...words, "--timeout", "5s", "sh", "-c", more);
    assert.equal(over.status, 124, over.stderr);
    assert.ok(Number(over.stdout) >= (cuts.at(-1)?.[1] ?? NaN), over.stdout);
    const clean = await ask("e2fsck", "-fn", own);
    assert.equal(clean.status, 0, clean.stdout + clean.stderr);
    assert.doesNotMatch((await ask("dumpe2fs", "-h", own)).stdout, /needs_recovery/);
    assert.equal((await ask("debugfs", "-R", "cat /more", own)).stdout, "more\n");
  });

  it("without virtiofsd one line says so, and nothing is left", async () => {
    // A namespace in which it is not there.
    const hidden = 'mount --bind /dev/null /usr/lib/qemu/virtiofsd && exec "$0" "$@"';
    const words = ["run", "--disk", disk, "-v", `${at("")}:/out`, "true"];
    const { status, stdout, stderr } = await ask("unshare", "--mount", "sh", "-c", hidden, PROGRAM, ...words);
    assert.deepEqual([status, stdout], [125, ""], stderr);
    assert.match(stderr, /^vmlet: Sharing a folder needs the program virtiofsd, which is not installed\n/m);
    assert.deepEqual(
      state.list().map(({ name }) => name),
      ["volumes"],
    );
  });
});

async function ask(file: string, ...words: string[]) {
  const child = spawn(file, words, { stdio: ["ignore", "pipe", "pipe"], timeout: LIMIT_MS, killSignal: "SIGKILL" });
  const closed = once(child, "close") as Promise<[number | null]>;
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  const [status] = await closed;
  return { status, stdout, stderr };
}

async function text(stream: Readable): Promise<string> {
  return Buffer.concat((await stream.toArray()) as Buffer[]).toString("utf8");
}
