// Needs: nothing. What guests are shown of a processor: templates by name, from files, and of what several hosts have.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describeConfig, resolveDescribed } from "../../vmm/config/describe.js";
import { CPU_TEMPLATE_NAMES } from "../../vmm/config/defaults.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { ConfigError } from "../../vmm/errors.js";
import type { HostCpu } from "../../vmm/machine/host-cpu.js";
import { formatCpuTemplate, openCpuTemplate, parseCpuTemplate } from "../../vmm/machine/cpu-template-file.js";
import { templateOfHosts } from "../../vmm/snapshot/host-descriptions.js";
import { namedTemplate, templateProblem, throughTemplate, type CpuTemplate } from "../../vmm/x86/cpu-template.js";
import { missingFeatures, registerOf, type CpuidRegister } from "../../vmm/x86/cpu-features.js";
import type { CpuidEntry } from "../../vmm/x86/cpuid.js";
import { RECORDED } from "../helpers/recorded-cpus.js";

const { cascadeLake, broadwell, milan } = RECORDED;

function named(name: string): CpuTemplate {
  const template = namedTemplate(name);
  assert.ok(template !== undefined);
  return template;
}

function at(entries: readonly CpuidEntry[], leaf: number, register: CpuidRegister, index = 0): number {
  return registerOf(entries, { leaf, index, register });
}

/** Features of the host that a guest is not shown. */
function hidden(host: HostCpu, template: CpuTemplate): string[] {
  return missingFeatures(host.supported, throughTemplate(host.supported, template));
}

/** What `vmlet doctor --json` says on such a host. */
function described(path: string, cpu: HostCpu, changes: object = {}) {
  const arch_capabilities = `0x${cpu.archCapabilities.toString(16)}`;
  return {
    path,
    text: JSON.stringify({ cpu: { software: false, arch_capabilities, cpuid: cpu.supported, ...changes } }),
  };
}

