// What a process needs for a snapshot that opens nothing by then: which pages its guest has touched, what it has booted, and which host
// this is.
import type { ResolvedConfig } from "../config/types.js";
import { FACT_FILES } from "../host/facts.js";
import { keepFiles } from "../host/kept-files.js";
import { KvmSystem } from "../kvm/system.js";
import { nativeCpuid } from "../machine/host-cpu.js";
import { PAGEMAP } from "../sys/pagemap.js";

/** `isBooted`: the guest goes on from nothing that says which processor it has seen. */
export function openForSnapshot(
  { kernel, initrd }: ResolvedConfig,
  { isBooted }: { readonly isBooted: boolean },
): void {
  // A guest that was saved before knows the hashes.
  const images = isBooted ? [kernel, ...(initrd === undefined ? [] : [initrd])] : [];
  keepFiles([PAGEMAP, ...FACT_FILES, ...images]);
  KvmSystem.keep();
  // V8 reads the host's time zone for the first date.
  new Date().getTimezoneOffset();
  // It takes machine code of its own.
  if (isBooted) nativeCpuid();
}
