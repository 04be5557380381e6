// The name that a restored guest may be given.

/** Linux takes 64 bytes: sethostname(2). */
const HOST_NAME = /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$/;

export function isHostName(value: unknown): value is string {
  return typeof value === "string" && HOST_NAME.test(value);
}
