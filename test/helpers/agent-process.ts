// The guest's agent as a process of this host, and raw frames to it: docs/agent-protocol.md.
import assert from "node:assert/strict";
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { join } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import {
  HELLO,
  PING,
  PONG,
  DONE,
  FAILED,
  CANCEL,
  DATA,
  DATA2,
  END,
  CREDIT,
  CLOSED,
  EXEC,
  STARTED,
  SIGNAL,
  RESIZE,
} from "../../vmm/agent/frames.js";

const MAGIC = 0x414c4d56;
const HEADER = 12;
const FRAME_LIMIT_MS = 20_000;

export { HELLO, PING, PONG, DONE, FAILED, CANCEL, DATA, DATA2, END, CREDIT, CLOSED, EXEC, STARTED, SIGNAL, RESIZE };

export interface Frame {
  readonly type: number;
  readonly stream: number;
  readonly payload: Buffer;
}

export interface Result {
  readonly output: Buffer;
  readonly error: Buffer;
  /** Types in their order, DATA and CREDIT left out. */
  readonly types: readonly number[];
  /** Payload of the last frame. */
  readonly last: Buffer;
}

/** Builds the agent in `folder`; needs gcc. */
export function buildAgent(folder: string): string {
  const path = join(folder, "init");
  const options = ["-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-fno-stack-protector"];
  const more = ["-fno-pie", "-fcf-protection=none", "-nostdlib", "-static", "-no-pie"];
  execFileSync("gcc", [...options, ...more, "-o", path, "guest/init/init.c"]);
  return path;
}

export function frame(stream: number, type: number, payload: Uint8Array = new Uint8Array()): Buffer {
  const head = Buffer.alloc(HEADER);
  head.writeUInt32LE(payload.length, 0);
  head.writeUInt32LE(stream, 4);
  head[8] = type;
  return Buffer.concat([head, payload]);
}

/** Numbers of 4 bytes, bigints of 8, strings with a NUL behind them. */
export function pack(...values: readonly (number | bigint | string | Uint8Array)[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      if (value instanceof Uint8Array) return value;
      if (typeof value === "string") return Buffer.from(`${value}\0`, "latin1");
      const bytes = Buffer.alloc(typeof value === "bigint" ? 8 : 4);
      if (typeof value === "bigint") bytes.writeBigUInt64LE(value);
      else bytes.writeUInt32LE(value >>> 0);
      return bytes;
    }),
  );
}

export function credit(which: number, bytes: number): Buffer {
  return pack(which, bytes);
}

export interface Exec {
  readonly flags?: number;
  readonly rows?: number;
  readonly columns?: number;
  readonly folder?: string;
  readonly user?: string;
  readonly variables?: readonly string[];
  readonly groups?: readonly number[];
  readonly limits?: readonly (readonly [resource: number, soft: bigint, hard: bigint])[];
}

export function exec(command: readonly string[], options: Exec = {}): Buffer {
  const {
    flags = 0,
    rows = 0,
    columns = 0,
    folder = "",
    user = "",
    variables = [],
    groups = [],
    limits = [],
  } = options;
  return pack(
    ...[flags, (columns << 16) | rows, command.length, variables.length, groups.length, limits.length],
    ...limits.flatMap(([resource, soft, hard]) => [resource, 0, soft, hard]),
    ...groups,
    ...[folder, user, ...command, ...variables],
  );
}

export class AgentProcess {
  readonly child: ChildProcess;
  nonce = 0;
  #bytes = Buffer.alloc(0);
  #hasEnded = false;
  #wake: (() => void) | undefined;

  constructor(path: string) {
    this.child = spawn(path, ["agent", "0", "1"], { stdio: ["pipe", "pipe", "inherit"] });
    this.child.stdin?.on("error", () => undefined);
    this.child.stdout?.on("data", (piece: Buffer) => {
      this.#bytes = Buffer.concat([this.#bytes, piece]);
      this.#wake?.();
    });
    this.child.stdout?.on("end", () => {
      this.#hasEnded = true;
      this.#wake?.();
    });
  }

