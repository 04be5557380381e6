// A process's memory from /proc/PID/smaps, without the guest's own RAM: what the monitor costs.
// RSS counts shared pages fully, PSS by share, private not at all: each tells something else.

export interface MemoryKib {
  readonly rss: number;
  readonly pss: number;
  readonly private: number;
}

/** Sums all mappings but those of exactly `guestKib`, which is the guest's RAM. */
export function monitorMemory(smaps: string, guestKib: number): MemoryKib {
  const total = { rss: 0, pss: 0, private: 0 };
  let mappings = 0;
  let guests = 0;
  for (const mapping of smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m)) {
    const kib = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(mapping)?.[1] ?? 0);
    if (mapping.trim() === "") continue;
    mappings++;
    if (kib("Size") === guestKib) {
      guests++;
      continue;
    }
    total.rss += kib("Rss");
    total.pss += kib("Pss");
    total.private += kib("Private_Clean") + kib("Private_Dirty");
  }
  if (mappings === 0) throw new Error("No mapping in smaps: the process had ended");
  if (guests !== 1) throw new Error(`${String(guests)} mappings of ${String(guestKib)} KiB: which one is the guest's?`);
  return total;
}
