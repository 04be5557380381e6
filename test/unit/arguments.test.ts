// Needs: nothing. The command line: what is given twice, what contradicts, and numbers of every spelling.
import assert from "node:assert/strict";
import { parseArgs } from "node:util";
import {
  BOOT_FLAGS,
  parseBalloonCommand,
  parseBoot,
  parseDoctor,
  parseLab,
  parseMemory,
  parseStats,
} from "../../vmm/cli/arguments.js";
import { parseBench } from "../../bench/ladder/options.js";
import { boot } from "../../vmm/cli/boot.js";
import { parseBytes, parseWhole } from "../../vmm/cli/numbers.js";
import { parsePlain } from "../../vmm/cli/parse-options.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { Random } from "../fuzz/random.js";

function refuses(action: () => unknown, message: RegExp): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof UsageError, String(error));
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

/** A right value for every option that takes one. */
const VALUES: Readonly<Record<string, string>> = {
  kernel: "k",
  initrd: "i",
  cmdline: "debug",
  memory: "64",
  cpus: "1",
  "cpu-template": "T2",
  accel: "kvm",
  protocol: "pvh",
  disk: "path=d",
  net: "user",
  vsock: "cid=3,path=v",
  console: "serial",
  balloon: "1",
  share: "s",
  vfio: "01:00.0",
  report: "r",
  metrics: "m",
  control: "c",
  jail: "on",
  "config-file": "f",
};

describe("arguments: given twice, empty, contradicting", () => {
  for (const [name, flag] of Object.entries(BOOT_FLAGS)) {
    if (flag.type === "boolean") {
      it(`--${name} may be given twice: it says the same`, () => {
        assert.doesNotThrow(() => parseBoot([`--${name}`, `--${name}`]));
      });
      continue;
    }
    const value = VALUES[name] ?? assert.fail(`no value for --${name}`);
    it(`--${name} is given twice, or empty`, () => {
      const once = [`--${name}`, value];
      assert.doesNotThrow(() => parseBoot(once));
      const short = "short" in flag ? [`-${flag.short}${value}`] : [`--${name}=${value}`];
      if ("multiple" in flag) assert.doesNotThrow(() => parseBoot([...once, ...short]));
      else refuses(() => parseBoot([...once, ...short]), new RegExp(`--${name} is given twice`));
      if (name === "cmdline") assert.equal(parseBoot(["--cmdline", ""]).cmdline, "");
      else refuses(() => parseBoot([`--${name}`, ""]), new RegExp(`--${name} `));
      refuses(() => parseBoot([`--${name}`, "--rng"]), new RegExp(`--${name}`));
      refuses(() => parseBoot([`--${name}`]), /argument missing/);
    });
  }

  it("an initramfs and none at all", () => {
    for (const argv of [
      ["--no-initrd", "-i", "X"],
      ["--initrd=X", "--no-initrd"],
    ]) {
      refuses(() => parseBoot(argv), /--no-initrd and --initrd X contradict each other/);
    }
  });

  it("a command that begins with nothing", () => {
    refuses(() => parseBoot(["--", "", "ls"]), /begins with an empty word/);
    assert.deepEqual(parseBoot(["--", "ls", ""]).command, ["ls", ""]);
  });

  it("the other commands, too", () => {
    refuses(() => parseBench(["--rounds", "1", "--rounds", "2"]), /vmlet bench: --rounds is given twice/);
    refuses(() => parseBench(["--json", ""]), /--json is given an empty value/);
    refuses(() => parseLab(["--cpu", "amd", "--cpu", "intel"]), /--cpu is given twice/);
    refuses(() => parseLab(["--cpu", ""]), /--cpu is given an empty value/);
    refuses(() => parseDoctor(["--json", "--fix"]), /leave --fix out/);
    refuses(() => parseStats(["a", "b"]), /give one FILE/);
    refuses(() => parseStats([""]), /give one FILE/);
    refuses(() => parseStats(["--folow", "a"]), /Unknown option '--folow'/);
    assert.equal(parseStats(["--", "--json"]).file, "--json");
    refuses(() => parseBalloonCommand(["s"]), /give SOCKET/);
    refuses(() => parseBalloonCommand(["s", "1", "2"]), /give SOCKET/);
    refuses(() => parseBalloonCommand(["", "1"]), /give SOCKET/);
    assert.equal(parseBalloonCommand(["s", "1", "--help"]).help, true);
  });
});

/** What is no number here, although JavaScript, C or a typesetter might think so. */
const NO_NUMBERS = [
  ..."1e3|0x10|0b1|0o7| 12|12 |+5|-5|-0|1_000|1,000|1.|.5|١|１２|²|NaN|Infinity|∞|twelve|12a|a12|\t1|1\n".split("|"),
  "9007199254740993",
  "9".repeat(400),
];

