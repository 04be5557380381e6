// One end of a migration's connection: frames go out and come in, one after the other; every wait has an end.
import type { Socket } from "node:net";
import { SnapshotError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { encodeHead, FrameParser, KINDS, ProtocolError, type Frame, type FrameKind, type Side } from "./frames.js";

/** What has come and nobody has taken yet; above it, the other end waits: `bytes`. */
const MAX_WAITING_BYTES = 8 * 2 ** 20;
const NOTHING = Buffer.alloc(0);
const SHOWN_REASON = 500;

/** The other end gave a reason. */
export class RefusedError extends SnapshotError {}

export class MigrationConnection {
  /** The other end has closed it in order: all that it has ever sent has come. */
  hasEnded = false;
  readonly #socket: Socket;
  /** In front of messages. */
  readonly #name: string;
  readonly #waiting: Frame[] = [];
  #waitingBytes = 0;
  #sent = 0;
  /** Why nothing comes or goes any more. */
  #failure: SnapshotError | undefined;
  #wakes: (() => void)[] = [];

  /** `peer`: which side the other end is. */
  constructor(socket: Socket, peer: Side, name: string) {
    this.#socket = socket;
    this.#name = name;
    const parser = new FrameParser(peer, (frame) => {
      this.#waiting.push(frame);
      this.#waitingBytes += frame.payload.length;
      if (this.#waitingBytes > MAX_WAITING_BYTES) socket.pause();
    });
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => {
      if (this.#failure !== undefined) return;
      try {
        parser.push(chunk);
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.#fail(error.message);
      }
      this.#wake();
    });
    socket.on("drain", () => {
      this.#wake();
    });
    socket.on("end", () => {
      this.hasEnded = true;
      this.#fail("the other end has closed the connection");
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.#fail(`the connection is cut: ${errnoText(error.code ?? "")}`);
    });
    socket.on("close", () => {
      this.#fail("the connection is closed");
    });
  }

  /** Nothing comes or goes any more. */
  get isClosed(): boolean {
    return this.#socket.destroyed;
  }

  /** Resolves when there is room for more. Rejects with SnapshotError once the connection is gone. */
  async send(kind: FrameKind, payload: Uint8Array = NOTHING): Promise<void> {
    this.#checkOpen();
    this.#socket.cork();
    this.#socket.write(encodeHead(kind, payload, this.#sent++));
    if (payload.length > 0) this.#socket.write(payload);
    this.#socket.uncork();
    while (this.#socket.writableNeedDrain) {
      this.#checkOpen();
      await new Promise<void>((resolve) => this.#wakes.push(resolve));
    }
  }

  /** The same; resolves when the host's kernel has it. */
  async deliver(kind: FrameKind, payload: Uint8Array = NOTHING): Promise<void> {
    await this.send(kind, payload);
    if (this.#socket.writableLength === 0) return;
    await new Promise<void>((resolve) => this.#socket.write(NOTHING, () => resolve()));
  }

  /** The next frame, which is one of `expected`. Rejects with SnapshotError, RefusedError if it says why. */
  async receive(timeoutMs: number, ...expected: readonly FrameKind[]): Promise<Frame> {
    const end = performance.now() + timeoutMs;
    while (this.#waiting.length === 0) {
      if (this.#failure !== undefined) throw this.#failure;
      const left = end - performance.now();
      if (left <= 0) throw this.#failed(`no ${expected.join(" or ")} within ${String(Math.round(timeoutMs / 1000))} s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wakes.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    const frame = this.#waiting.shift();
    if (frame === undefined) throw new Error("A frame waits");
    this.#waitingBytes -= frame.payload.length;
    if (this.#waitingBytes <= MAX_WAITING_BYTES) this.#socket.resume();
    if (frame.kind === "refuse") throw this.#refused(frame.payload);
    if (!expected.includes(frame.kind)) throw this.#failed(`${frame.kind} comes where ${expected.join(" or ")} should`);
    return frame;
  }

  /** Says why it comes to nothing, and closes. */
  async refuse(reason: string): Promise<void> {
    const text = Buffer.from(reason).subarray(0, KINDS.refuse.maximum);
    if (this.#failure === undefined) {
      this.#socket.write(encodeHead("refuse", text, this.#sent++));
      this.#socket.write(text);
    }
    await this.end();
  }

  /** Closes it after what was sent. */
  async end(): Promise<void> {
    if (this.#socket.destroyed) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 1000);
      this.#socket.end(() => {
        clearTimeout(timer);
        resolve();
      });
    });
    this.#socket.destroy();
  }

  #checkOpen(): void {
    if (this.#failure === undefined) return;
    // What was said last may explain why the connection is gone.
    const refusal = this.#waiting.find(({ kind }) => kind === "refuse");
    throw refusal === undefined ? this.#failure : this.#refused(refusal.payload);
  }

  #refused(payload: Buffer): RefusedError {
    // Whoever it is, this goes to a terminal.
    const text = payload
      .toString("utf8")
      .replace(/[\p{Cc}\p{Cf}\ufffd]+/gu, " ")
      .slice(0, SHOWN_REASON);
    return new RefusedError(`${this.#name}: ${text === "" ? "refused without a reason" : text}`);
  }

  #failed(why: string): SnapshotError {
    return new SnapshotError(`${this.#name}: ${why}`);
  }

  #fail(why: string): void {
    this.#failure ??= this.#failed(why);
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#wakes.splice(0)) wake();
  }
}
