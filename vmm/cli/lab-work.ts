// The vmlet in the lab's saved state: it loads its code, boots a guest so that all of it is warm, and then waits for
// the one command that it will be. guest/lab/waiting.h is the other end. Whatever it does before the wait, every lab
// that starts from the state has done: nothing random, and nothing of this run.
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readSync, rmSync, writeSync } from "node:fs";
import { WriteStream } from "node:tty";
import { beginWork } from "../host/clock.js";
import { guestFile } from "../host/guest-files.js";
import { duplicateOnto } from "../sys/descriptors.js";
import { boot } from "./boot.js";

/** Descriptors that the agent gives. */
const WORK = 3;
const FIRST_PIPE = 4;
const STREAMS = [0, 1, 2] as const;
/** struct request: flags, a reserved byte, rows, columns, then how many words and variables there are. */
const REQUEST_LENGTH = 10;
const ARGC_AT = 6;
const ENVC_AT = 8;
/** vCPUs of each boot; more of them make the code no faster. The threads of the first stay for the guest that comes. */
const REHEARSALS = [2, 1] as const;
const REPORT = "/tmp/rehearsal.json";
/** As many as a double holds. */
const RANDOM_BYTES = 6;
const READY = "\n";

/** Waits, becomes the command, and gives its arguments. */
export async function takeWork(): Promise<readonly string[]> {
  try {
    await rehearse();
  } catch (error) {
    // The state then has no vmlet that waits, and whoever makes it says so.
    writeSync(WORK, (error as Error).message);
    process.exit(1);
  }
  // From here to the read's end, this process stands still in the state.
  writeSync(WORK, READY);
  const length = read(4).readUInt32LE(0);
  const message = read(length);
  beginWork();
  // The engine's own sequence is part of the state. OpenSSL's starts anew, because its clock has jumped (waiting.h).
  Math.random = () => randomBytes(RANDOM_BYTES).readUIntBE(0, RANDOM_BYTES) / 2 ** (8 * RANDOM_BYTES);
  return become(message);
}

/** What differs between hosts is their guest: without one, the code is only loaded. */
async function rehearse(): Promise<void> {
  const [kernel, initrd] = [guestFile("default/vmlinux"), guestFile("initramfs.cpio")];
  if (!existsSync(kernel) || !existsSync(initrd)) return;
  const guest = ["--accel", "kvm", "--quiet", "--report", REPORT, "--kernel", kernel, "--initrd", initrd];
  for (const cpus of REHEARSALS) {
    const status = await boot([...guest, "--cpus", String(cpus), "--", "true"], { isRehearsal: true });
    if (status !== 0) throw new Error(`The guest of the rehearsal has ended with ${String(status)}`);
  }
  rmSync(REPORT);
}

function read(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const count = readSync(WORK, bytes, at, length - at, null);
    if (count === 0) process.exit(0);
    at += count;
  }
  return bytes;
}

/** Streams, folder, environment: as if this program had been started now. */
function become(message: Buffer): readonly string[] {
  const end = message.indexOf(0);
  const terminal = message.toString("latin1", 0, end);
  const request = message.subarray(end + 1);
  const argc = request.readUInt16LE(ARGC_AT);
  const envc = request.readUInt16LE(ENVC_AT);
  const [folder = "/", ...words] = request.toString("utf8", REQUEST_LENGTH).split("\0");
  if (terminal === "") for (const fd of STREAMS) duplicateOnto(FIRST_PIPE + fd, fd);
  else {
    // A session without a terminal gets the first one that it opens.
    const fd = openSync(terminal, "r+");
    for (const stream of STREAMS) duplicateOnto(fd, stream);
    closeSync(fd);
    lookAtTerminal();
    writeSync(WORK, READY);
  }
  for (const fd of [WORK, ...STREAMS.map((stream) => FIRST_PIPE + stream)]) closeSync(fd);
  process.chdir(folder);
  for (const name of Object.keys(process.env)) Reflect.deleteProperty(process.env, name);
  for (const variable of words.slice(argc, argc + envc)) {
    const at = variable.indexOf("=");
    process.env[variable.slice(0, at)] = variable.slice(at + 1);
  }
  // Node, its options and this program's file come first.
  const script = words.slice(0, argc).findIndex((word) => word.endsWith(".js"));
  process.argv = [process.execPath, ...words.slice(script, argc)];
  return words.slice(script + 1, argc);
}

/** A thread of the rehearsal has made Node open standard output as it was then; this is what Node does with a terminal. */
function lookAtTerminal(): void {
  const stdout = new WriteStream(1) as WriteStream & { _refreshSize(): void };
  process.on("SIGWINCH", () => {
    stdout._refreshSize();
  });
  Object.defineProperty(process, "stdout", { configurable: true, enumerable: true, get: () => stdout });
}
