// Needs: a /dev/kvm of any kind. State files as somebody would have them who means harm, or who brings them from another
// host: each is refused with its reason, or is a guest like any other; nothing is left behind.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  ConfigError,
  createSnapshot,
  createVm,
  DiskError,
  HostError,
  KvmIoctlError,
  openSnapshot,
  SnapshotError,
} from "../../vmm/index.js";
import { problemsHere } from "../../vmm/snapshot/problems-here.js";
import { Random } from "../fuzz/random.js";
import { collectOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel } from "../helpers/mini-kernel.js";
import { mutations } from "../helpers/mutated-state.js";
import { ownResources, settledResources } from "../helpers/own-resources.js";
import { putState, savedState, type SavedState } from "../helpers/saved-state.js";
import { skip } from "../helpers/skip.js";

const EXPECTED = [SnapshotError, ConfigError, DiskError, HostError, KvmIoctlError];
/** Lists of many entries that are all alike, of which the first few stand for the rest. */
const ALIKE = /^state\.vcpus\[1\]\.|\.(?:cpuid|native|redirtbl)\[(?:[3-9]|\d\d+)\]|\.msrs\["0x(?!10"|277"|c0000080")/;
const MANY = "a list of 100,000";
const SHARE = 16;
const SHARE_OF_WRONG = 3;

