// AbortSignals of callers.

/** The signal's reason as an error. */
export function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error
    ? reason
    : new DOMException("The operation was aborted", { name: "AbortError", cause: reason });
}