  write(bytes: Uint8Array): void {
    this.child.stdin?.write(bytes);
  }

  send(stream: number, type: number, payload?: Uint8Array): void {
    this.write(frame(stream, type, payload));
  }

  async next(): Promise<Frame> {
    const limit = timeLimit("a frame of the agent", FRAME_LIMIT_MS);
    const end = Date.now() + limit;
    for (;;) {
      const length = this.#bytes.length >= HEADER ? this.#bytes.readUInt32LE(0) : Infinity;
      if (this.#bytes.length >= HEADER + length) {
        const [stream, type] = [this.#bytes.readUInt32LE(4), this.#bytes.readUInt32LE(8)];
        const payload = this.#bytes.subarray(HEADER, HEADER + length);
        this.#bytes = this.#bytes.subarray(HEADER + length);
        return { stream, type, payload };
      }
      if (this.#hasEnded) throw new Error("the agent has ended");
      if (Date.now() >= end) throw new Error("the agent says nothing");
      await this.#wait(end - Date.now());
    }
  }

  /** What has come within a moment: nothing, if all is as it should be. */
  async silence(ms = 300): Promise<number> {
    const end = Date.now() + ms;
    while (Date.now() < end && this.#bytes.length === 0) await this.#wait(end - Date.now());
    return this.#bytes.length;
  }

  /** Credit may come before or behind anything; other frames are in order. */
  async nextBut(type: number): Promise<Frame> {
    for (;;) {
      const got = await this.next();
      if (got.type !== type) return got;
    }
  }

  async hello(): Promise<void> {
    const { type, stream, payload } = await this.nextBut(CREDIT);
    assert.deepEqual([type, stream, payload.length], [HELLO, 0, 16]);
    assert.deepEqual([payload.readUInt32LE(0), payload.readUInt16LE(4), payload.readUInt32LE(8)], [MAGIC, 2, 256]);
    this.nonce = payload.readUInt32LE(12);
  }

  answer(nonce = this.nonce, version = 2): void {
    this.send(0, HELLO, pack(MAGIC, version, 0, nonce));
  }

  async begin(): Promise<this> {
    await this.hello();
    this.answer();
    return this;
  }

  /** Everything of one stream until its end; `gives` as much credit as it takes. */
  async finish(stream: number, gives = true): Promise<Result> {
    const output: Buffer[] = [];
    const error: Buffer[] = [];
    const types: number[] = [];
    for (;;) {
      const got = await this.next();
      assert.equal(got.stream, stream);
      if (got.type === DATA || got.type === DATA2) {
        (got.type === DATA ? output : error).push(Buffer.from(got.payload));
        if (gives) this.send(stream, CREDIT, credit(got.type === DATA ? 1 : 2, got.payload.length));
        continue;
      }
      if (got.type !== CREDIT) types.push(got.type);
      if (got.type === DONE || got.type === FAILED)
        return { output: Buffer.concat(output), error: Buffer.concat(error), types, last: Buffer.from(got.payload) };
    }
  }

  async run(command: readonly string[], options?: Exec, input?: string): Promise<Result> {
    this.send(1, EXEC, exec(command, options));
    if (input !== undefined) this.send(1, DATA, Buffer.from(input, "latin1"));
    this.send(1, END);
    return this.finish(1);
  }

  async request(type: number, payload?: Uint8Array): Promise<Result> {
    this.send(9, type, payload);
    return this.finish(9);
  }

  /** Ends it as a host that goes; its exit status. */
  async close(): Promise<number | null> {
    this.child.stdin?.end();
    if (this.child.exitCode !== null) return this.child.exitCode;
    return new Promise((resolve) => this.child.once("exit", resolve));
  }

  #wait(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
