// A folder's entries in the order of their names' bytes, in pieces: of hundreds of thousands, sorting takes longer than an event
// loop may stand still.

/** Of a run that is sorted at once; a fraction of a millisecond. */
const RUN = 1024;
/** Between two turns of the event loop, `ms`. */
const TURN_MS = 4;

interface Named {
  readonly nameBytes: Buffer;
}

interface Keyed<Entry> {
  /** A character a byte: compared as fast as memory, and in the same order. */
  readonly key: string;
  readonly entry: Entry;
}

export async function sortedByName<Entry extends Named>(entries: readonly Entry[]): Promise<Entry[]> {
  const turn = turns();
  let runs: Keyed<Entry>[][] = [];
  for (let at = 0; at < entries.length; at += RUN) {
    const run = entries.slice(at, at + RUN).map((entry) => ({ key: entry.nameBytes.toString("latin1"), entry }));
    runs.push(run.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)));
    await turn();
  }
  while (runs.length > 1) {
    const merged: Keyed<Entry>[][] = [];
    for (let at = 0; at < runs.length; at += 2) merged.push(await merge(runs[at] ?? [], runs[at + 1] ?? [], turn));
    runs = merged;
  }
  const sorted: Entry[] = [];
  for (const { entry } of runs[0] ?? []) {
    sorted.push(entry);
    if (sorted.length % RUN === 0) await turn();
  }
  return sorted;
}

async function merge<Entry>(
  left: readonly Keyed<Entry>[],
  right: readonly Keyed<Entry>[],
  turn: () => Promise<void> | undefined,
): Promise<Keyed<Entry>[]> {
  const merged: Keyed<Entry>[] = [];
  for (let a = 0, b = 0; a < left.length || b < right.length;) {
    const [one, other] = [left[a], right[b]];
    if (one !== undefined && (other === undefined || one.key <= other.key)) {
      merged.push(one);
      a++;
    } else if (other !== undefined) {
      merged.push(other);
      b++;
    }
    if (merged.length % RUN === 0) await turn();
  }
  return merged;
}

/** Lets others run once it is time. */
function turns(): () => Promise<void> | undefined {
  let since = performance.now();
  return () => {
    if (performance.now() - since < TURN_MS) return undefined;
    return new Promise((resolve) => {
      setImmediate(() => {
        since = performance.now();
        resolve();
      });
    });
  };
}
