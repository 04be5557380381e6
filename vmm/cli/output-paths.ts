// Which files a boot may write: nothing of the guest's, nothing twice, nothing that another program has
// made. By device and inode, as a file has many names; looked at before anything is opened or truncated.
import {
  accessSync,
  closeSync,
  constants,
  openSync,
  readSync,
  readlinkSync,
  statSync,
  unlinkSync,
  type BigIntStats,
} from "node:fs";
import { basename, dirname, isAbsolute, join } from "node:path";
import { ConfigError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { isByteLocked } from "../sys/locks.js";
import { WRITER_LOCK_BYTE } from "./output-file.js";
import { UnwritableError } from "./unwritable-error.js";

/** An option and the path that it names. */
export interface NamedPath {
  readonly option: string;
  readonly path: string;
}

/** What its first bytes are, if the file is an earlier one of the same kind; without, it may hold anything. */
export interface OutputPath extends NamedPath {
  readonly begins?: string;
}

/** Longest chain of links that the kernel follows. */
const MAX_LINKS = 40;

/** Throws ConfigError if an output is an input, or another output. Sockets and files alike. */
export function checkClashes(outputs: readonly NamedPath[], inputs: readonly NamedPath[]): void {
  const problems: string[] = [];
  const seen = new Map(inputs.map((input) => [identity(input.path), `${input.option} ${input.path}`]));
  for (const { option, path } of outputs) {
    const id = identity(path);
    if (id === undefined) continue;
    const other = seen.get(id);
    if (other === undefined) seen.set(id, `${option} ${path}`);
    else problems.push(`${option} ${path}: the same file as ${other}, which would be lost`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
}

/** Throws UnwritableError for what could not be written later, or holds what is not ours. */
export function checkWritable(output: OutputPath): void {
  const wrong = (why: string): never => {
    throw new UnwritableError(output, why);
  };
  const { path, begins } = output;
  try {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) {
      accessSync(dirname(path), constants.W_OK);
      const folder = statSync(dirname(path));
      if (!folder.isDirectory()) wrong(errnoText("ENOTDIR"));
      // The working folder may have been removed.
      if (folder.nlink === 0) wrong(errnoText("ENOENT"));
      if (linkOf(path) === undefined) tryMaking(path);
      return;
    }
    if (stat.isDirectory()) wrong("a folder");
    if (stat.isBlockDevice()) wrong("a block device, whose contents would be lost");
    if (stat.isSocket()) wrong("a socket");
    accessSync(path, constants.W_OK);
    if (begins !== undefined && stat.isFile()) checkContents(path, begins, wrong);
  } catch (error) {
    if (error instanceof UnwritableError) throw error;
    wrong(errnoText((error as NodeJS.ErrnoException).code ?? String(error)));
  }
}

/** Rights do not tell all: /proc makes no files for root either, and a disk may have no room for one. */
function tryMaking(path: string): void {
  closeSync(openSync(path, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600));
  unlinkSync(path);
}

/** A file that exists may be an earlier one of ours that no vmlet writes any more. */
function checkContents(path: string, begins: string, wrong: (why: string) => never): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const head = Buffer.alloc(Buffer.byteLength(begins));
    const length = readSync(fd, head, 0, head.length, 0);
    if (length > 0 && head.toString("latin1", 0, length) !== begins) {
      wrong("it exists, and is not an earlier one of vmlet's; remove it, or give another name");
    }
    if (isByteLocked(fd, WRITER_LOCK_BYTE)) wrong("another vmlet is writing it");
  } finally {
    closeSync(fd);
  }
}

/**
 * The same for two names of one file, and for two names of one that is to be made. Undefined for what any
 * number may write to: /dev/null, a terminal, a FIFO.
 */
function identity(path: string): string | undefined {
  const stat = look(path);
  if (stat?.isBlockDevice() === true) return `block ${String(stat.rdev)}`;
  if (stat !== undefined)
    return stat.isFile() || stat.isSocket() ? `${String(stat.dev)}:${String(stat.ino)}` : undefined;
  // A link that leads nowhere: what is written to it is made where it points.
  let target = path;
  for (let links = 0; links < MAX_LINKS; links++) {
    const next = linkOf(target);
    if (next === undefined) break;
    target = isAbsolute(next) ? next : join(dirname(target), next);
  }
  // Not by process.cwd(), which fails in a folder that has been removed.
  const folder = look(dirname(target));
  const where = folder === undefined ? dirname(target) : `${String(folder.dev)}:${String(folder.ino)}`;
  return `${where}/${basename(target)}`;
}

// The code that opens the path reports what is wrong with it.
function look(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return undefined;
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
