// The middle of most fuzzers: operations in any order, each of which may cost the device only so much.
import assert from "node:assert/strict";
import type { DriverQueue } from "../helpers/driver-queue.js";
import type { VirtioDriver } from "../helpers/virtio-driver.js";
import { disturb } from "./hostile-driver.js";
import type { HostileMemory } from "./hostile-memory.js";
import type { Random } from "./random.js";

export interface OperationLimits {
  /** Operations of one case. */
  readonly count: number;
  /** Accesses to guest memory that one operation may lead to: what a turn's worth of work can be. */
  readonly maxAccesses: number;
}

/** Draws an operation and runs it, again and again; `check` comes after each. */
export function runOperations(
  random: Random,
  memory: HostileMemory,
  operations: readonly (() => void)[],
  { count, maxAccesses }: OperationLimits,
  check: () => void = () => undefined,
): void {
  for (let left = count; left > 0; left--) {
    memory.accesses = 0;
    random.operations++;
    random.pick(operations)();
    assert.ok(memory.accesses <= maxAccesses, `${String(memory.accesses)} accesses`);
    check();
  }
}

/** How seldom, as one in so many, a driver does each of these when it is its turn. */
export interface TroubleOdds {
  readonly disturb: number;
  readonly restart: number;
  readonly reset: number;
}

/** What every driver may do in the middle of everything: spoil its rings, start afresh, let go. */
export function troubles(
  random: Random,
  memory: HostileMemory,
  driver: VirtioDriver,
  odds: TroubleOdds,
  { queue, restart }: { readonly queue: () => DriverQueue; readonly restart: () => void },
): (() => void)[] {
  return [
    () => {
      if (random.oneIn(odds.disturb)) disturb(random, memory, queue());
    },
    () => {
      if (random.oneIn(odds.restart)) memory.asGuest(restart);
    },
    () => {
      if (random.oneIn(odds.reset)) driver.reset();
    },
  ];
}
