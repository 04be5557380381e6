// Needs: nothing. The other end of an AgentConnection, played by a test: an honest agent, or a hostile one.
import { DONE, encodeFrame, END, FrameDecoder, HELLO, STARTED } from "../../vmm/agent/frames.js";
import { encodeHello } from "../../vmm/agent/hello.js";
import type { AgentTransport } from "../../vmm/agent/transport.js";

export interface SentFrame {
  readonly stream: number;
  readonly type: number;
  readonly payload: Buffer;
}

export class AgentPeer implements AgentTransport {
  onBytes: AgentTransport["onBytes"];
  onDrain: AgentTransport["onDrain"];
  onClose: AgentTransport["onClose"];
  /** What the host has sent, as frames. */
  readonly frames: SentFrame[] = [];
  /** The transport takes no more. */
  isFull = false;
  isClosed = false;
  bytesWritten = 0;
  readonly #decoder = new FrameDecoder((stream, type, payload) => {
    this.frames.push({ stream, type, payload: Buffer.from(payload) });
    this.onFrame?.(stream, type, payload);
  });
  /** Called for each frame of the host, in a later turn than its write. */
  onFrame: ((stream: number, type: number, payload: Buffer) => void) | undefined;

  write(bytes: Uint8Array): boolean {
    this.bytesWritten += bytes.length;
    this.#decoder.push(Buffer.from(bytes));
    return !this.isFull;
  }

  close(): void {
    this.isClosed = true;
  }

  /** The transport takes more again. */
  drain(): void {
    this.isFull = false;
    this.onDrain?.();
  }

  hello(nonce = 7, streams = 256): void {
    this.send(0, HELLO, encodeHello({ streams, nonce }));
  }

  send(stream: number, type: number, payload?: Uint8Array): void {
    this.raw(encodeFrame(stream, type, payload));
  }

  raw(bytes: Uint8Array): void {
    this.onBytes?.(bytes);
  }

  started(stream: number, pid = 42): void {
    this.send(stream, STARTED, u32(pid));
  }

  /** The ends of both outputs, and of the command. */
  exit(stream: number, code = 0, signal = 0, outputs = 2): void {
    this.send(stream, END);
    if (outputs === 2) this.send(stream, END, Buffer.from([2]));
    this.send(stream, DONE, u32(code, signal, 0));
  }

  /** Frames of one type. */
  sent(type: number): SentFrame[] {
    return this.frames.filter((frame) => frame.type === type);
  }

  /** The host's last frame. */
  get last(): SentFrame {
    const frame = this.frames.at(-1);
    if (frame === undefined) throw new Error("The host has sent nothing");
    return frame;
  }
}

export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  values.forEach((value, index) => bytes.writeUInt32LE(value >>> 0, index * 4));
  return bytes;
}

/** Lets all that is due happen. */
export function turns(count = 3): Promise<void> {
  return new Promise((resolve) => {
    const step = (left: number): void => {
      if (left === 0) resolve();
      else setImmediate(step, left - 1);
    };
    step(count);
  });
}
