// For `vmlet boot`, where /dev/kvm has just failed: the doctor's first diagnosis, in a line.
import { CHECKS, lookAt } from "./all-checks.js";
import type { Finding } from "./checks.js";
import { thisHost } from "./this-host.js";

/** The first thing in KVM's way for which something helps; undefined if there is none. */
export function whyNoKvm(): (Finding & { readonly cure: string }) | undefined {
  const checks = CHECKS.filter(({ area }) => area === "kvm");
  return lookAt(thisHost(), checks).find(
    (finding): finding is Finding & { cure: string } => finding.status === "bad" && finding.cure !== undefined,
  );
}
