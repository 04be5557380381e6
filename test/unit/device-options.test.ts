// Needs: nothing. Network, sockets, console, entropy and balloon as users ask for them.
import assert from "node:assert/strict";
import { parseBoot, parseStats } from "../../vmm/cli/arguments.js";
import { formatBalloon, parseBalloon } from "../../vmm/cli/balloon-argument.js";
import { UsageError } from "../../vmm/cli/exit-codes.js";
import { parseNet } from "../../vmm/cli/net-argument.js";
import { parseVsock } from "../../vmm/cli/vsock-argument.js";
import { deviceCount } from "../../vmm/config/devices.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import type { ResolvedConfig, VmConfig } from "../../vmm/config/types.js";
import { openDevices } from "../../vmm/devices.js";
import { ConfigError } from "../../vmm/errors.js";
import { bootInLab } from "../../vmm/lab/boot-in-lab.js";

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
    assert.deepEqual(config.balloon, { targetMib: 64, deflateOnOom: false, reporting: false });
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
      'Console "vga" is not one of serial, virtio',
      'TAP interface "tap0" is given to more than one network device',
      'Network device 1: "01:00:00:00:00:01" is no address of one interface, such as 52:54:00:12:34:56',
      "Network device 1: MTU 67 is not a whole number from 68 to 65535 bytes",
      'Network device 1: "172.16.0.256/24" is no IPv4 address with a prefix, such as 172.16.0.1/24',
      'Network device 2: unknown option "color"; known are tap, mac, mtu, hostAddress, rateLimiter',
      'Network device 2: "10.0.0.1/33" is no IPv4 address with a prefix, such as 172.16.0.1/24',
      'Network device 2: the interface tap0 has the addresses that its owner gave it; "auto" can be given one',
      'Network device 3: the interface tap0 has the addresses that its owner gave it; "auto" can be given one',
      "Socket device: no path is given",
      "Socket device: context id 2 is not a whole number from 3 to 4294967294",
      "Balloon of 129 is not a whole number from 0 to 128 MiB, the guest's memory",
    ]);
  });

  it("all kinds together have 14 windows, in an order that does not depend on how they were asked for", () => {
    const all = {
      balloon: { targetMib: 0 },
      rng: true,
      console: "virtio",
      vsock: { cid: 3, path: "v" },
      nets: [{ tap: "auto" }, { tap: "auto" }],
      disks: [{ path: "a" }],
    } as const;
    assert.equal(deviceCount(resolve(all)), 7);
    const opened: string[] = [];
    const opener = (name: string) => () => {
      opened.push(name);
      return [];
    };
    const names = ["balloon", "rng", "disk", "console", "vsock", "net"] as const;
    const openers = Object.fromEntries(names.map((name) => [name, opener(name)]));
    openDevices(openers, resolve(all), () => undefined);
    assert.deepEqual(opened, ["disk", "net", "vsock", "console", "rng", "balloon"]);
    const disks = Array.from({ length: 9 }, () => ({ path: "a" }));
    assert.deepEqual(problemsOf({ ...all, disks }), ["Number of devices 15 is more than 14"]);
  });
});

describe("device options: the lab", () => {
  it("refuses what cannot reach this host from there, before it starts", async () => {
    const argv = ["--net", "tap=auto", "--vsock", "cid=3,path=/tmp/v"];
    const config = resolve({ nets: [{ tap: "auto" }], vsock: { cid: 3, path: "/tmp/v" } });
    await assert.rejects(bootInLab(parseBoot(argv), config, "amd"), {
      code: "ERR_CONFIG",
      message: /^--net and --vsock cannot reach this host from the lab/,
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
    assert.deepEqual(parseVsock("path=/a,,b,cid=42"), { cid: 42, path: "/a,b" });
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
    [parseNet, "mac=52:54:00:12:34:56", /no tap= is given/],
    [parseNet, "tap=a,mtu=big", /mtu big is not a whole number/],
    [parseNet, "auto", /unknown "auto"; known are tap=/],
    [parseVsock, "cid=3", /no path= is given/],
    [parseVsock, "path=a", /no cid= is given/],
    [parseVsock, "cid=-1,path=a", /cid -1 is not a whole number/],
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
