// A mutex in one shared word, for registers that several threads serve.
// Three states, so that an uncontended lock is one compare-and-swap and an unlock wakes
// nobody without need. Held for a few register updates only; never across a system call.
import type { SharedWords } from "./contracts.js";

const FREE = 0;
const HELD = 1;
const CONTENDED = 2;

export function lock(words: SharedWords, index: number): void {
  if (Atomics.compareExchange(words, index, FREE, HELD) === FREE) return;
  // A waiter leaves the word at CONTENDED, so that the holder knows that it has to wake somebody.
  while (Atomics.exchange(words, index, CONTENDED) !== FREE) Atomics.wait(words, index, CONTENDED);
}

export function unlock(words: SharedWords, index: number): void {
  if (Atomics.exchange(words, index, FREE) === CONTENDED) Atomics.notify(words, index, 1);
}
