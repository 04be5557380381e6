// Tar archives for tests, also such that no program would write.
export interface TarItem {
  /** latin1 */
  readonly name: string;
  /** Default: "0", a file. */
  readonly type?: string;
  readonly body?: Buffer | string;
  readonly linkName?: string;
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly mtime?: number;
  readonly device?: readonly [major: number, minor: number];
  /** Records of an extended header in front; latin1. */
  readonly pax?: Readonly<Record<string, string>>;
  /** Size as the header has it, if not that of the body. */
  readonly size?: number;
  /** The header, changed before its checksum is made. */
  readonly change?: (header: Buffer) => void;
}

export function tarOf(items: readonly TarItem[], { hasEnd = true } = {}): Buffer {
  const end = hasEnd ? [Buffer.alloc(1024)] : [];
  return Buffer.concat([...items.flatMap((item) => [paxHeader(item.pax), entry(item)]), ...end]);
}

export function paxBody(records: Readonly<Record<string, string>>): Buffer {
  return Buffer.concat(
    Object.entries(records).map(([key, value]) => {
      const rest = Buffer.from(` ${key}=${value}\n`, "latin1");
      let length = rest.length;
      while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
      return Buffer.concat([Buffer.from(String(length)), rest]);
    }),
  );
}

function paxHeader(records: Readonly<Record<string, string>> | undefined): Buffer {
  return records === undefined ? Buffer.alloc(0) : entry({ name: "PaxHeaders/x", type: "x", body: paxBody(records) });
}

function entry(item: TarItem): Buffer {
  const body = typeof item.body === "string" ? Buffer.from(item.body, "latin1") : (item.body ?? Buffer.alloc(0));
  const header = Buffer.alloc(512);
  const octal = (value: number, at: number, length: number): void => {
    if (value >= 0 && value < 8 ** (length - 1))
      header.write(value.toString(8).padStart(length - 1, "0"), at, "latin1");
    else {
      // GNU's binary numbers.
      for (let index = 0, rest = BigInt(value); index < length; index++, rest >>= 8n) {
        header[at + length - 1 - index] = Number(BigInt.asUintN(8, rest));
      }
      header[at] = (header[at] ?? 0) | 0x80;
    }
  };
  header.write(item.name.slice(0, 100), 0, "latin1");
  octal(item.mode ?? 0o644, 100, 8);
  octal(item.uid ?? 0, 108, 8);
  octal(item.gid ?? 0, 116, 8);
  octal(item.size ?? body.length, 124, 12);
  octal(item.mtime ?? 1_700_000_000, 136, 12);
  header.write(item.type ?? "0", 156, "latin1");
  header.write((item.linkName ?? "").slice(0, 100), 157, "latin1");
  header.write("ustar\x0000", 257, "latin1");
  if (item.device !== undefined) {
    octal(item.device[0], 329, 8);
    octal(item.device[1], 337, 8);
  }
  item.change?.(header);
  header.fill(0x20, 148, 156);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return Buffer.concat([header, body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
}
