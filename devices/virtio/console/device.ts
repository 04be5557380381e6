// Console device with one port, hvc0 in a Linux guest. virtio 1.2 §5.3. Output goes to the host as
// fast as the host takes it and no faster; input waits in a bounded buffer for the guest's.
// Left out on purpose: several ports (VIRTIO_CONSOLE_F_MULTIPORT), emergency write.
import type { AccessSize } from "../../contracts.js";
import { base64, type StateReader } from "../../state.js";
import { DescriptorChain } from "../chain.js";
import { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_CONSOLE } from "../constants.js";
import { Reader, Writer } from "../cursor.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import { featureSet, hasFeature } from "../features.js";
import type { Queue } from "../queue.js";
import { serveQueue, Turn, type Step } from "../serve-queue.js";
import type { ConsoleHost } from "./backend.js";
import {
  CONSOLE_RECEIVEQ,
  CONSOLE_TRANSMITQ,
  VIRTIO_CONSOLE_CONFIG_COLS,
  VIRTIO_CONSOLE_CONFIG_LENGTH,
  VIRTIO_CONSOLE_CONFIG_ROWS,
  VIRTIO_CONSOLE_F_SIZE,
} from "./constants.js";
import { InputBuffer } from "./input-buffer.js";
import { readConsoleState, type ConsoleState } from "./state.js";

const QUEUE_SIZE = 64;
/** `bytes` of input that wait for the guest: a pasted page. */
export const CONSOLE_INPUT_BYTES = 16 * 1024;
/** `bytes` handed to the host in one piece. */
const PIECE_BYTES = 16 * 1024;
/** Ctrl-O: Linux's hvc takes it, on the kernel's own console, for a break, and two of them for the character. */
const BREAK = 0x0f;
/** Pieces and chains of one turn, together. */
const TURN = { steps: 64 };

export interface ConsoleSize {
  readonly columns: number;
  readonly rows: number;
}

export interface ConsoleDeviceOptions {
  /** Short instance name, such as "console0". */
  readonly name: string;
  readonly host: ConsoleHost;
  /** What the guest sees before the first `resize`. */
  readonly size?: ConsoleSize | undefined;
  /** The driver takes Ctrl-O for a break (hvc of Linux on the kernel's console): input doubles it. */
  readonly hasBreak?: boolean;
}

/** What exists between DRIVER_OK and reset. */
interface Session {
  readonly context: ActivationContext;
  readonly hasSize: boolean;
  readonly receive: Queue;
  readonly transmit: Queue;
  readonly reader: Reader;
  readonly writer: Writer;
  /** Output that is being sent: longer than a turn's worth, or the host wants no more for now. */
  readonly output: DescriptorChain;
}

