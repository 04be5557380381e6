// The host's side of sockets: byte streams that host programs hold the other end of. Nothing
// throws, and nothing calls back before the call that caused it has returned.

/** The host's end of one connection. */
export interface HostStream {
  /** Of a stream that came through `StreamAcceptor`: the guest has accepted, data may flow. */
  opened(hostPort: number): void;
  /** Takes all of `bytes` and may keep them; `sent` is called when they have been written. */
  write(bytes: Uint8Array): void;
  /** No more will be written; what has been written is still sent. */
  end(): void;
  /** No `data` before `resume`, but for what is under way. */
  pause(): void;
  resume(): void;
  /** Closes at once; nothing is called back any more. */
  destroy(): void;
}

/** What happens at the host's end. */
export interface StreamEvents {
  /** A stream asked for with `VsockBackend.connect` has reached a program. */
  connected(): void;
  /** `bytes` are the receiver's to keep. */
  data(bytes: Uint8Array): void;
  /** `length` bytes of what was written are gone. */
  sent(length: number): void;
  /** No more data will come. */
  ended(): void;
  /** The stream is closed; `isFailure`: before both ends were done. */
  closed(isFailure: boolean): void;
}

/** Takes connections of host programs to the guest. */
export interface StreamAcceptor {
  /** Undefined if it cannot be: there is no guest to ask, or too many connections. */
  open(guestPort: number, stream: HostStream): StreamEvents | undefined;
}

export interface VsockBackend {
  /** Looks for the host program behind `port`; the answer is `connected` or `closed`. */
  connect(port: number, events: StreamEvents): HostStream;
  /** Where connections of host programs go from now on. */
  accept(acceptor: StreamAcceptor): void;
}
