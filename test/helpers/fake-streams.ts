// Host programs for the socket device, played by a test.
import type { HostStream, StreamAcceptor, StreamEvents, VsockBackend } from "../../devices/virtio/vsock/backend.js";

export class FakeStream implements HostStream {
  readonly written: number[] = [];
  /** What was called, besides `write`. */
  readonly log: string[] = [];
  isDestroyed = false;
  isPaused = false;
  isEnded = false;
  events: StreamEvents | undefined;

  opened(hostPort: number): void {
    this.log.push(`opened ${String(hostPort)}`);
  }
  write(bytes: Uint8Array): void {
    if (this.isEnded || this.isDestroyed) throw new Error("Written to after its end");
    this.written.push(...bytes);
  }
  end(): void {
    this.isEnded = true;
    this.log.push("end");
  }
  pause(): void {
    this.isPaused = true;
  }
  resume(): void {
    this.isPaused = false;
  }
  destroy(): void {
    this.isDestroyed = true;
  }
}

export class FakeStreams implements VsockBackend {
  acceptor: StreamAcceptor | undefined;
  /** Streams that the guest has asked for, with the ports. */
  readonly asked: { readonly port: number; readonly stream: FakeStream; readonly events: StreamEvents }[] = [];

  connect(port: number, events: StreamEvents): HostStream {
    const stream = new FakeStream();
    stream.events = events;
    this.asked.push({ port, stream, events });
    return stream;
  }

  accept(acceptor: StreamAcceptor): void {
    this.acceptor = acceptor;
  }

  /** A host program connects to the guest; undefined if it is refused. */
  open(guestPort: number): FakeStream | undefined {
    const stream = new FakeStream();
    stream.events = this.acceptor?.open(guestPort, stream);
    return stream.events === undefined ? undefined : stream;
  }
}
