// Makes dist/cli.cache, what V8 has made of dist/cli.js, so that a start need not. Run by bundle.mjs,
// with the flags that dist/vmlet.js's first line gives Node, or V8 would refuse it later.
//   code-cache.mjs WHICH [FILE [PROGRAM]]; FILE in place of dist/cli.cache, PROGRAM in place of dist/cli.js, WHICH is
//   all     every function: right anywhere, and the longer the program grows the longer to read
//   booted  those that a boot calls, which is what is waited for: boots a guest of five instructions as a user boots
//           the package's own, with nothing but a command; in the jail, whose seal is part of the start for those who ask for it
//   restored  the same for a guest that goes on from a template
//   api       those that such a guest needs whose client starts it by Firecracker's interface: of both parts of the program
//   run       those that `vmlet run` calls whose program goes on from a template of its own, in the jail
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setFlagsFromString } from "node:v8";
import { Script } from "node:vm";

const CACHE = process.argv[3] ?? "dist/cli.cache";
/** vmm/host/exit-codes.ts, EXIT_REBOOT. */
const REBOOTED = 100;
/** vmm/cli/vms/entry.ts, EXIT_OWN_FAILURE: the guest has ended, and nothing in it has answered. */
const UNANSWERED = 125;
/** Those before the last make a template, and a template of the program. */
const RUNS = 3;
/** `ms` */
const TURN_MS = 30_000;
/** `bytes` of a kernel and an initramfs: large ones are read by another thread, into huge pages. */
const LARGE = 4 * 2 ** 20;

const filename = resolve(process.argv[4] ?? "dist/cli.js");
const read = (file) =>
  `(function(exports,require,module,__filename,__dirname,parts){${readFileSync(file, "latin1")}\n})`;
const source = read(filename);

/** `as`: a path, or the descriptor of an empty file. */
function save(script, { of = source, as = CACHE } = {}) {
  const cachedData = script.createCachedData();
  if (new Script(of, { filename, cachedData }).cachedDataRejected) throw new Error("V8 refuses its own code cache");
  writeFileSync(as, cachedData);
}

const OPEN = 0x10;
const SAVE = 0x00;

/**
 * An ELF kernel with a PVH note. With OPEN it opens the command's channel, with SAVE it says that a template may be taken
 * (devices/pseudo/): mov dword [0xc0100014], 1; mov dword [0xc0000014], 1. Then it asks the i8042 for a reset: mov
 * al, 0xfe; out 0x64, al; jmp to itself.
 */
function tinyKernel(pages) {
  const entry = 0x100_0000;
  const told = pages.flatMap((page) => [0xc7, 0x05, 0x14, 0x00, page, 0xc0, 0x01, 0x00, 0x00, 0x00]);
  const code = [...told, 0xb0, 0xfe, 0xe6, 0x64, 0xeb, 0xfe];
  const bytes = Buffer.alloc(0x1000 + LARGE);
  bytes.write("\x7fELF\x02\x01\x01", "latin1");
  bytes.writeUInt16LE(2, 16); // ET_EXEC
  bytes.writeUInt16LE(62, 18); // EM_X86_64
  bytes.writeUInt32LE(1, 20);
  bytes.writeBigUInt64LE(BigInt(entry), 24);
  bytes.writeBigUInt64LE(64n, 32); // e_phoff
  bytes.writeUInt16LE(64, 52);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(2, 56); // e_phnum
  const header = (at, type, offset, size) => {
    bytes.writeUInt32LE(type, at);
    bytes.writeUInt32LE(5, at + 4);
    bytes.writeBigUInt64LE(BigInt(offset), at + 8);
    for (const field of [16, 24]) bytes.writeBigUInt64LE(BigInt(entry), at + field);
    for (const field of [32, 40]) bytes.writeBigUInt64LE(BigInt(size), at + field);
  };
  header(64, 1, 0x1000, LARGE); // PT_LOAD
  header(120, 4, 176, 24); // PT_NOTE: XEN_ELFNOTE_PHYS32_ENTRY
  for (const [index, word] of [4, 8, 18].entries()) bytes.writeUInt32LE(word, 176 + 4 * index);
  bytes.write("Xen\0", 188, "latin1");
  bytes.writeUInt32LE(entry, 192);
  bytes.set(code, 0x1000);
  return bytes;
}

