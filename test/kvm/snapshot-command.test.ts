// Needs: a /dev/kvm of any kind, and `make build`. `vmlet snapshot` as people type it.
import assert from "node:assert/strict";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Report } from "../../vmm/cli/report.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { PROGRAM, bootWords, run, start, type Running } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

describe("kvm: vmlet snapshot", function () {
  this.timeout(120_000);
  let folder: string;
  let counting: MiniKernel;
  const at = (name: string): string => join(folder, name);
  const snapshot = (...words: string[]) => run([PROGRAM, "snapshot", ...words], { cwd: folder });

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-snapshot-"));
    counting = miniKernel(asm.countInMemory());
  });
  after(() => {
    counting.remove();
    rmSync(folder, { recursive: true });
  });

  async function counts(words: string[], options: Parameters<typeof start>[1] = {}): Promise<Running> {
    const vm = start(words, options);
    await vm.until("\xfe\xff");
    return vm;
  }

  function assertCounts(text: string, first: number): void {
    const wrong = [...Buffer.from(text, "latin1")].findIndex((byte, index) => byte !== ((first + index) & 0xff));
    assert.equal(wrong, -1);
  }

  it("a guest that was saved goes on in another process, in twenty at once, and itself", async () => {
    const vm = await counts(bootWords(counting.path, "--control", at("vm.sock")));
    const created = await snapshot("create", "vm.sock", "saved");
    assert.equal(created.status, 0, created.stderr);
    assert.match(created.stdout, /^\/.*\/saved: [\d.]+ [KM]iB; the guest rested for \d+ ms\n$/);
    const json = await snapshot("create", "--json", "--stop", "vm.sock", "last");
    const { id, bytes, paused_ms, folder: where } = JSON.parse(json.stdout) as Record<string, unknown>;
    assert.ok(typeof bytes === "number" && typeof paused_ms === "number" && /^[\da-f]{32}$/.test(String(id)));
    assert.equal(where, at("last"));
    const first = await vm.ended;
    assert.equal(first.status, 103);
    assertCounts(first.stdout, 1);

    const next = await counts([PROGRAM, "snapshot", "restore", "last", "--report", "report"], { cwd: folder });
    next.child.kill("SIGTERM");
    const second = await next.ended;
    assert.equal(second.status, 143, second.stderr);
    assertCounts(second.stdout, (first.stdout.length + 1) & 0xff);
    const report = JSON.parse(readFileSync(at("report"), "utf8")) as Report;
    assert.deepEqual([report.snapshot, report.memory_mib, report.exit_code], [id, 32, 143]);
    assert.match(report.kernel.sha256, /^[\da-f]{64}$/);

    const clones = await Promise.all(
      Array.from({ length: 20 }, () => counts([PROGRAM, "snapshot", "restore", "-q", "saved"], { cwd: folder })),
    );
    const begins = new Set<number>();
    for (const { child } of clones) child.kill("SIGTERM");
    for (const clone of clones) {
      const { stdout, status } = await clone.ended;
      assert.equal(status, 143);
      begins.add(stdout.charCodeAt(0));
      assertCounts(stdout, stdout.charCodeAt(0));
    }
    assert.equal(begins.size, 1);
    assert.deepEqual(readdirSync(folder).sort(), ["last", "report", "saved"]);
  });

  it("a restored guest is paused, saved again and ended as any", async () => {
    const vm = await counts([PROGRAM, "snapshot", "restore", "saved", "--control", "r.sock"], { cwd: folder });
    assert.equal((await run([PROGRAM, "pause", at("r.sock")])).status, 0);
    const again = await snapshot("create", "r.sock", "again");
    assert.equal(again.status, 0, again.stderr);
    assert.equal((await run([PROGRAM, "resume", at("r.sock")])).status, 0);
    vm.child.kill("SIGTERM");
    assert.equal((await vm.ended).status, 143);
    assert.equal((await snapshot("inspect", "--verify", "again")).status, 0);
  });

  it("inspect: a table, JSON, and the checksum of the memory", async () => {
    const shown = await snapshot("inspect", "saved");
    assert.equal(shown.status, 0, shown.stderr);
    for (const line of [
      /^snapshot +[\da-f]{32}, version \d+$/m,
      /^made +20\d\d-.*Z by vmlet \d/m,
      /^host +\S.*, Linux \d/m,
      /^this host +its processor fits$/m,
      new RegExp(`^kernel +${counting.path}, elf-linux64\n +sha256 [\\da-f]{64}$`, "m"),
      /^guest +32 MiB, 1 vCPU$/m,
      /^memory +memory-[\da-f]{32}: 32\.0 MiB, of which .* take room\n +sha256 [\da-f]{64}$/m,
    ]) {
      assert.match(shown.stdout, line);
    }
    const verified = await snapshot("inspect", "saved", "--verify", "--json");
    const json = JSON.parse(verified.stdout) as {
      id: string;
      memory: { verified: boolean; file: string };
      state: { vcpus: unknown[]; id: string };
      this_host: unknown;
    };
    assert.deepEqual(json.this_host, { fits: true, problems: [] });
    assert.deepEqual([json.memory.verified, json.state.vcpus.length, json.state.id], [true, 1, json.id]);
    assert.equal((await snapshot("inspect", "again", "--verify")).status, 0);
    const memory = at(`again/${readdirSync(at("again")).find((name) => name.startsWith("memory-")) ?? ""}`);
    const bytes = readFileSync(memory);
    bytes[20 * 2 ** 20] = 77;
    writeFileSync(memory, bytes);
    const damaged = await snapshot("inspect", "again", "--verify");
    assert.deepEqual([damaged.status, damaged.stdout], [65, ""]);
    assert.match(damaged.stderr, /^vmlet: again\/memory-[\da-f]+ is damaged: its checksum is another\n$/);
    truncateSync(memory, 4096);
    for (const command of ["inspect", "restore"]) {
      const cut = await snapshot(command, "again");
      assert.equal(cut.status, 65);
      assert.match(cut.stderr, /^vmlet: again\/memory-[\da-f]+ has 4096 bytes; .* are 33558528\n$/);
    }
  });

  it("delete: a snapshot, and nothing else", async () => {
    writeFileSync(at("saved/notes"), "mine");
    const refused = await snapshot("delete", "saved");
    assert.equal(refused.status, 65);
    assert.match(refused.stderr, /^vmlet: saved: holds what is no part of a snapshot: "notes"\n/);
    assert.equal(readdirSync(at("saved")).length, 3);
    rmSync(at("saved/notes"));
    assert.equal((await snapshot("delete", "saved")).status, 0);
    assert.equal(existsSync(at("saved")), false);
    mkdirSync(at("empty"));
    for (const name of ["saved", "empty", "."]) assert.equal((await snapshot("delete", name)).status, 65, name);
    assert.ok(existsSync(at("empty")));
  });

  it("other disks and sockets of the host in place of its own; a disk that has changed is refused", async () => {
    writeFileSync(at("disk.img"), Buffer.alloc(2 ** 20, 7));
    const devices = ["--disk", "path=disk.img", "--vsock", "cid=3,path=v.sock"];
    const vm = await counts(bootWords(counting.path, ...devices, "--control", "d.sock"), { cwd: folder });
    assert.equal((await snapshot("create", "d.sock", "devices")).status, 0);
    const shown = await snapshot("inspect", "devices");
    assert.match(shown.stdout, /^vda +disk, \/.*\/disk\.img, not in use$/m);
    assert.match(shown.stdout, /^vsock0 +sockets, \/.*\/v\.sock, not in use$/m);
    // The guest that was saved has both.
    const taken = await snapshot("restore", "devices");
    assert.equal(taken.status, 65, taken.stderr);
    assert.match(taken.stderr, /disk\.img: /);
    copyFileSync(at("disk.img"), at("copy.img"));
    const other = [...["restore", "devices", "--disk", "vda=copy.img"], "--vsock", "path=w.sock,cid=7"];
    const clone = await counts([PROGRAM, "snapshot", ...other], { cwd: folder });
    assert.ok(existsSync(at("v.sock")) && existsSync(at("w.sock")));
    for (const running of [clone, vm]) {
      running.child.kill("SIGTERM");
      assert.equal((await running.ended).status, 143);
    }
    const again = await counts([PROGRAM, "snapshot", "restore", "devices"], { cwd: folder });
    again.child.kill("SIGTERM");
    await again.ended;
    writeFileSync(at("disk.img"), Buffer.alloc(2 ** 20, 8));
    const changed = await snapshot("restore", "devices");
    assert.equal(changed.status, 65, changed.stderr);
    assert.match(changed.stderr, /disk\.img/);
    rmSync(at("disk.img"));
    const gone = await snapshot("restore", "devices");
    assert.equal(gone.status, 65, gone.stderr);
    assert.match(gone.stderr, /disk\.img: no such file/);
    assert.ok(!existsSync(at("v.sock")));
  });

  it("where there is no /dev/kvm, one error says so", async function () {
    if (process.geteuid?.() !== 0) skip(this, "only root can take the device away");
    const script = 'mount --bind /dev/null /dev/kvm && exec "$0" snapshot restore last';
    const { status, stderr } = await run(["unshare", "-m", "sh", "-c", script, PROGRAM], { cwd: folder });
    assert.equal(status, 69, stderr);
    assert.match(stderr, /\/dev\/kvm/);
  });

  it("what cannot be is one error with its reason, and the guest goes on", async () => {
    const vm = await counts(bootWords(counting.path, "--control", at("vm.sock")));
    writeFileSync(at("file"), "mine");
    const wrong: [words: string[], status: number, reason: RegExp][] = [
      [[], 64, /give one of create, restore, receive, inspect, delete/],
      [["make"], 64, /unknown "make"/],
      [["create", "vm.sock"], 64, /give SOCKET, that of --control, and FOLDER/],
      [["create", "none.sock", "x"], 69, /none\.sock: nobody answers/],
      [["create", "vm.sock", "file"], 65, /file: not a folder/],
      [["create", "vm.sock", "."], 65, /holds what is no part of a snapshot/],
      [["restore", "none"], 65, /none: no such file or folder/],
      [["restore", "file"], 65, /file: not a folder/],
      [["restore", "empty"], 65, /empty: holds no snapshot: there is no state\.json/],
      [["restore", "last", "--disk", "vda=x"], 65, /The saved guest has no disk "vda"; it has no disk/],
      [["restore", "last", "--disk", "x"], 64, /--disk x: not NAME=PATH/],
      [["restore", "last", "--vsock", "path=x"], 65, /The saved guest has no socket device/],
      [["restore", "last", "--net", "net0=tap=tap7"], 65, /has no network device "net0"/],
      [["restore", "last", "--report", "last/state.json"], 65, /--report last\/state\.json: the same file as/],
      [["inspect"], 64, /give one FOLDER/],
      [["inspect", "empty"], 65, /holds no snapshot/],
      [["cpu-template"], 64, /give one HOST or more/],
      [["cpu-template", "none.json"], 65, /none\.json: no such file or folder/],
      [["cpu-template", "file"], 65, /file: no JSON; write it with: vmlet doctor --json/],
    ];
    for (const [words, status, reason] of wrong) {
      const result = await snapshot(...words);
      assert.equal(result.status, status, `${words.join(" ")}: ${result.stderr}`);
      assert.match(result.stderr, reason);
      assert.equal(result.stdout, "");
    }
    assert.equal(vm.child.exitCode, null);
    assert.equal(readFileSync(at("file"), "utf8"), "mine");
    vm.child.kill("SIGTERM");
    const { status, stdout } = await vm.ended;
    assert.equal(status, 143);
    assertCounts(stdout, 1);
  });
});
