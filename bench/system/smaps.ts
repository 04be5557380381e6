// A process's memory from /proc/PID/smaps, without the guest's own RAM: what the monitor costs.
// RSS counts shared pages fully, PSS by share, private not at all: each tells something else.

export interface MemoryKib {
  readonly rss: number;
  readonly pss: number;
  readonly private: number;
}

interface Mapping extends MemoryKib {
  readonly start: number;
  readonly end: number;
}

function parseMappings(smaps: string): Mapping[] {
  return smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m).flatMap((text) => {
    const range = /^([0-9a-f]+)-([0-9a-f]+) /.exec(text);
    if (range === null) return [];
    const kib = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? 0);
    return {
      start: Number.parseInt(range[1] ?? "", 16),
      end: Number.parseInt(range[2] ?? "", 16),
      rss: kib("Rss"),
      pss: kib("Pss"),
      private: kib("Private_Clean") + kib("Private_Dirty"),
    };
  });
}

/** Indices [first, last] of neighbours that are `bytes` long together: advice splits a mapping. */
function findRun(mappings: readonly Mapping[], bytes: number): [first: number, last: number][] {
  return mappings.flatMap((head, first): [number, number][] => {
    for (let last = first; last < mappings.length; last++) {
      const tail = mappings[last];
      if (tail === undefined || (last > first && mappings[last - 1]?.end !== tail.start)) return [];
      const length = tail.end - head.start;
      if (length === bytes) return [[first, last]];
      if (length > bytes) return [];
    }
    return [];
  });
}

/**
 * Sums all mappings but the guest's RAM: the run of neighbours that is exactly `guestKib` long.
 * Two of glibc's arenas side by side can be as long, so of several runs the fullest counts.
 */
export function monitorMemory(smaps: string, guestKib: number): MemoryKib {
  const mappings = parseMappings(smaps);
  if (mappings.length === 0) throw new Error("No mapping in smaps: the process had ended");
  const total = (list: readonly Mapping[], key: keyof MemoryKib): number =>
    list.reduce((sum, mapping) => sum + mapping[key], 0);
  const rssOf = ([first, last]: readonly [number, number]): number => total(mappings.slice(first, last + 1), "rss");
  const [run] = findRun(mappings, guestKib * 1024).sort((a, b) => rssOf(b) - rssOf(a));
  if (run === undefined) throw new Error(`No mapping of ${String(guestKib)} KiB: where is the guest's RAM?`);
  const others = mappings.filter((_, i) => i < run[0] || i > run[1]);
  return { rss: total(others, "rss"), pss: total(others, "pss"), private: total(others, "private") };
}
