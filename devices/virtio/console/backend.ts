/** The host's side of the console: a terminal, a file, a socket. */
export interface ConsoleHost {
  /**
   * Takes output of the guest: all of it, and before it returns, because `bytes` is a window on
   * guest memory. False: do not call again before `ConsoleDevice.outputReady`.
   */
  transmit(bytes: Uint8Array): boolean;
  /** There is room again for input that `ConsoleDevice.receive` did not take. */
  roomAvailable(): void;
}