export class ConsoleDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_CONSOLE;
  readonly offeredFeatures = featureSet(VIRTIO_CONSOLE_F_SIZE);
  readonly queueMaxSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly counters = {
    inputBytes: 0,
    outputBytes: 0,
    /** Input bytes that found no room when they came; they are offered again. */
    refusedInputBytes: 0,
    /** Times that the host wanted no more output for a while. */
    outputStops: 0,
    /** Buffers for input without a byte of room. */
    refused: 0,
  };
  readonly #host: ConsoleHost;
  readonly #config = new ConfigSpace(VIRTIO_CONSOLE_CONFIG_LENGTH);
  readonly #input = new InputBuffer(CONSOLE_INPUT_BYTES);
  #hasRefused = false;
  readonly #hasBreak: boolean;
  /** A break was sent, and the byte that says what it is for was not. */
  #isAfterBreak = false;
  #isOutputStopped = false;
  /** `output` holds a chain whose bytes have not all been sent. */
  #isSending = false;
  /** `bytes` of the next chain of output that were sent before the device was saved. */
  #sentBytes = 0;
  #session: Session | undefined;

  constructor({ name, host, size, hasBreak = false }: ConsoleDeviceOptions) {
    this.name = name;
    this.#hasBreak = hasBreak;
    this.#host = host;
    if (size !== undefined) this.#setSize(size);
  }

  /** Input from the host: how many bytes were taken. After a refusal `roomAvailable` comes. */
  receive(bytes: Uint8Array): number {
    const taken = this.#hasBreak ? this.#pushDoubled(bytes) : this.#input.push(bytes);
    if (taken < bytes.length) {
      this.#hasRefused = true;
      this.counters.refusedInputBytes += bytes.length - taken;
    }
    this.#session?.context.serve(CONSOLE_RECEIVEQ);
    return taken;
  }

  /** A break, if the driver knows one; dropped if there is no room, as on a real line. */
  receiveBreak(): void {
    if (!this.#hasBreak) return;
    this.#isAfterBreak = this.#input.push(Uint8Array.of(BREAK)) === 1;
    this.#session?.context.serve(CONSOLE_RECEIVEQ);
  }

  /** The host takes output again, after `transmit` has answered false. */
  outputReady(): void {
    this.#isOutputStopped = false;
    this.#session?.context.serve(CONSOLE_TRANSMITQ);
  }

  /** The terminal has another size now. */
  resize(size: ConsoleSize): void {
    this.#setSize(size);
    if (this.#session?.hasSize === true) this.#session.context.configChanged();
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {
    // Only the emergency write would be the driver's, which is not offered.
  }

  activate(context: ActivationContext): void {
    const { memory, features } = context;
    const receive = context.queues[CONSOLE_RECEIVEQ];
    const transmit = context.queues[CONSOLE_TRANSMITQ];
    if (receive === undefined || transmit === undefined) return;
    this.#session = {
      context,
      hasSize: hasFeature(features, VIRTIO_CONSOLE_F_SIZE),
      receive,
      transmit,
      reader: new Reader(memory),
      writer: new Writer(memory),
      output: new DescriptorChain(QUEUE_SIZE),
    };
  }

  heldChains(queueIndex: number): number {
    return queueIndex === CONSOLE_TRANSMITQ && this.#isSending ? 1 : 0;
  }

  save(): ConsoleState {
    const sending = this.#isSending ? this.#session : undefined;
    return {
      columns: this.#config.read(VIRTIO_CONSOLE_CONFIG_COLS, 2),
      rows: this.#config.read(VIRTIO_CONSOLE_CONFIG_ROWS, 2),
      input: base64(this.#input.peek()),
      isAfterBreak: this.#isAfterBreak,
      sentBytes:
        sending === undefined ? this.#sentBytes : sending.output.readable.byteLength - sending.reader.remaining,
    };
  }

  restore(state: StateReader): void {
    const { columns, rows, input, isAfterBreak, sentBytes } = readConsoleState(state, this.#input.capacity);
    this.#setSize({ columns, rows });
    this.#input.push(input);
    this.#isAfterBreak = isAfterBreak;
    this.#sentBytes = sentBytes;
  }

  /** Input that nobody has read stays: it is the user's, not the driver's. */
  reset(): void {
    this.#session = undefined;
    this.#isSending = false;
    this.#sentBytes = 0;
  }

  onAvailable(queueIndex: number): boolean {
    const session = this.#session;
    if (session === undefined) return false;
    return queueIndex === CONSOLE_RECEIVEQ ? this.#serveInput(session) : this.#serveOutput(session);
  }

  #pushDoubled(bytes: Uint8Array): number {
    const input = this.#input;
    let done = 0;
    while (done < bytes.length) {
      if (bytes[done] === BREAK && !this.#isAfterBreak) {
        // Both or none: half of it would be a break.
        if (input.capacity - input.length < 2) break;
        input.push(Uint8Array.of(BREAK, BREAK));
        done++;
        continue;
      }
      // The byte after a break is no break, whatever it is.
      const next = bytes.indexOf(BREAK, this.#isAfterBreak ? done + 1 : done);
      const plain = bytes.subarray(done, next < 0 ? undefined : next);
      const taken = input.push(plain);
      if (taken > 0) this.#isAfterBreak = false;
      done += taken;
      if (taken < plain.length) break;
    }
    return done;
  }

  #setSize({ columns, rows }: ConsoleSize): void {
    this.#config.setU16(VIRTIO_CONSOLE_CONFIG_COLS, columns);
    this.#config.setU16(VIRTIO_CONSOLE_CONFIG_ROWS, rows);
  }

  #serveInput(session: Session): boolean {
    const isCutOff = serveQueue(session.receive, session.context, new Turn(TURN), () => this.#fillOne(session));
    if (!isCutOff) this.#offerRoom();
    return isCutOff;
  }

  /** Puts waiting input into one buffer. */
  #fillOne({ receive: queue, writer }: Session): Step {
    // With nothing to hand out, no notification is of use: the next input looks by itself.
    if (this.#input.length === 0) return "waiting";
    const chain = queue.pop();
    if (chain === null) return "empty";
    if (chain.writable.byteLength === 0) this.counters.refused++;
    writer.start(chain.writable);
    let written = 0;
    while (writer.remaining > 0 && this.#input.length > 0) {
      written += this.#input.shift(writer.window(this.#input.length));
    }
    this.counters.inputBytes += written;
    queue.pushUsed(chain.head, written);
    return "done";
  }

  #offerRoom(): void {
    // Half empty: late enough for one call to bring many bytes, early enough not to run dry.
    if (!this.#hasRefused || this.#input.length > this.#input.capacity / 2) return;
    this.#hasRefused = false;
    this.#host.roomAvailable();
  }

  #serveOutput(session: Session): boolean {
    return serveQueue(session.transmit, session.context, new Turn(TURN), () => this.#sendOne(session));
  }

  /** One step: a chain is taken, a piece of it is sent, and at its end it is given back. */
  #sendOne({ transmit: queue, output, reader }: Session): Step {
    if (this.#isOutputStopped) return "waiting";
    if (!this.#isSending) {
      if (queue.pop(output) === null) return "empty";
      reader.start(output.readable);
      this.#isSending = true;
      // The driver may have changed the chain since.
      reader.skip(Math.min(this.#sentBytes, reader.remaining));
      this.#sentBytes = 0;
    }
    if (reader.remaining > 0) {
      const piece = reader.window(PIECE_BYTES);
      this.counters.outputBytes += piece.length;
      if (!this.#host.transmit(piece)) {
        this.#isOutputStopped = true;
        this.counters.outputStops++;
      }
    }
    if (reader.remaining === 0) {
      this.#isSending = false;
      queue.pushUsed(output.head, 0);
    }
    return "done";
  }
}