/** An initramfs without a file: the entry that ends every archive, in cpio's "newc" form. */
function emptyArchive() {
  const name = "TRAILER!!!";
  const fields = Array(13).fill("00000000");
  fields[11] = (name.length + 1).toString(16).padStart(8, "0"); // c_namesize
  return Buffer.from(`070701${fields.join("")}${name}`.padEnd(LARGE, "\0"), "latin1");
}

/** A checkout with a guest of its own: the same in every turn. */
function makeGuest(folder, pages) {
  if (existsSync(join(folder, "Makefile"))) return;
  for (const kind of ["default", "fast"]) {
    mkdirSync(join(folder, "guest/out", kind), { recursive: true });
    writeFileSync(join(folder, "guest/out", kind, "vmlinux"), tinyKernel(pages));
  }
  for (const name of ["initramfs", "tiny"]) writeFileSync(join(folder, `guest/out/${name}.cpio`), emptyArchive());
  writeFileSync(join(folder, "Makefile"), "");
}

/** Ends this process, with status 0 if the guest has run and the cache is made. `pages`: what its kernel does. */
function boot(
  folder,
  pages,
  words,
  { expected = REBOOTED, saves = true, program = "dist/vmlet.js", jailed = false } = {},
) {
  makeGuest(folder, pages);
  // In the jail no file is opened any more.
  const as = saves && jailed ? openSync(CACHE, "w") : CACHE;
  const script = new Script(source, { filename });
  const later = {
    file: filename.replace(/\.js$/, "-vm.js"),
    cache: CACHE.replace(/\.cache$/, "-vm.cache"),
    script: undefined,
  };
  // A boot ends by _exit(2), behind which nothing runs: it comes here instead.
  const { dlopen } = process;
  process.dlopen = (module, ...rest) => {
    dlopen.call(process, module, ...rest);
    const native = module.exports;
    const exit = (status) => {
      if (status === expected && saves) {
        if (later.script !== undefined) save(later.script, { of: read(later.file), as: later.cache });
        else save(script, { as });
      }
      process.exit(status === expected ? 0 : 1);
    };
    module.exports = {
      ...native,
      load: (path) => {
        const library = native.load(path);
        return {
          func: (name, ...prototype) => (name === "_exit" ? exit : library.func(name, ...prototype)),
          symbol: (name) => library.symbol(name),
        };
      },
    };
  };
  process.env.VMLET_CACHE = join(folder, "cache");
  process.env.VMLET_STATE = join(folder, "state");
  process.argv = [process.execPath, resolve(program), ...words];
  const run = (part, file) => {
    const module = { exports: {} };
    part.runInThisContext()(module.exports, createRequire(file), module, file, join(folder, "dist"), parts);
    return module.exports;
  };
  // The second part of a program that has two. The first one's cache is what an answer needs.
  const load = () => {
    save(script);
    later.script = new Script(read(later.file), { filename: later.file });
    return run(later.script, later.file);
  };
  const parts = { load };
  run(script, filename);
}

