// Counts guests that reached user space, so that a run in which none could boot fails.

let count = 0;

export function countBoot(): void {
  count++;
}

export function bootedGuests(): number {
  return count;
}
