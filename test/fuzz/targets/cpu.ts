// What is saved of processors, spoiled, and descriptions of hosts: refused with the place, or compared with a host; the
// words about it are no longer than a person reads, and cost no more than a moment.
import assert from "node:assert/strict";
import { StateError, StateReader } from "../../../devices/state.js";
import { ConfigError } from "../../../vmm/errors.js";
import { vcpuFromData, vcpuToData } from "../../../vmm/kvm/vcpu-data.js";
import { formatCpuTemplate, parseCpuTemplate } from "../../../vmm/machine/cpu-template-file.js";
import { cpuProblems } from "../../../vmm/snapshot/cpu-check.js";
import { templateOfHosts } from "../../../vmm/snapshot/host-descriptions.js";
import { readHost } from "../../../vmm/snapshot/saved-host.js";
import { namedTemplate, templateProblem, throughTemplate } from "../../../vmm/x86/cpu-template.js";
import { missingFeatures } from "../../../vmm/x86/cpu-features.js";
import { guestCpuid } from "../../../vmm/x86/cpuid.js";
import { RECORDED } from "../../helpers/recorded-cpus.js";
import { mutateState } from "../mutate-state.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const HOSTS = Object.values(RECORDED);
/** Spoiled copies of one state, or template, that are read. */
const COPIES = 8;
/** Every feature by name, and the registers. */
const MAX_WORDS = 8000;

/** What is saved of a processor of each host: making it takes longer than most cases. */
const VCPUS: ReadonlyMap<object, unknown> = new Map(HOSTS.map((host) => [host, savedVcpu(host)]));

const NONE: readonly unknown[] = [];
const TEMPLATES = ["T2", "T2S", "T2CL", "T2A"].map((name): unknown => {
  const named = namedTemplate(name);
  assert.ok(named !== undefined);
  return JSON.parse(formatCpuTemplate(named));
});

function savedVcpu({ supported }: (typeof HOSTS)[number]): unknown {
  const structure = (bytes: number): DataView<ArrayBuffer> => new DataView(new ArrayBuffer(bytes));
  const data = vcpuToData({
    cpuid: guestCpuid(supported, { index: 0, count: 1, nested: false, tscDeadline: true, hypercalls: true }),
    ...{ tscKhz: 2_000_000, mpState: 0, xcrs: [[0, 7n]], msrs: [[0x10, 1n]] },
    ...{ regs: structure(144), sregs: structure(312), debugregs: structure(128), xsave: structure(4096) },
    ...{ lapic: structure(1024), events: structure(64) },
  });
  return JSON.parse(JSON.stringify(data));
}

function savedState(random: Random): { vcpus: unknown[]; host: object } {
  const host = random.pick(HOSTS);
  const processor = { vendor: "GenuineIntel", family: 6, model: 85, stepping: 7 };
  const native = random.oneIn(2) ? host.supported : NONE;
  const facts = { cpu: "a processor", kernel: "6.1", boot: "x", software: random.oneIn(2) };
  return { vcpus: [VCPUS.get(host)], host: { ...facts, processor, native } };
}

/** Runs `read`, which may refuse what it is given. */
function refusing(random: Random, read: () => void): void {
  random.operations++;
  try {
    read();
  } catch (error) {
    if (!(error instanceof StateError || error instanceof ConfigError)) throw error;
    assert.ok(error.message.length < MAX_WORDS, error.message);
  }
}

function compare(random: Random): void {
  const whole = savedState(random);
  for (let left = COPIES; left > 0; left--) {
    refusing(random, () => {
      const state = new StateReader(mutateState(random, whole, random.pick([0, 1, 1, 2, 5])), "state");
      const vcpus = state.list("vcpus", { minimum: 0, maximum: 32 }).map(vcpuFromData);
      const host = readHost(state.at("host"));
      const here = random.pick(HOSTS);
      const problems = cpuProblems(
        { vcpus, host },
        {
          ...{
            cpu: here,
            software: random.oneIn(2),
            native: () => here.supported,
            boot: () => random.pick(["x", "y"]),
          },
          tscKhz: random.pick([0, 2_000_000, 3_000_000]),
        },
      );
      assert.ok(problems.join("").length < MAX_WORDS, problems.join());
    });
  }
}

function describeHosts(random: Random): void {
  const hosts = Array.from({ length: 1 + random.below(3) }, (_, i) => {
    const { supported, archCapabilities } = random.pick(HOSTS);
    const cpu = { software: false, arch_capabilities: `0x${archCapabilities.toString(16)}`, cpuid: supported };
    const json = mutateState(random, { cpu }, random.pick([0, 0, 1, 3]));
    return { path: `host${String(i)}`, text: JSON.stringify(json) };
  });
  const text = templateOfHosts(hosts);
  const template = parseCpuTemplate(text, "made");
  assert.equal(formatCpuTemplate(template), text);
  // Whatever it was made of, it hides, and shows nothing that a host has not.
  const { supported } = random.pick(HOSTS);
  assert.deepEqual(missingFeatures(throughTemplate(supported, template), supported), []);
}

function readTemplate(random: Random): void {
  const named = random.pick(TEMPLATES);
  for (let left = COPIES; left > 0; left--) {
    refusing(random, () => {
      const json = mutateState(random, named, random.pick([0, 1, 2]));
      const template = parseCpuTemplate(JSON.stringify(json), "spoiled");
      const problem = templateProblem(random.pick(HOSTS).supported, template);
      assert.ok((problem ?? "").length < MAX_WORDS);
    });
  }
}

export const cpuTarget: FuzzTarget = {
  name: "cpu",
  run(random: Random) {
    const read = random.pick([compare, compare, describeHosts, readTemplate]);
    if (read === describeHosts) {
      refusing(random, () => {
        describeHosts(random);
      });
    } else read(random);
  },
};
