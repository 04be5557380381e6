// A file system's tree in memory: names and attributes, without contents. Names, link targets and attributes are bytes
// of any value, kept as text of one character a byte ("latin1"): JavaScript's own order of such texts is that of the bytes.
import { ImageError } from "../errors.js";
import { MAX_NAME_BYTES } from "./limits.js";
import { showBytes } from "./show-bytes.js";

export type InodeKind = "file" | "folder" | "symlink" | "char" | "block" | "fifo" | "socket";

/** Name with its namespace, such as "security.capability", and value; both latin1. */
export type Xattr = readonly [name: string, value: string];

export interface Attributes {
  /** Permission bits with set-user-ID, set-group-ID and sticky: 07777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970, may be negative. */
  readonly mtime: number;
  readonly mtimeNs: number;
  readonly xattrs: readonly Xattr[];
}

export interface Inode {
  readonly kind: InodeKind;
  attributes: Attributes;
  /** Of a folder, by name. */
  readonly entries: Map<string, Inode> | undefined;
  /** Of a file: where its contents are. */
  readonly content: Content | undefined;
  /** Of a symlink. */
  readonly target: string;
  /** Of a device. */
  readonly major: number;
  readonly minor: number;
}

export interface Content {
  /** `bytes` */
  readonly size: number;
  /** Index of the source of data, and the offset there, a multiple of 4096. */
  readonly source: number;
  readonly offset: number;
}

/** Of the folders that an archive does not name but needs. */
export const IMPLIED_FOLDER: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: 0, mtimeNs: 0, xattrs: [] };

/** So many symlinks on the way to one name: as Linux. */
const MAX_SYMLINKS = 40;
/** Names that all paths of an image together reach through symlinks: links to long ways would take for ever. */
const MAX_LINK_STEPS = 50_000_000;

export function newFolder(attributes: Attributes = IMPLIED_FOLDER): Inode {
  return {
    kind: "folder",
    attributes,
    entries: new Map(),
    content: undefined,
    target: "",
    major: 0,
    minor: 0,
  };
}

/** The names of a path from the root on. Throws ImageError for one that leads out, or that no name can be. */
export function splitPath(path: string, maxNameBytes: number, maxPathBytes: number): string[] {
  if (path.length > maxPathBytes)
    throw new ImageError(`A path of ${String(path.length)} bytes, more than ${String(maxPathBytes)}`);
  if (path.includes("\0")) throw new ImageError(`Path ${showBytes(path)} has a zero byte`);
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name === "..") {
      if (names.pop() === undefined) throw new ImageError(`Path ${showBytes(path)} leads out of the image`);
      continue;
    }
    if (name.length > maxNameBytes) throw tooLong(name, maxNameBytes);
    names.push(name);
  }
  return names;
}

function tooLong(name: string, maximum: number): ImageError {
  return new ImageError(`Name ${showBytes(name)} has ${String(name.length)} bytes, more than ${String(maximum)}`);
}

/** Everything below one root; what an archive can make of it is bounded. */
export class Tree {
  readonly root: Inode;
  readonly #maxInodes: number;
  #inodes = 1;
  #linkSteps = 0;

  constructor(maxInodes: number, root: Inode = newFolder()) {
    this.root = root;
    this.#maxInodes = maxInodes;
  }

  /** One more inode, also if it takes another's place. */
  count(): void {
    if (++this.#inodes > this.#maxInodes) {
      throw new ImageError(`More than ${String(this.#maxInodes)} files and folders, which is the limit`);
    }
  }

  /**
   * The folder at `names`, through the tree's own symlinks, which never lead out of it. A folder that is missing is made
   * if `makes`; else undefined. Throws ImageError where something else than a folder stands, or links go in circles.
   */
  folderAt(names: readonly string[], makes: boolean): Inode | undefined {
    const trail: Inode[] = [this.root];
    const rest = [...names].reverse();
    let links = 0;
    for (let name = rest.pop(); name !== undefined; name = rest.pop()) {
      const here = trail[trail.length - 1] ?? this.root;
      if (name === "..") {
        if (trail.length > 1) trail.pop();
        continue;
      }
      let next = here.entries?.get(name);
      if (next === undefined) {
        if (!makes) return undefined;
        // A step of a link's target, which nobody has looked at yet.
        if (name.length > MAX_NAME_BYTES) throw tooLong(name, MAX_NAME_BYTES);
        this.count();
        next = newFolder();
        here.entries?.set(name, next);
      }
      if (next.kind === "symlink") {
        if (++links > MAX_SYMLINKS) throw new ImageError(`Path ${showBytes(names.join("/"))}: too many symbolic links`);
        if (next.target.startsWith("/")) trail.length = 1;
        const steps = next.target.split("/").filter((step) => step !== "" && step !== ".");
        this.#linkSteps += steps.length;
        if (this.#linkSteps > MAX_LINK_STEPS) throw new ImageError("Symbolic links lead through too many folders");
        rest.push(...steps.reverse());
      } else if (next.kind === "folder") {
        trail.push(next);
      } else {
        throw new ImageError(`Path ${showBytes(names.join("/"))}: ${showBytes(name)} is no folder`);
      }
    }
    return trail[trail.length - 1];
  }
}
