// Needs: nothing. Network, sockets, console, entropy and balloon as users ask for them.
import assert from "node:assert/strict";
import { parseBoot, parseStats } from "../../vmm/cli/arguments.js";
import { formatBalloon, parseBalloon } from "../../vmm/cli/balloon-argument.js";
import { parseSnapshotRestore } from "../../vmm/cli/snapshot-arguments.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { parseNet } from "../../vmm/cli/net-argument.js";
import { parseShare } from "../../vmm/cli/share-argument.js";
import { parseVsock } from "../../vmm/cli/vsock-argument.js";
import { intervalProblem } from "../../vmm/config/balloon.js";
import { deviceCount } from "../../vmm/config/devices.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import type { ResolvedConfig, VmConfig } from "../../vmm/config/types.js";
import { overridden } from "../../vmm/snapshot/overrides.js";
import { refuseShares } from "../../vmm/snapshot/refuse-shares.js";
import { templatePath } from "../../vmm/snapshot/template.js";
import { openDevices } from "../../vmm/virtio/openers.js";
import { ConfigError } from "../../vmm/errors.js";
import { bootInLab } from "../../vmm/cli/boot-in-lab.js";

const resolve = (config: Partial<VmConfig>): ResolvedConfig => resolveConfig({ kernel: "k", ...config });

function problemsOf(config: Partial<VmConfig>): readonly string[] {
  try {
    resolve(config);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems;
  }
  return [];
}

