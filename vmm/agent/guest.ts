// The guest itself: its ports, its identity, its mounts, its processes and memory, its end.
import { AgentError, ConfigError, GuestRequestError } from "../errors.js";
import { limitedSignal } from "./abort.js";
import type { AgentConnection } from "./connection.js";
import type { GuestFiles } from "./files.js";
import * as frames from "./frames.js";
import { bytesOf, pathBytes, shown, withNul, type GuestBytes } from "./guest-bytes.js";
import { parseMemory, parseProcess, type GuestMemory, type GuestProcessInfo } from "./proc-files.js";
import { ask, type RequestOptions } from "./request.js";

export interface WaitPortOptions extends RequestOptions {
  /** Rejects with GuestRequestError (ETIMEDOUT) when this is over, `ms`; otherwise it waits for as long as it takes. */
  readonly timeoutMs?: number;
  /** Between two tries, `ms`. */
  readonly intervalMs?: number;
}

/** What makes a guest another one than that whose snapshot it goes on from. */
export interface Identity {
  /** For the kernel's pool of randomness, which is seeded anew; 32 bytes. */
  readonly seed?: Uint8Array;
  /** For the clock, nanoseconds since 1970. */
  readonly timeNs?: bigint;
  readonly hostname?: string;
}

export interface MountOptions extends RequestOptions {
  /** MS_… of mount(2). */
  readonly flags?: number;
  /** For the file system: "size=64m". */
  readonly data?: string;
}

const ETIMEDOUT = 110;
const SEED_BYTES = 32;
const MAX_HOSTNAME = 64;
const INTERVAL_MS = 20;
const SEED = 1;
const CLOCK = 2;
const HOSTNAME = 4;
/** Files of /proc are read whole. */
const MAX_PROC = 65_536;
/** Processes that are looked at at once. */
const AT_ONCE = 16;

export class GuestControl {
  readonly #connection: AgentConnection;
  readonly #files: GuestFiles;

  constructor(connection: AgentConnection, files: GuestFiles) {
    this.#connection = connection;
    this.#files = files;
  }

