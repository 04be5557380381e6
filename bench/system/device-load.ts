// What the guest program of the benches of devices (bench/c/device-load.c) measures and prints.

/** The MAC address of the interface that it takes for its first. */
export const FIRST_MAC = "52:54:00:00:00:01";

/** Of a network, behind its name and `_`; more is better in all. */
export const NETWORK_LOADS = [
  "guest_to_host_kib_s",
  "host_to_guest_kib_s",
  "round_trips_per_s",
  "round_trips_first_second_per_s",
] as const;

/** The figures among what a guest has said, by metric. */
export function figuresOf(text: string): Record<string, number> {
  return Object.fromEntries(
    [...text.matchAll(/^([a-z0-9_]+) (\d+)\r?$/gm)].map(([, metric = "", value]) => [metric, Number(value)]),
  );
}