describe("kvm: saved state", function () {
  this.timeout(300_000);
  let folder: string;
  let state: SavedState;

  before(async function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-state-"));
    const kernel = miniKernel(asm.countInMemory());
    const output = collectOutput();
    const vm = createVm({ kernel: kernel.path, memoryMib: 32, cpus: 2, rng: true, commandChannel: true }, output.host);
    try {
      const run = vm.start();
      await output.until(300);
      await createSnapshot(vm, folder, { resume: false });
      vm.stop();
      await run;
    } finally {
      await vm.close();
      kernel.remove();
    }
    state = savedState(folder);
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });

  /** The error that opening and restoring end in; undefined if a VM comes of it. */
  async function refusal(changed: unknown): Promise<Error | undefined> {
    putState(folder, changed);
    try {
      const opened = openSnapshot(folder);
      try {
        await opened.restore(collectOutput().host).close();
      } finally {
        opened.close();
      }
    } catch (error) {
      return error as Error;
    }
    return undefined;
  }

  /** A copy, changed. */
  function changed(change: (copy: SavedState) => void): SavedState {
    const copy = structuredClone(state);
    change(copy);
    return copy;
  }

  function vcpu({ vcpus }: SavedState, index: number): SavedState["vcpus"][number] {
    const found = vcpus[index];
    assert.ok(found !== undefined);
    return found;
  }

  async function assertRefused(change: (copy: SavedState) => void, reason: RegExp): Promise<void> {
    const error = await refusal(changed(change));
    assert.ok(error instanceof SnapshotError, String(error));
    assert.match(error.message, reason);
  }

  it("as it is, it goes on here, and this host's processor fits", async () => {
    assert.equal(await refusal(state), undefined);
    assert.deepEqual(problemsHere(folder), []);
  });

  it("features that this host lacks are all named, whichever vCPU has been shown them", async () => {
    await assertRefused((copy) => {
      const entry = vcpu(copy, 1).cpuid.find((each) => each.function === 1);
      assert.ok(entry !== undefined);
      // What no guest is shown.
      entry.edx = (entry.edx | (1 << 30)) >>> 0;
      entry.ecx = (entry.ecx | 4) >>> 0;
    }, /state\.json: the guest cannot go on on this host: this host's processor or KVM lacks dtes64, ia64$/);
    assert.match(problemsHere(folder)?.join() ?? "", /lacks dtes64, ia64/);
    await assertRefused((copy) => {
      for (const { cpuid } of copy.vcpus) for (const entry of cpuid) if (entry.function === 0) entry.ebx = 0x4142_4344;
    }, /its processor is DCBA/);
    await assertRefused((copy) => {
      copy.host.software = !copy.host.software;
    }, /hardware virtualization/);
    await assertRefused((copy) => {
      vcpu(copy, 0).msrs["0x4b564dff"] = "0x7";
    }, /does not know the MSRs 0x4b564dff/);
    assert.equal(await refusal(changed((copy) => (vcpu(copy, 0).msrs["0x4b564dff"] = "0x0"))), undefined);
  });

  it("what KVM does not take is named: the vCPU, and which of its registers", async () => {
    await assertRefused((copy) => {
      // No paging without protection.
      vcpu(copy, 1).sregs.cr0 = "0x80000000";
    }, /does not take the segment and control registers of vCPU 1 as saved: KVM_SET_SREGS failed with EINVAL/);
    await assertRefused((copy) => {
      // AVX without SSE.
      vcpu(copy, 0).xcrs["0"] = "0x5";
    }, /does not take XCR0 of vCPU 0 as saved: KVM_SET_XCRS failed with EINVAL/);
    await assertRefused((copy) => {
      vcpu(copy, 0).debugregs.dr7 = "0x100000000";
    }, /does not take the debug registers of vCPU 0/);
    await assertRefused((copy) => {
      vcpu(copy, 1).events.exception_injected = 1;
      vcpu(copy, 1).events.exception_nr = 2;
    }, /does not take the pending events of vCPU 1/);
    await assertRefused((copy) => {
      // No address.
      vcpu(copy, 1).msrs["0xc0000102"] = "0xfedcba9876543210";
    }, /does not take MSR 0xc0000102 of vCPU 1 as saved, 0xfedcba9876543210/);
  });

  it("XSAVE state that is shorter than this host's is filled with zeroes, not with what lies behind it", async () => {
    assert.equal(
      await refusal(
        changed((copy) => {
          const bytes = Buffer.from(vcpu(copy, 0).xsave, "base64");
          vcpu(copy, 0).xsave = bytes.subarray(0, 4096).toString("base64");
        }),
      ),
      undefined,
    );
  });

  it("any field of it missing, of another type or off its limits is refused with its reason; nothing is left behind", async () => {
    assert.equal(await refusal(state), undefined);
    const before = await settledResources();
    let [count, accepted] = [0, 0];
    const random = new Random(1);
    for (const mutation of mutations(state, "state")) {
      if (ALIKE.test(mutation.path)) continue;
      // Of values a part, a small one of those that may be as good as the old ones and cost a VM each; and no file that is
      // too large to be one.
      const isValue = !mutation.what.endsWith(" missing");
      if (isValue && random.below(mutation.mustFail ? SHARE_OF_WRONG : SHARE) > 0) continue;
      if (mutation.what === MANY && !/\.(?:native|redirtbl|channels)$/.test(mutation.path)) continue;
      count++;
      const started = performance.now();
      const error = await refusal(mutation.state);
      const shown = `${mutation.path}: ${mutation.what}`;
      assert.ok(performance.now() - started < 5000, `${shown} took seconds`);
      if (error === undefined) {
        // A configuration has defaults, and texts without a limit; a register that is not there is 0.
        const isFree = /^state\.config|\.(?:lapic|msrs|xcrs)$/.test(mutation.path);
        const mayBe = isFree && /^a very long text$| missing$/.test(mutation.what);
        assert.ok(mayBe || !mutation.mustFail, `accepted: ${shown}`);
        accepted++;
        continue;
      }
      if (!EXPECTED.some((kind) => error instanceof kind)) throw new Error(shown, { cause: error });
      assert.ok(error.message.length < 2000, `${shown}: ${error.message}`);
    }
    assert.ok(count > 700 && accepted > 50, `${String(count)} mutations, ${String(accepted)} accepted`);
    assert.deepEqual(await settledResources(), { ...before, eventLoop: ownResources().eventLoop });
  });
});
