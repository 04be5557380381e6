// What carries the agent's protocol: the command channel, vsock, a console port, a serial line, a Unix socket.

/**
 * What a transport may spare itself. "later": it is enough that the agent finds the bytes before it sends, or when it may send
 * nothing any more. "more": another write follows at once.
 */
export type WriteUrgency = "now" | "later" | "more";

/**
 * One stream of bytes each way that keeps order and loses nothing. AgentConnection sets the callbacks when it takes the
 * transport over; nothing may come before that.
 */
export interface AgentTransport {
  /**
   * Takes all of `bytes`, whatever it answers; keeps no view of them. False: no more for now, please, until `onDrain`.
   * What is written although it has answered false is small, and bounded.
   */
  write(bytes: Uint8Array, urgency?: WriteUrgency): boolean;
  /** Nothing is called back after this. May be called twice. */
  close(): void;
  /** What has come, never from within `write`; the callee may keep views, so a transport that uses its memory again hands out a copy. */
  onBytes: ((bytes: Uint8Array) => void) | undefined;
  /** What a `write` that answered false has left behind is gone. */
  onDrain: (() => void) | undefined;
  /** Nothing comes any more: the guest is gone, or what carries the bytes is. Once, and not after `close`. */
  onClose: ((cause?: unknown) => void) | undefined;
}
