// One Unix socket as the host's end of a connection of the guest.
import type { Socket } from "node:net";
import type { Guard } from "../guard.js";
import type { HostStream, StreamEvents } from "../../../devices/virtio/vsock/backend.js";

/** `bytes` that the first buffer for what waits has room for; it doubles as it fills. */
const FIRST_BUFFER_BYTES = 4096;

export class SocketStream implements HostStream {
  readonly #socket: Socket;
  readonly #guard: Guard;
  #events: StreamEvents | undefined;
  /** `bytes` of the write under way; 0: none. */
  #inFlight = 0;
  /**
   * What waits for that write, in one piece: a guest may cut its data into single bytes, and each
   * in a buffer of its own would cost the host a hundred times as much. The device limits the sum.
   */
  #pending = new Uint8Array(0);
  #pendingBytes = 0;
  #isEnding = false;

  constructor(socket: Socket, guard: Guard) {
    this.#socket = socket;
    this.#guard = guard;
    // Said again by "close", which always follows.
    socket.on("error", () => undefined);
  }

  /** Has `events` called from now on; data flows once `flow` is called. */
  attach(events: StreamEvents): void {
    this.#events = events;
    this.#socket.on("close", (hadError) => {
      this.#guard(() => this.#events?.closed(hadError));
    });
  }

  /** Lets data flow. */
  flow(): void {
    this.#socket.on("data", (bytes: Buffer) => {
      this.#guard(() => this.#events?.data(bytes));
    });
    this.#socket.on("end", () => {
      this.#guard(() => this.#events?.ended());
    });
    this.#socket.resume();
  }

  opened(hostPort: number): void {
    // Not counted as data: the program has asked for it.
    this.#socket.write(`OK ${String(hostPort)}\n`);
    this.flow();
  }

  write(bytes: Uint8Array): void {
    if (this.#inFlight === 0) {
      this.#send(bytes);
      return;
    }
    const length = this.#pendingBytes + bytes.length;
    if (length > this.#pending.length) {
      const larger = new Uint8Array(Math.max(FIRST_BUFFER_BYTES, 2 ** Math.ceil(Math.log2(length))));
      larger.set(this.#pending.subarray(0, this.#pendingBytes));
      this.#pending = larger;
    }
    this.#pending.set(bytes, this.#pendingBytes);
    this.#pendingBytes = length;
  }

  end(): void {
    this.#isEnding = true;
    if (this.#inFlight === 0) this.#socket.end();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  destroy(): void {
    this.#events = undefined;
    this.#socket.destroy();
  }

  #send(bytes: Uint8Array): void {
    this.#inFlight = bytes.length;
    this.#socket.write(bytes, (error) => {
      this.#guard(() => {
        this.#written(error);
      });
    });
  }

  #written(error: Error | null | undefined): void {
    // A failure closes the socket, and the close is reported.
    if (error !== null && error !== undefined) return;
    const length = this.#inFlight;
    this.#inFlight = 0;
    if (this.#pendingBytes > 0) {
      const bytes = this.#pending.subarray(0, this.#pendingBytes);
      this.#pending = new Uint8Array(0);
      this.#pendingBytes = 0;
      this.#send(bytes);
    } else if (this.#isEnding) {
      this.#socket.end();
    }
    this.#events?.sent(length);
  }
}
