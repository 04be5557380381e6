// Trees of the guest as tar archives, and copies between guest and host: what `agent.files` has beside single files.
import type { Readable } from "node:stream";
import { copyIn, copyOut, type CopyOptions, type CopyOutOptions, type CopyReport } from "./copy.js";
import { GuestFiles } from "./files.js";
import type { GuestBytes } from "./guest-bytes.js";
import { bytesOf, pathBytes } from "./guest-bytes.js";
import { guestTree, type GuestTreeOptions } from "./guest-tree.js";
import { GuestTreeWriter, type GuestWriterOptions } from "./guest-tree-writer.js";
import { unpackTree } from "./tar-reader.js";
import { packTree } from "./tar-writer.js";

export interface ReadTreeOptions extends GuestTreeOptions {
  /** Stands for the root, and before all other names; "." otherwise, and names begin below it. */
  readonly name?: GuestBytes;
}

export interface WriteTreeOptions extends GuestWriterOptions {
  /** False: the folder has to be there. */
  readonly parents?: boolean;
}

export class GuestTrees extends GuestFiles {
  /** A file or folder with all that is in it, as a tar archive. Links are not followed. Destroying it gives up the rest. */
  readTree(path: GuestBytes, options: ReadTreeOptions = {}): Readable {
    const { name, ...rest } = options;
    // Without somebody who listens, what has gone meanwhile is left out as well: the tree is alive.
    const onSkip = options.onSkip ?? (() => undefined);
    const entries = guestTree(this, pathBytes(path), { ...rest, onSkip });
    return packTree(entries, name === undefined ? undefined : bytesOf(name));
  }

  /**
   * Writes what is in a tar archive into a folder of the guest, which is made if it is not there. Owners are kept unless
   * `keepOwner` is false. Nothing is written outside of the folder, and nothing through a link in it. Resolves with the
   * number of entries.
   */
  async writeTree(
    path: GuestBytes,
    archive: AsyncIterable<string | Uint8Array>,
    options: WriteTreeOptions = {},
  ): Promise<number> {
    const { parents = true, ...rest } = options;
    if (parents) await this.mkdir(path, { parents: true, signal: options.signal });
    const writer = new GuestTreeWriter(this, pathBytes(path), { keepOwner: true, ...rest });
    try {
      for await (const entry of unpackTree(archive)) await writer.add(entry);
      await writer.finish();
    } finally {
      await writer.settle();
    }
    return writer.entries;
  }

  /** A file or folder of the guest to the host, with the meanings of `docker cp`; see copy.ts. */
  copyOut(guestPath: GuestBytes, hostPath: string, options: CopyOutOptions = {}): Promise<CopyReport> {
    return copyOut(this, guestPath, hostPath, options);
  }

  /** A file or folder of the host into the guest, in the same way. */
  copyIn(hostPath: string, guestPath: GuestBytes, options: CopyOptions = {}): Promise<CopyReport> {
    return copyIn(this, hostPath, guestPath, options);
  }
}
