// AbortSignals of callers, and limits of time that end a request in the same way.

/** The signal's reason as an error. */
export function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error
    ? reason
    : new DOMException("The operation was aborted", { name: "AbortError", cause: reason });
}

export interface LimitedSignal {
  readonly signal: AbortSignal | undefined;
  /** Stops the clock. */
  readonly done: () => void;
}

/** The caller's own signal, which is aborted with `reason` besides once `timeoutMs` are over. */
export function limitedSignal(
  signal: AbortSignal | undefined,
  timeoutMs: number | undefined,
  reason: (timeoutMs: number) => Error,
): LimitedSignal {
  if (timeoutMs === undefined) return { signal, done: () => undefined };
  const limit = new AbortController();
  const timer = setTimeout(() => {
    limit.abort(reason(timeoutMs));
  }, timeoutMs);
  return {
    signal: signal === undefined ? limit.signal : AbortSignal.any([signal, limit.signal]),
    done: () => {
      clearTimeout(timer);
    },
  };
}
