// The signals that ask a program to end.

/** Calls back for the signals that shall end the VM cleanly; the result takes the handlers away. */
export function onEndSignals(callback: (number: number) => void): () => void {
  const signals = (["SIGINT", "SIGTERM", "SIGHUP"] as const).map((name) => {
    const handler = (_: NodeJS.Signals, number: number): void => {
      callback(number);
    };
    process.on(name, handler);
    return [name, handler] as const;
  });
  return () => {
    for (const [name, handler] of signals) process.off(name, handler);
  };
}
