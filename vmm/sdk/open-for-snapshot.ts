// What a process needs for a snapshot that opens nothing by then: which pages its guest has touched, and which host this is.
import { FACT_FILES } from "../host/facts.js";
import { keepFiles } from "../host/kept-files.js";
import { KvmSystem } from "../kvm/system.js";
import { nativeCpuid } from "../machine/host-cpu.js";
import { PAGEMAP } from "../sys/pagemap.js";

/** `isBooted`: the guest goes on from nothing that says which processor it has seen. */
export function openForSnapshot({ isBooted }: { readonly isBooted: boolean }): void {
  keepFiles([PAGEMAP, ...FACT_FILES]);
  KvmSystem.keep();
  // V8 reads the host's time zone for the first date.
  new Date().getTimezoneOffset();
  // It takes machine code of its own.
  if (isBooted) nativeCpuid();
}