/** As a client does, from its first question to the guest's start. */
async function useApi(socket, folder) {
  const kernel = join(folder, "guest/out/fast/vmlinux");
  const disk = join(folder, "disk");
  writeFileSync(disk, Buffer.alloc(4096));
  const requests = [
    ["GET", "/", undefined],
    ["GET", "/machine-config", undefined],
    ["PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: 128, smt: false }],
    ["PUT", "/boot-source", { kernel_image_path: kernel, boot_args: "console=ttyS0" }],
    ["PUT", "/drives/root", { drive_id: "root", path_on_host: disk, is_root_device: true, is_read_only: false }],
    ["PUT", "/logger", { log_path: join(folder, "log"), level: "Info" }],
    ["PUT", "/metrics", { metrics_path: join(folder, "metrics") }],
    ["PUT", "/vsock", { guest_cid: 3, uds_path: join(folder, "vsock") }],
    ["PUT", "/balloon", { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 1 }],
    ["PUT", "/entropy", {}],
    ["GET", "/vm/config", undefined],
    ["PUT", "/nowhere", {}],
    // What waits for the first answer is loaded by now.
    undefined,
    ["PUT", "/actions", { action_type: "InstanceStart" }],
  ];
  for (const request of requests) {
    await new Promise((resolve) => setTimeout(resolve, request === undefined ? 300 : 10));
    if (request === undefined) continue;
    const [method, path, body] = request;
    const text = body === undefined ? "" : JSON.stringify(body);
    await new Promise((resolve) => {
      const client = connect(socket, () => {
        client.write(`${method} ${path} HTTP/1.1\r\nContent-Length: ${text.length}\r\n\r\n${text}`);
      });
      client.once("data", () => client.end());
      client.once("error", resolve);
      client.once("close", resolve);
    });
  }
  setTimeout(() => process.exit(1), 10_000);
}

/** A folder that goes with this process. */
function newFolder() {
  const folder = mkdtempSync(join(tmpdir(), "vmlet-build-"));
  process.on("exit", () => rmSync(folder, { recursive: true }));
  return folder;
}

const KVM = ["--accel", "kvm"];

/** Starts this again by the launcher, as the shell's line of the program starts Node: the case `which`, of a command with those words. */
function inJail(which, words, command) {
  const own = [process.execPath, ...process.execArgv, process.argv[1], which, CACHE, filename, ...words];
  return spawnSync("dist/vmlet-jailer", ["around", ...own, "--", "", ...command], {
    stdio: ["ignore", "ignore", "pipe"],
    encoding: "utf8",
    timeout: TURN_MS,
  });
}

/** In the jail, where the host has one: what a start needs there is all that it needs anywhere, and the seal. */
function bootWithSeal(which, pages, words) {
  const ASKED = ["boot", "--jail", "on"];
  const [given] = process.argv.slice(5);
  // Whoever is in the jail cannot remove it.
  const folder = given ?? newFolder();
  if (given !== undefined) boot(folder, pages, [...ASKED, ...words], { jailed: true });
  else if (inJail(which, [folder], ASKED).status !== 0) boot(folder, pages, ["boot", ...words]);
}

switch (process.argv[2]) {
  case "booted":
    bootWithSeal("booted", [], [...KVM, "--", "true"]);
    break;
  case "restored":
    bootWithSeal("restored", [OPEN, SAVE], [...KVM, "--from-template", "--", "true"]);
    break;
  case "api": {
    const folder = newFolder();
    const socket = join(folder, "api.sock");
    const program = "dist/vmlet-firecracker.js";
    boot(folder, [], ["--api-sock", socket, "--log-path", join(folder, "log")], { expected: 0, program });
    void useApi(socket, folder);
    break;
  }
  case "run": {
    const folder = newFolder();
    // An image that has been unpacked: what a start finds in its cache.
    mkdirSync(join(folder, "state"));
    writeFileSync(join(folder, "image.tar"), Buffer.alloc(1024));
    for (let turn = 1; turn <= RUNS; turn++) {
      const { status, stderr } = inJail("turn", [folder, turn === RUNS ? "save" : ""], ["run"]);
      if (status !== 0) throw new Error(`Run ${turn} has ended with ${status}: ${stderr}`);
    }
    const templates = readdirSync(join(folder, "cache/templates"), { recursive: true });
    if (templates.filter((path) => path.endsWith("/state.json")).length !== 2) throw new Error("No program was held");
    break;
  }
  case "turn": {
    const [folder, how] = process.argv.slice(5);
    // The second time, its program is held where the template's guest says that another may be taken.
    boot(folder, [OPEN, SAVE, SAVE], ["run", "--quiet", join(folder, "image.tar"), "true"], {
      expected: UNANSWERED,
      saves: how === "save",
      jailed: true,
    });
    break;
  }
  default: {
    setFlagsFromString("--no-lazy");
    const script = new Script(source, { filename });
    setFlagsFromString("--lazy");
    save(script);
  }
}