describe("arguments: numbers", () => {
  it("a whole number is decimal digits that are held exactly", () => {
    assert.deepEqual(["0", "7", "007", "9007199254740991"].map(parseWhole), [0, 7, 7, 2 ** 53 - 1]);
    for (const text of [...NO_NUMBERS, "", "1.5"]) assert.equal(parseWhole(text), undefined, text);
  });

  it("a size has a unit in either case, with or without B and i", () => {
    const sizes = ["1k", "1K", "1KiB", "2m", "2MB", "2 MiB", "3g", "3Gib", "1T", "0.5G", "1.5k", "12"];
    const [KIB, MIB, GIB] = [2 ** 10, 2 ** 20, 2 ** 30] as const;
    assert.deepEqual(
      sizes.map((text) => parseBytes(text, 1)),
      [KIB, KIB, KIB, 2 * MIB, 2 * MIB, 2 * MIB, 3 * GIB, 3 * GIB, 2 ** 40, GIB / 2, 1536, 12],
    );
    for (const text of [
      ...NO_NUMBERS,
      "",
      "12B",
      "12iB",
      "12 iB",
      "12X",
      "12Mi",
      "12  M",
      "0.3k",
      "K",
      "1.5.1G",
      "99999999T",
    ])
      assert.equal(parseBytes(text, 1), undefined, text);
  });

  const numeric: readonly (readonly [what: string, parse: (text: string) => unknown])[] = [
    ["--memory", parseMemory],
    ["--cpus", (text) => parseBoot([`--cpus=${text}`])],
    ["--balloon", (text) => parseBoot([`--balloon=${text}`])],
    ["vmlet bench --rounds", (text) => parseBench([`--rounds=${text}`])],
    ["vmlet balloon", (text) => parseBalloonCommand(["--", "socket", text])],
    ["--vsock cid=", (text) => parseBoot([`--vsock=path=v,cid=${text}`])],
    ["--net mtu=", (text) => parseBoot([`--net=user,mtu=${text}`])],
    ["--net bw=", (text) => parseBoot([`--net=user,bw=${text}`])],
    ["--net ops=", (text) => parseBoot([`--net=user,ops=${text}`])],
    ["--net forward=", (text) => parseBoot([`--net=user,forward=${text}:80`])],
    ["--disk block=", (text) => parseBoot([`--disk=path=d,block=${text}`])],
    ["--disk bw=", (text) => parseBoot([`--disk=path=d,bw=${text}`])],
    ["--disk ops=", (text) => parseBoot([`--disk=path=d,ops=${text}`])],
  ];
  for (const [what, parse] of numeric) {
    it(`${what} takes a number and nothing that only looks like one`, () => {
      assert.doesNotThrow(() => parse("512"));
      for (const text of NO_NUMBERS) refusesAny(() => parse(text), text);
    });
  }

  it("a limit of nothing is not taken for no limit", () => {
    refuses(() => parseBoot(["--disk", "path=d,bw=0"]), /bw 0 would let nothing through/);
    refuses(() => parseBoot(["--net", "user,ops=0"]), /ops 0 would let nothing through/);
  });
});

function refusesAny(action: () => unknown, what: string): void {
  assert.throws(action, (error) => error instanceof UsageError, what);
}

describe("arguments: plain ones are read without Node's parser", () => {
  const words = Object.keys(BOOT_FLAGS).flatMap((name) => [`--${name}`, `--${name}=x`, `--${name}=`]);
  const letters = ["-k", "-i", "-c", "-m", "-q", "-h", "-z", "-qk", "-kx", "-m=1"];
  const others = ["x", "", "-", "--", "--=x", "--no-quiet", "--toString", "--__proto__=x", "-1", "a=b", "--kernel==x"];

  it("the result is Node's, whatever stands there", () => {
    const random = new Random(1);
    let plain = 0;
    for (let round = 0; round < 50_000; round++) {
      const args = Array.from({ length: random.below(6) }, () =>
        random.pick(random.pick([words, letters, ["x"], others])),
      );
      const ours = parsePlain(args, BOOT_FLAGS);
      if (ours === undefined) continue;
      plain++;
      const { values, positionals, tokens } = parseArgs({ args, options: BOOT_FLAGS, strict: true, tokens: true });
      assert.deepEqual({ ...ours.values }, { ...values }, args.join(" "));
      assert.deepEqual(ours.positionals, positionals);
      const given = tokens.map((token) => (token.kind === "option" ? { name: token.name, value: token.value } : token));
      assert.deepEqual(ours.given, given, args.join(" "));
    }
    assert.ok(plain > 5000, `only ${String(plain)} were plain`);
  });

  it("a device of the host beside a template is refused before anything is looked for", async () => {
    await assert.rejects(boot(["--vfio", "01:00.0", "--from-template"]), (error) => {
      assert.ok(error instanceof UsageError);
      assert.match(error.message, /^vmlet boot: --vfio and --from-template contradict each other/);
      return true;
    });
  });

  it("what people write is plain", () => {
    const options = ["--kernel", "k", "-i", "i", "--memory=256M", "-q", "--disk", "path=a", "--disk=path=b", "--rng"];
    assert.ok(parsePlain(options, BOOT_FLAGS) !== undefined);
  });
});