describe("device options: configuration", () => {
  it("without any, there are none, and the serial port is the console", () => {
    const config = resolve({});
    assert.equal(deviceCount(config), 0);
    assert.match(config.cmdline, /^console=ttyS0 /);
  });

  it("fills in the defaults and reads addresses", () => {
    const config = resolve({
      nets: [{ tap: "auto", mac: "52:54:00:12:34:56", hostAddress: "172.16.0.1/24" }],
      vsock: { cid: 3, path: "v" },
      balloon: { targetMib: 64 },
      console: "virtio",
    });
    const [net] = config.nets;
    assert.ok(net !== undefined);
    assert.deepEqual(net.hostAddress, { address: "172.16.0.1", prefixLength: 24 });
    assert.deepEqual([...(net.mac ?? [])], [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    assert.deepEqual(config.balloon, {
      targetMib: 64,
      deflateOnOom: false,
      reporting: false,
      hinting: false,
      statisticsIntervalS: undefined,
    });
    assert.match(config.cmdline, /^console=hvc0 /);
    assert.equal(resolve({ console: "virtio", bareCmdline: true, cmdline: "x" }).cmdline, "x");
  });

  it("reports everything that is wrong at once", () => {
    const nets = [
      { tap: "auto", mac: "01:00:00:00:00:01", mtu: 67, hostAddress: "172.16.0.256/24" },
      { tap: "tap0", hostAddress: "10.0.0.1/33", color: 1 },
      { tap: "tap0", hostAddress: "10.0.0.1/8" },
    ];
    const config = { nets, vsock: { cid: 2, path: "" }, balloon: { targetMib: 129 }, console: "vga" };
    assert.deepEqual(problemsOf(config as unknown as Partial<VmConfig>), [
      'Network device 1: mac "01:00:00:00:00:01" is not an address of one interface, such as 52:54:00:12:34:56',
      "Network device 1: mtu 67 is not a whole number from 68 to 65535 bytes",
      'Network device 1: hostAddress "172.16.0.256/24" is not an IPv4 address of a host with a prefix from 1 to 32, such as 172.16.0.1/24',
      'Network device 2: unknown option "color"; known are tap, user, mac, mtu, hostAddress, mmds, vhost, rateLimiter, rxRateLimiter, txRateLimiter',
      'Network device 2: hostAddress "10.0.0.1/33" is not an IPv4 address of a host with a prefix from 1 to 32, such as 172.16.0.1/24',
      "Socket device: context id 2 is not a whole number from 3 to 4294967294",
      'Socket device: path "" is not a path',
      'console "vga" is not one of serial, virtio',
      'TAP interface "tap0" is given to more than one network device',
      'Network device 3: the interface tap0 has addresses already; "auto" can be given one',
      "Balloon: targetMib 129 is not a whole number from 0 to 128 MiB, the guest's memory",
    ]);
  });

  it("a network in user mode: defaults, and the guest's address on the command line", () => {
    const nets = [{ tap: "tap0" }, { user: { forwards: [{ hostPort: 8080, guestPort: 80 }] } }];
    const config = resolve({ nets, cmdline: "ip=dhcp" });
    const forward = { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 80 };
    assert.deepEqual(config.nets[1]?.user, { forwards: [forward], reachesHost: true });
    assert.match(config.cmdline, / ip=10\.0\.2\.15::10\.0\.2\.2:255\.255\.255\.0::eth1:off:10\.0\.2\.3 ip=dhcp$/);
    assert.doesNotMatch(resolve({ nets: [{ tap: "tap0" }] }).cmdline, / ip=/);
  });

  it("a network in user mode: reports everything that is wrong at once", () => {
    const forwards = [{ hostPort: 0, guestPort: 80.5, protocol: "icmp", hostAddress: "::1", to: 1 }];
    const nets = [{ user: { forwards, open: true } }, { user: {}, tap: "tap0", hostAddress: "10.0.0.1/8" }, {}];
    assert.deepEqual(problemsOf({ nets } as unknown as Partial<VmConfig>), [
      'Network device 1: user: unknown option "open"; known are forwards, reachesHost',
      'Network device 1: forward 1: unknown option "to"; known are protocol, hostAddress, hostPort, guestPort',
      'Network device 1: forward 1: protocol "icmp" is not one of tcp, udp',
      'Network device 1: forward 1: hostAddress "::1" is not an IPv4 address',
      "Network device 1: forward 1: hostPort 0 is not a whole number from 1 to 65535",
      "Network device 1: forward 1: guestPort 80.5 is not a whole number from 1 to 65535",
      "Only one network device can be in user mode",
      "Network device 2: it has the TAP interface tap0 or is in user mode, not both",
      'Network device 2: a network in user mode has addresses already; "auto" can be given one',
      "Network device 3: no TAP interface is given, nor user mode",
    ]);
  });

  it("shared folders: default tags, and everything that is wrong at once", () => {
    const shares = [{ path: "a" }, { path: "b", tag: "x", isReadonly: true }, { path: "c" }];
    assert.deepEqual(resolve({ shares }).shares, [
      { path: "a", tag: "share0", isReadonly: false },
      { path: "b", tag: "x", isReadonly: true },
      { path: "c", tag: "share2", isReadonly: false },
    ]);
    const wrong = [
      { path: "a", tag: "é".repeat(19) },
      { path: "", tag: "a\nb", color: 1 },
      { path: "c", tag: "share1" },
    ];
    assert.deepEqual(problemsOf({ shares: wrong }), [
      'Shared folder 2: unknown option "color"; known are path, tag, isReadonly',
      'Shared folder 2: path "" is not a path',
      'Shared folder 2: tag "a\\nb" is not a name in one line',
      `Shared folder 1: tag "${"é".repeat(19)}" has 38 bytes; the limit is 36`,
      'Tag "share1" is given to more than one shared folder',
    ]);
    assert.deepEqual(problemsOf({ shares: Array.from({ length: 15 }, () => ({ path: "a" })) }), [
      "shares has 15 items; the limit is 14",
    ]);
  });

  it("a guest with a shared folder is not moved: says which folder", () => {
    const message = "Shared folder /code: a guest with one cannot be moved";
    assert.throws(
      () => {
        refuseShares(resolve({ shares: [{ path: "/code" }] }));
      },
      { code: "ERR_SNAPSHOT", message },
    );
    refuseShares(resolve({}));
  });

  it("guests with other folders have the same template; those with more of them, or other tags, another one", () => {
    const pathWith = (shares: VmConfig["shares"]) => {
      // Files that are there: a template depends on them.
      return templatePath(
        resolve({ kernel: "package.json", initrd: "README.md", ...(shares === undefined ? {} : { shares }) }),
      );
    };
    const one = pathWith([{ path: "/code" }]);
    assert.equal(pathWith([{ path: "elsewhere", isReadonly: true }]), one);
    const others = [undefined, [{ path: "/code", tag: "code" }], [{ path: "/code" }, { path: "/code" }]].map(pathWith);
    assert.equal(new Set([one, ...others]).size, 4);
  });

  it("a restored guest has the folders of its restore under the tags that it knows", () => {
    const config = resolve({
      shares: [
        { path: "/a", tag: "x" },
        { path: "/b", isReadonly: true },
      ],
    });
    const shares = { share0: { path: "/c", isReadonly: true }, share1: { path: "/d" } };
    assert.deepEqual(overridden(config, { shares }).shares, [
      { path: "/c", tag: "x", isReadonly: true },
      { path: "/d", tag: "share1", isReadonly: true },
    ]);
    for (const [wrong, problem] of [
      [{ share2: { path: "/c" } }, 'The saved guest has no shared folder "share2"; it has share0, share1'],
      [{ share0: { path: "" } }, 'Shared folder 1: path "" is not a path'],
      [{ share0: { path: "/c", tag: "y" } }, 'Overrides: share0: unknown option "tag"; known are path, isReadonly'],
      [{ share0: { path: "/c", isReadonly: 1 } }, "Shared folder 1: isReadonly 1 is not true or false"],
    ] as const) {
      assert.throws(() => overridden(config, { shares: wrong as never }), { code: "ERR_CONFIG", message: problem });
    }
    assert.deepEqual(parseSnapshotRestore(["--share", "share0=/x=y,ro", "--share", "share1=z", "saved"]).overrides, {
      shares: { share0: { path: "/x=y", isReadonly: true }, share1: { path: "z" } },
    });
    for (const text of ["/x", "share0=/x,tag=y", "share0="]) {
      assert.throws(() => parseSnapshotRestore(["--share", text, "saved"]), UsageError, text);
    }
  });

  it("all kinds together have 14 windows, in an order that does not depend on how they were asked for", () => {
    const all = {
      balloon: { targetMib: 0 },
      rng: true,
      console: "virtio",
      vsock: { cid: 3, path: "v" },
      nets: [{ tap: "auto" }, { tap: "auto" }],
      disks: [{ path: "a" }],
      shares: [{ path: "a" }],
    } as const;
    assert.equal(deviceCount(resolve(all)), 8);
    const opened: string[] = [];
    const opener = (name: string) => () => {
      opened.push(name);
      return [];
    };
    const names = ["share", "balloon", "rng", "disk", "console", "vsock", "net"] as const;
    const openers = Object.fromEntries(names.map((name) => [name, opener(name)]));
    openDevices(openers, resolve(all), () => undefined);
    assert.deepEqual(opened, ["disk", "net", "vsock", "console", "rng", "balloon", "share"]);
    const disks = Array.from({ length: 8 }, () => ({ path: "a" }));
    assert.deepEqual(problemsOf({ ...all, disks }), ["Number of devices 15 is more than 14"]);
  });
});

describe("device options: the lab", () => {
  it("refuses what cannot reach this host from there, before it starts", async () => {
    const argv = ["--net", "tap=auto", "--vsock", "cid=3,path=/tmp/v", "--share", "/tmp"];
    const config = resolve({ nets: [{ tap: "auto" }], vsock: { cid: 3, path: "/tmp/v" }, shares: [{ path: "/tmp" }] });
    await assert.rejects(bootInLab(parseBoot(argv), config, "amd"), {
      code: "ERR_CONFIG",
      message: /^--net and --vsock and --share cannot reach this host from the lab/,
    });
  });
});

describe("device options: arguments", () => {
  it("reads every key", () => {
    assert.deepEqual(parseNet("tap=auto,mac=52:54:00:12:34:56,mtu=9000,ip=10.0.0.1/8,bw=1M,ops=7"), {
      tap: "auto",
      mac: "52:54:00:12:34:56",
      mtu: 9000,
      hostAddress: "10.0.0.1/8",
      rateLimiter: {
        bandwidth: { size: 2 ** 20, oneTimeBurst: 0, refillTimeMs: 1000 },
        operations: { size: 7, oneTimeBurst: 0, refillTimeMs: 1000 },
      },
    });
    assert.deepEqual(parseNet("user,forward=8080:80,forward=0.0.0.0:5353:53/udp,host=off,mtu=1500"), {
      user: {
        forwards: [
          { hostPort: 8080, guestPort: 80 },
          { protocol: "udp", hostAddress: "0.0.0.0", hostPort: 5353, guestPort: 53 },
        ],
        reachesHost: false,
      },
      mtu: 1500,
    });
    assert.deepEqual(parseNet("user"), { user: {} });
    assert.deepEqual(parseShare("/a=b,,c,ro,tag=x,,y"), { path: "/a=b,c", tag: "x,y", isReadonly: true });
    assert.deepEqual(parseShare("."), { path: "." });
    assert.deepEqual(parseVsock("path=/a,,b,cid=42"), { cid: 42, path: "/a,b" });
    assert.deepEqual(parseVsock("cid=42"), { cid: 42, path: undefined });
    const balloon = parseBalloon("64,deflate-on-oom,reporting");
    assert.deepEqual(balloon, { targetMib: 64, deflateOnOom: true, reporting: true });
    assert.deepEqual(parseBalloon(formatBalloon(balloon)), balloon);
    const options = parseBoot(["--net", "tap=a", "--net", "tap=b", "--console", "virtio", "--rng", "--balloon", "0"]);
    assert.deepEqual(
      [options.nets.map(({ tap }) => tap), options.console, options.rng, options.balloon?.targetMib],
      [["a", "b"], "virtio", true, 0],
    );
    assert.deepEqual(parseStats(["--follow", "m"]), { help: false, json: false, follow: true, file: "m" });
  });

  const bad: [parse: (text: string) => unknown, text: string, message: RegExp][] = [
    [parseNet, "mac=52:54:00:12:34:56", /neither user nor tap= is given/],
    [parseNet, "user=me", /user takes no value/],
    [parseNet, "user,user", /user is given twice/],
    [parseNet, "user,forward=80", /forward 80 is not \[ADDRESS:\]HOSTPORT:GUESTPORT/],
    [parseNet, "user,forward=80:80/sctp", /with \/udp behind it/],
    [parseNet, "user,host=no", /host no is not one of on, off/],
    [parseNet, "tap=a,forward=80:80", /forward= is only for user/],
    [parseNet, "tap=a,host=off", /host= is only for user/],
    [parseNet, "tap=a,mtu=big", /mtu big is not a whole number/],
    [parseNet, "auto", /unknown "auto"; known are user, tap=/],
    [parseVsock, "cid=3,path=", /path needs a value/],
    [parseVsock, "path=a", /no cid= is given/],
    [parseVsock, "cid=-1,path=a", /cid -1 is not a whole number/],
    [parseShare, "", /does not begin with a folder's path/],
    [parseShare, ",ro", /does not begin with a folder's path/],
    [parseShare, "/a,", /unknown ""; known are tag=, ro/],
    [parseShare, "/a,rw", /unknown "rw"/],
    [parseShare, "/a,tag=", /tag needs a value/],
    [parseShare, "/a,ro,ro", /ro is given twice/],
    [parseShare, "/a,ro=1", /ro takes no value/],
    [parseBalloon, "reporting", /begins with a number of MiB/],
    [parseBalloon, "reporting,64", /unknown "64"/],
    [parseBalloon, "64=1", /takes no value/],
    [(text) => parseBoot(["--console", text]), "tty", /--console tty: not one of serial, virtio/],
    [(text) => parseStats([text]), "--json", /give one FILE/],
  ];
  for (const [parse, text, message] of bad) {
    it(`refuses: ${text}`, () => {
      assert.throws(
        () => parse(text),
        (error) => error instanceof UsageError && message.test(error.message),
      );
    });
  }
});

describe("device options: limits, metadata service, and what a restore changes", () => {
  const limiter = (size: number) => ({ bandwidth: { size, oneTimeBurst: 0, refillTimeMs: 1000 } });
  const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

  it("a network device has one limit for both directions, or one for each", () => {
    const { nets } = resolve({
      nets: [
        { tap: "a", rateLimiter: limiter(1) },
        { tap: "b", txRateLimiter: limiter(2) },
      ],
    });
    assert.deepEqual(
      nets.map(({ rxRateLimiter: rx, txRateLimiter: tx }) => [rx?.bandwidth?.size, tx?.bandwidth?.size]),
      [
        [1, 1],
        [undefined, 2],
      ],
    );
    assert.deepEqual(problemsOf({ nets: [{ tap: "a", rateLimiter: limiter(1), rxRateLimiter: limiter(2) }] }), [
      "Network device 1: rateLimiter is for both directions; give it or one for a direction, not both",
    ]);
  });

  it("vhost is for networks whose frames nobody here has to see; without a word, where it can be had", () => {
    const nets = [{ tap: "a" }, { tap: "b", vhost: "on" }, { user: {} }] as const;
    const choices = (more = {}): string[] => resolve({ nets, ...more }).nets.map(({ vhost }) => vhost);
    assert.deepEqual(choices(), ["auto", "on", "auto"]);
    // What passt has of the guest's memory is a file of ordinary pages.
    assert.deepEqual(choices({ hugePages: "2M" }), ["auto", "on", "off"]);
    assert.deepEqual(problemsOf({ nets: [{ user: {}, vhost: "on" }], hugePages: "transparent" }), [
      "A network in user mode has vhost only with memory of ordinary pages (hugePages transparent)",
    ]);
    assert.equal(resolve({ nets: [{ user: {}, vhost: "on" }] }).nets[0]?.vhost, "on");
    const reasons = [
      [{ user: {}, mmds: true, vhost: "on" }, "the metadata service is served by this process"],
      [{ tap: "a", mmds: true, vhost: "on" }, "the metadata service is served by this process"],
      [{ tap: "a", rateLimiter: limiter(1), vhost: "on" }, "a rate limiter is this process's"],
      [{ tap: "a", txRateLimiter: limiter(1), vhost: "on" }, "a rate limiter is this process's"],
    ] as const;
    for (const [net, why] of reasons) {
      assert.deepEqual(problemsOf({ nets: [net] }), [`Network device 1: vhost is on, but ${why}`]);
    }
    assert.equal(resolve({ pci: true, nets: [{ tap: "a", vhost: "on" }] }).nets[0]?.vhost, "on");
  });

  it("an entropy device with a limit is there, unless that is denied", () => {
    assert.equal(resolve({ rngRateLimiter: limiter(1) }).rng, true);
    assert.match(problemsOf({ rng: false, rngRateLimiter: limiter(1) }).join(), /rng is false/);
  });

  it("the metadata service has its defaults, and an address that is link-local", () => {
    assert.equal(resolve({ nets: [{ tap: "a" }] }).mmds, undefined);
    const defaults = { version: "V1", address: "169.254.169.254", imdsCompat: false };
    assert.deepEqual(resolve({ nets: [{ tap: "a", mmds: true }] }).mmds, defaults);
    assert.deepEqual(resolve({ mmds: { version: "V2" } }).mmds, { ...defaults, version: "V2" });
    for (const address of ["169.254.1.0", "169.254.254.255", "169.254.170.2"]) {
      assert.equal(resolve({ mmds: { address } }).mmds?.address, address);
    }
    for (const address of [
      "169.254.0.255",
      "169.254.255.0",
      "169.254.1.256",
      "10.0.0.1",
      "169.254.1",
      "",
      "169.254.01.1",
    ]) {
      assert.match(problemsOf({ mmds: { address } }).join(), /is not a link-local IPv4 address/, address);
    }
  });

  it("a balloon's statistics cannot be turned on or off later", () => {
    const balloon = (statisticsIntervalS?: number) => {
      const resolved = resolve({ balloon: { targetMib: 0, statisticsIntervalS } }).balloon;
      assert.ok(resolved !== undefined);
      return resolved;
    };
    assert.equal(intervalProblem(5, balloon(1)), undefined);
    assert.equal(intervalProblem(5, balloon()), undefined);
    assert.match(intervalProblem(5, balloon(0)) ?? "", /were off at the start/);
    assert.equal(intervalProblem(0, balloon(0)), undefined);
    assert.match(intervalProblem(0, balloon(1)) ?? "", /cannot be turned off/);
    for (const wrong of [-1, 1.5, 65536, NaN, "1"])
      assert.match(intervalProblem(wrong, balloon(1)) ?? "", /is not a whole number/);
  });

  it("a restore may change the host's end of a network device: limits and the way to the metadata stay", () => {
    const config = resolve({
      nets: [{ tap: "a", mac: "52:54:00:00:00:01", mmds: true, rxRateLimiter: limiter(1), txRateLimiter: limiter(2) }],
      vsock: { cid: 3, path: "/v" },
    });
    const [net] = overridden(config, { nets: { net0: { tap: "b" } }, vsock: { path: "/w" } }).nets;
    assert.deepEqual(
      [net?.tap, net?.mmds, plain(net?.rxRateLimiter), plain(net?.txRateLimiter)],
      ["b", true, limiter(1), limiter(2)],
    );
    const [other] = overridden(config, { nets: { net0: { tap: "b", txRateLimiter: limiter(9) } } }).nets;
    assert.deepEqual([other?.rxRateLimiter, plain(other?.txRateLimiter)], [undefined, limiter(9)]);
    assert.deepEqual(overridden(config, { vsock: { path: "/w" } }).vsock, { cid: 3, path: "/w" });
    assert.deepEqual(overridden(config, { vsock: { cid: 4 } }).vsock, { cid: 4, path: "/v" });
    const byKernel = resolve({ vsock: { cid: 3 } });
    assert.deepEqual(byKernel.vsock, { cid: 3, path: undefined });
    assert.deepEqual(overridden(byKernel, { vsock: { cid: 4 } }).vsock, { cid: 4, path: undefined });
    assert.deepEqual(overridden(byKernel, { vsock: { path: "/w" } }).vsock, { cid: 3, path: "/w" });
    assert.throws(() => overridden(byKernel, { vsock: { cid: 2 } }), /context id 2 is not a whole number from 3 to/);
    assert.throws(() => overridden(config, { nets: { net0: { tap: "b", mmds: false } } }), ConfigError);
  });
});
