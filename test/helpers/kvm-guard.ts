// Whether this host has a KVM that can be opened; else the reason, for the skip.
import { KvmSystem } from "../../vmm/kvm/system.js";

export function whyNoKvm(): string | undefined {
  try {
    KvmSystem.open().close();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