  /** Until a program of the guest listens at a TCP port, on 127.0.0.1 or ::1. */
  async waitForPort(port: number, options: WaitPortOptions = {}): Promise<void> {
    const { timeoutMs, intervalMs = INTERVAL_MS, signal } = options;
    checkNumber("port", port, 1, 65_535);
    checkNumber("intervalMs", intervalMs, 1, 2 ** 31 - 1);
    if (timeoutMs !== undefined) checkNumber("timeoutMs", timeoutMs, 1, 2 ** 31 - 1);
    const payload = Buffer.alloc(8);
    payload.writeUInt16LE(port, 0);
    payload.writeUInt32LE(intervalMs, 4);
    const what = `wait for port ${String(port)}`;
    const limit = limitedSignal(signal, timeoutMs, (ms) => {
      return new GuestRequestError(what, ETIMEDOUT, "ETIMEDOUT", `nobody listens there after ${String(ms)} ms`);
    });
    try {
      await ask(this.#connection, frames.WAIT_PORT, payload, what, { signal: limit.signal });
    } finally {
      limit.done();
    }
  }

  async setIdentity({ seed, timeNs, hostname }: Identity, options: RequestOptions = {}): Promise<void> {
    if (seed !== undefined && seed.length !== SEED_BYTES) {
      throw new ConfigError([`seed: ${String(seed.length)} bytes are not ${String(SEED_BYTES)}`]);
    }
    if (hostname !== undefined) checkText("hostname", hostname, MAX_HOSTNAME);
    const head = Buffer.alloc(24 + SEED_BYTES);
    const flags =
      (seed === undefined ? 0 : SEED) | (timeNs === undefined ? 0 : CLOCK) | (hostname === undefined ? 0 : HOSTNAME);
    head.writeUInt32LE(flags, 0);
    if (timeNs !== undefined) {
      head.writeBigUInt64LE(BigInt.asUintN(64, timeNs / 1_000_000_000n), 8);
      head.writeUInt32LE(Number(timeNs % 1_000_000_000n), 16);
    }
    if (seed !== undefined) head.set(seed, 24);
    const payload = Buffer.concat([head, withNul(hostname ?? "")]);
    await ask(this.#connection, frames.IDENTITY, payload, "set the identity", options);
  }

  /** Sets an interface up, in the words of the kernel's "ip=". */
  async setNetwork(ip: string, options: RequestOptions = {}): Promise<void> {
    checkText("network", ip, 1024);
    await ask(this.#connection, frames.NETWORK, withNul(ip), "set the network up", options);
  }

  /** Messages of rtnetlink(7), whole and answered (host/rtnetlink.ts); at the first one that the guest's kernel refuses it ends. */
  async changeNetwork(messages: readonly Uint8Array[], options: RequestOptions = {}): Promise<void> {
    const payload = Buffer.concat(messages);
    if (payload.length > frames.MAX_PAYLOAD) {
      throw new ConfigError([`messages: ${String(payload.length)} bytes are more than ${String(frames.MAX_PAYLOAD)}`]);
    }
    await ask(this.#connection, frames.NETLINK, payload, "change the network", options);
  }

  /** What the guest has written is on its disks then. */
  async sync(options: RequestOptions = {}): Promise<void> {
    await ask(this.#connection, frames.SYNC, Buffer.alloc(0), "sync", options);
  }

  /** Ends the guest; resolves once the connection is over. Its exit status is the VM's. */
  async powerOff(exitStatus = 0): Promise<void> {
    checkNumber("exitStatus", exitStatus, 0, 255);
    const payload = Buffer.alloc(4);
    payload.writeUInt32LE(exitStatus, 0);
    if (this.#connection.error !== undefined) throw this.#connection.error;
    try {
      await ask(this.#connection, frames.POWER_OFF, payload, "power off");
    } catch (error) {
      // No answer belongs to it: the connection's end is one.
      if (!(error instanceof AgentError) || (error.reason !== "gone" && error.reason !== "closed")) throw error;
    }
  }

  /** The target is made if it is not there. */
  async mount(source: GuestBytes, target: GuestBytes, type: string, options: MountOptions = {}): Promise<void> {
    const { flags = 0, data = "" } = options;
    for (const [name, text] of Object.entries({ source, type, data })) checkText(name, text, 4095);
    const head = Buffer.alloc(4);
    head.writeUInt32LE(flags >>> 0, 0);
    const payload = Buffer.concat([head, ...[source, pathBytes(target), type, data].map(withNul)]);
    await ask(this.#connection, frames.MOUNT, payload, `mount ${shown(source)} at ${shown(target)}`, options);
  }

  /** `flags`: MNT_… of umount2(2). */
  async umount(target: GuestBytes, options: RequestOptions & { readonly flags?: number } = {}): Promise<void> {
    const head = Buffer.alloc(4);
    head.writeUInt32LE((options.flags ?? 0) >>> 0, 0);
    const payload = Buffer.concat([head, withNul(pathBytes(target))]);
    await ask(this.#connection, frames.UMOUNT, payload, `unmount ${shown(target)}`, options);
  }

  /** What runs in the guest, by process id. One that ends meanwhile is left out. */
  async processes(options: RequestOptions = {}): Promise<GuestProcessInfo[]> {
    const entries = await this.#files.list("/proc", options);
    const pids = entries.flatMap(({ name }) => (/^[1-9]\d{0,9}$/.test(name) ? [Number(name)] : []));
    const found: GuestProcessInfo[] = [];
    const read = (path: string): Promise<Buffer> => this.#files.read(path, { ...options, maxBytes: MAX_PROC });
    const look = async (): Promise<void> => {
      for (let pid = pids.shift(); pid !== undefined; pid = pids.shift()) {
        const folder = `/proc/${String(pid)}`;
        const parts = await Promise.all(["stat", "status", "cmdline"].map((name) => read(`${folder}/${name}`))).catch(
          (error: unknown) => {
            options.signal?.throwIfAborted();
            if (this.#connection.error !== undefined) throw error;
            return undefined;
          },
        );
        const [stat, status, cmdline] = parts ?? [];
        const one = stat && status && cmdline ? parseProcess(pid, stat, status, cmdline) : undefined;
        if (one !== undefined) found.push(one);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, look));
    return found.sort((a, b) => a.pid - b.pid);
  }

  /** The guest's memory as its kernel counts it. */
  async memory(options: RequestOptions = {}): Promise<GuestMemory> {
    return parseMemory(await this.#files.readText("/proc/meminfo", { ...options, maxBytes: MAX_PROC }));
  }
}

function checkNumber(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new ConfigError([`${name}: ${String(value)} is not a number from ${String(min)} to ${String(max)}`]);
  }
}

function checkText(name: string, text: GuestBytes, maxBytes: number): void {
  const bytes = bytesOf(text);
  if (bytes.includes(0) || bytes.length > maxBytes) {
    throw new ConfigError([`${name}: ${shown(text).slice(0, 80)} has a NUL, or more than ${String(maxBytes)} bytes`]);
  }
}