describe("cpu-template", () => {
  it("T2, T2S and T2CL hide what the published ones hide, and show one model", () => {
    const hides = [
      ...["avx512f", "avx512dq", "rdseed", "adx", "clflushopt", "clwb", "avx512cd", "avx512bw", "avx512vl"],
      ...["avx512_vnni", "pku", "xsavec", "xgetbv1", "xsaves", "pkru-state", "avx512-zmm-state", "3dnowprefetch"],
    ];
    for (const name of ["T2", "T2S", "T2CL"]) {
      const lost = hidden(cascadeLake, named(name));
      for (const feature of hides) assert.ok(lost.includes(feature), `${name} ${feature}`);
      for (const feature of ["avx2", "fma", "aes", "bmi2", "erms", "smap", "invpcid", "spec_ctrl", "kvmclock"]) {
        assert.ok(!lost.includes(feature), `${name} ${feature}`);
      }
      for (const host of [cascadeLake, broadwell]) {
        const shown = throughTemplate(host.supported, named(name));
        assert.equal(at(shown, 1, "eax") & 0x0fff_3fff, 0x0003_06f2);
        assert.equal(templateProblem(host.supported, named(name)), undefined);
      }
    }
    assert.ok(hidden(milan, named("T2A")).includes("sse4a"));
    assert.equal(templateProblem(milan.supported, named("T2A")), undefined);
    assert.equal(at(throughTemplate(milan.supported, named("T2A")), 0x8000_0008, "ebx") & 0xc0205, 0xc0000);
    // Both ways between two models.
    const [a, b] = [cascadeLake, broadwell].map((host) => throughTemplate(host.supported, named("T2CL")));
    assert.deepEqual(missingFeatures(a ?? [], b ?? []), ["arch_capabilities"]);
    assert.deepEqual(missingFeatures(b ?? [], a ?? []), []);
  });

  it("the bits of each named template are the published ones", () => {
    const register = (name: string, leaf: number, which: CpuidRegister, index = 0): string => {
      const found = named(name).cpuid.find(
        (each) => each.leaf === leaf && each.index === index && each.register === which,
      );
      const file = formatCpuTemplate({ ...named(name), cpuid: found === undefined ? [] : [found], msrs: [] });
      return /"bitmap": "0b([01x]+)"/.exec(file)?.[1] ?? "";
    };
    for (const name of CPU_TEMPLATE_NAMES) {
      assert.equal(register(name, 0x1, "eax"), "xxxx000000000011xx00011011110010");
      assert.equal(register(name, 0x1, "ecx"), "xxxxxxxxxxxxx0xx00xx00x0000000xx");
      assert.equal(register(name, 0x1, "edx"), "000x0xxxx00xx0xxxxx1xxxx1xxxxxxx");
      assert.equal(register(name, 0x7, "ebx"), "00000000000x000000x00x1xxxx0x0xx");
      assert.equal(register(name, 0x7, "ecx"), "x0xxxxxxx0xxxxx0x0x00000x0x0000x");
      assert.equal(register(name, 0x7, "edx"), "xxxxxxxxxxxxxxxxxxxxxxx0xxx000xx");
      assert.equal(register(name, 0xd, "eax"), "xxxxxxxxxxxxxxxxxxxxxx0x00000xxx");
      assert.equal(register(name, 0xd, "eax", 1), "xxxxxxxxxxxxxxxxxxxxxxxxxxxx000x");
      const isAlike = name === "T2CL" || name === "T2A";
      const [ecx, edx] = isAlike
        ? ["xx0xxxxxxxxxxxxxxxxxxxx000xxxxxx", "xxxxx00000xxxxxxxxxxxxxxxxxxxxxx"]
        : ["xx0xxxxxxxxxxxxxxxxxxxx0xxxxxxxx", "xxxxx0xxxxxxxxxxxxxxxxxxxxxxxxxx"];
      assert.deepEqual([register(name, 0x8000_0001, "ecx"), register(name, 0x8000_0001, "edx")], [ecx, edx]);
      const ebx = name === "T2A" ? "xxxxxxxxxxxx11xxxxxxxx0xxxxxx0x0" : "xxxxxxxxxxxxxxxxxxxxxx0xxxxxxxxx";
      assert.equal(register(name, 0x8000_0008, "ebx"), ebx);
    }
    const msrs = (name: string): unknown => JSON.parse(formatCpuTemplate({ ...named(name), cpuid: [] }));
    assert.deepEqual(msrs("T2"), { cpuid_modifiers: [], msr_modifiers: [] });
    assert.deepEqual(msrs("T2S"), {
      cpuid_modifiers: [],
      msr_modifiers: [{ addr: "0x10a", bitmap: "0b0000000000000000000000000000000000001100000010100000110001001100" }],
    });
    assert.deepEqual(msrs("T2CL"), {
      cpuid_modifiers: [],
      msr_modifiers: [{ addr: "0x10a", bitmap: "0b00000000000000000000000000000000000xxx0x0000x0x0xxx0000xxxxxxxxx" }],
    });
  });

  it("on another maker's processor, or one that lacks what it needs, there is a reason", () => {
    assert.equal(
      templateProblem(milan.supported, named("T2")),
      "is for processors of GenuineIntel; this host's is AuthenticAMD",
    );
    assert.equal(
      templateProblem(cascadeLake.supported, named("T2A")),
      "is for processors of AuthenticAMD; this host's is GenuineIntel",
    );
    const old = broadwell.supported.map((entry) =>
      entry.function === 7 ? { ...entry, ebx: entry.ebx & ~(1 << 9) } : entry,
    );
    assert.equal(templateProblem(old, named("T2")), "needs erms, which this host does not have");
  });

  it("state that is hidden has no leaf any more, and takes no room", () => {
    const shown = throughTemplate(cascadeLake.supported, named("T2"));
    assert.deepEqual(
      shown.filter((entry) => entry.function === 0xd).map(({ index }) => index),
      [0, 1, 2],
    );
    assert.deepEqual([at(shown, 0xd, "ebx"), at(shown, 0xd, "ecx")], [0x340, 0x340]);
    const none: CpuTemplate = { name: "none", vendor: undefined, cpuid: [], msrs: [] };
    assert.deepEqual(throughTemplate(cascadeLake.supported, none), cascadeLake.supported);
  });

  it("what several hosts have in common fits each of them, from whichever it comes, and is its own when it is read again", () => {
    const text = templateOfHosts([described("a.json", cascadeLake), described("b.json", broadwell)]);
    const template = parseCpuTemplate(text, "ours.json");
    for (const from of [cascadeLake, broadwell]) {
      const shown = throughTemplate(from.supported, template);
      for (const to of [cascadeLake, broadwell]) assert.deepEqual(missingFeatures(shown, to.supported), []);
      assert.equal(templateProblem(from.supported, template), undefined);
      assert.equal(at(shown, 0x8000_0008, "eax"), 0x302e);
      const { mask = 0n, value = 0n } = template.msrs[0] ?? {};
      // RRSBA, which one has, and nothing that the other has not.
      assert.equal(
        (from.archCapabilities & ~mask) | value,
        template.msrs.length === 0 ? from.archCapabilities : 1n << 19n,
      );
    }
    assert.deepEqual(hidden(broadwell, template), []);
    assert.ok(hidden(cascadeLake, template).includes("avx512f"));
    // A third that has more is shown no more.
    const more = broadwell.supported.map((entry) => (entry.function === 7 ? { ...entry, edx: 0xffff_ffff } : entry));
    assert.equal(
      at(throughTemplate(more, template), 7, "edx") & ~0x2800,
      at(broadwell.supported, 7, "edx") & 0xac00_0400,
    );
    assert.equal(formatCpuTemplate({ ...template, name: "", vendor: undefined }), text);
  });

  it("hosts that have nothing in common, or nothing to say, are refused: all that is wrong in one error", () => {
    const problems = (...hosts: Parameters<typeof templateOfHosts>[0]): readonly string[] => {
      try {
        templateOfHosts(hosts);
      } catch (error) {
        assert.ok(error instanceof ConfigError, String(error));
        return error.problems;
      }
      return [];
    };
    const good = described("good", milan);
    assert.deepEqual(problems(good), []);
    assert.match(
      problems(good, described("intel", broadwell)).join(),
      /^intel: GenuineIntel; good: AuthenticAMD; no temp/,
    );
    const wrong = problems(
      good,
      { path: "text", text: "x" },
      { path: "old", text: "{}" },
      { path: "none", text: '{"cpu": null}' },
      described("soft", milan, { software: true }),
      described("bad", milan, { cpuid: [{}] }),
    );
    for (const [i, reason] of [
      /^text: no JSON/,
      /^old lacks "cpu"; write it with: vmlet doctor --json/,
      /^none: there is no \/dev\/kvm/,
      /^soft: that host's KVM has no hardware virtualization/,
      /^bad\.cpu\.cpuid\[0\] lacks "function"/,
    ].entries()) {
      assert.match(wrong[i] ?? "", reason);
    }
  });

  it("a file that cannot be one is refused with its path, and every problem", () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-template-"));
    const path = join(folder, "ours.json");
    const refused = (text: string): string => {
      writeFileSync(path, text);
      try {
        openCpuTemplate(path);
      } catch (error) {
        assert.ok(error instanceof ConfigError, String(error));
        return error.message;
      }
      return "";
    };
    const modifier = (register: string, bitmap: string): string =>
      JSON.stringify({ cpuid_modifiers: [{ leaf: "0x1", subleaf: "0x0", modifiers: [{ register, bitmap }] }] });
    try {
      assert.equal(refused(modifier("ecx", "0bxx_01")), "");
      assert.deepEqual(openCpuTemplate(path).cpuid, [{ leaf: 1, index: 0, register: "ecx", mask: 3, value: 1 }]);
      assert.equal(refused('{"msr_modifiers": [{"addr": "0x10a", "bitmap": "0b0"}]}'), "");
      assert.match(refused("no"), /ours\.json is no JSON/);
      assert.match(refused("[]"), /ours\.json: The CPU template \(a list\) is not a plain object/);
      assert.match(refused('{"reg_modifiers": []}'), /Unknown option "reg_modifiers"/);
      assert.match(refused(modifier("ecx", `0b${"0".repeat(33)}`)), /bitmap "0b0+" is not a bitmap/);
      assert.match(refused(modifier("rcx", "0b2")), /register "rcx" is not one of[^]*bitmap "0b2" is not a bitmap/);
      assert.match(refused('{"cpuid_modifiers": [{"leaf": "0x123456789", "subleaf": "0"}]}'), /leaf[^]*modifiers/);
      assert.match(refused(`"${" ".repeat(2 ** 20)}"`), /has 1048578 bytes, more than 1048576/);
      const errorOf = (name: string) => () => openCpuTemplate(name);
      assert.throws(
        errorOf(join(folder, "T3")),
        /T3: no such file or folder \(ENOENT\); known by name are T2, T2S, T2CL, T2A/,
      );
      assert.throws(errorOf(folder), ConfigError);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("is a part of the configuration: a name stays one, a path becomes absolute", () => {
    const config = (cpuTemplate: string): string | undefined =>
      resolveDescribed(describeConfig(resolveConfig({ kernel: "vmlinux", cpuTemplate }))).cpuTemplate;
    assert.deepEqual([config("T2"), config("/a/b.json")], ["T2", "/a/b.json"]);
    assert.equal(config("b.json"), join(process.cwd(), "b.json"));
    assert.throws(() => config(""), /CPU template \(cpuTemplate\) "" is not the name of a template, or a path/);
  });
});
