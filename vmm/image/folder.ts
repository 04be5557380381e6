// A folder of this host as a root: its files are copied into the cache, once for each state of the folder.
import { ImageError } from "../errors.js";
import type { HeldImage } from "./image-store.js";
import type { PrepareContext } from "./prepare.js";

export function prepareFolder(path: string, _context: PrepareContext): Promise<HeldImage> {
  throw new ImageError(`${path}: folders cannot be roots yet`);
}
