// Needs: nothing. Every field of every body that Firecracker takes, with what its own types refuse there: other types, null where it
// is none, numbers beyond their width, unknown words, a key twice, a key too many, a key too few. All of it is refused, and
// nothing of what was configured before has changed. The table is Firecracker's types, and none of ours.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FirecrackerRig } from "../../helpers/firecracker-rig.js";

type Kind = "text" | "flag" | "u8" | "u16" | "u32" | "u64" | "list" | "bucket" | "limiter" | "map" | readonly string[];

/** `!` must be there, `?` may be null; without either it may be left out, but not be null. */
type Fields = Readonly<Record<string, readonly [kind: Kind, when?: "!" | "?"]>>;

interface Body {
  readonly put: string;
  readonly method?: "PATCH";
  readonly good: Readonly<Record<string, unknown>>;
  readonly fields: Fields;
  /** Unknown keys are not looked at. */
  readonly isOpen?: true;
  /** Only a guest that runs takes it. */
  readonly isLate?: true;
}

const BUCKET = { size: 1000, one_time_burst: 1, refill_time: 100 };
const LIMITER = { bandwidth: BUCKET, ops: BUCKET };

const MACHINE = {
  vcpu_count: 2,
  mem_size_mib: 128,
  smt: false,
  cpu_template: "T2",
  track_dirty_pages: true,
  huge_pages: "2M",
};

const BODIES: readonly Body[] = [
  {
    put: "/boot-source",
    good: { kernel_image_path: "kernel", initrd_path: "disk", boot_args: "a=b" },
    fields: { kernel_image_path: ["text", "!"], initrd_path: ["text", "?"], boot_args: ["text", "?"] },
  },
  {
    put: "/machine-config",
    good: MACHINE,
    fields: {
      vcpu_count: ["u8", "!"],
      mem_size_mib: ["u64", "!"],
      smt: ["flag"],
      cpu_template: [["C3", "T2", "None"], "?"],
      track_dirty_pages: ["flag"],
      huge_pages: [["None", "2M"]],
    },
  },
  {
    put: "/machine-config",
    method: "PATCH",
    good: MACHINE,
    fields: {
      vcpu_count: ["u8", "?"],
      mem_size_mib: ["u64", "?"],
      smt: ["flag", "?"],
      cpu_template: [["C3", "T2", "None"], "?"],
      track_dirty_pages: ["flag", "?"],
      huge_pages: [["None", "2M"], "?"],
    },
  },
  {
    put: "/drives/new",
    good: {
      drive_id: "new",
      is_root_device: false,
      path_on_host: "disk",
      partuuid: "0eaa91a0-01",
      cache_type: "Writeback",
      is_read_only: true,
      rate_limiter: LIMITER,
      io_engine: "Async",
    },
    fields: {
      drive_id: ["text", "!"],
      is_root_device: ["flag", "!"],
      path_on_host: ["text"],
      partuuid: ["text", "?"],
      cache_type: [["Unsafe", "Writeback"]],
      is_read_only: ["flag", "?"],
      rate_limiter: ["limiter", "?"],
      io_engine: [["Sync", "Async"], "?"],
    },
  },
  {
    put: "/network-interfaces/new",
    good: {
      iface_id: "new",
      host_dev_name: "lo",
      guest_mac: "02:00:00:00:00:09",
      mtu: 1400,
      rx_rate_limiter: LIMITER,
      tx_rate_limiter: LIMITER,
    },
    fields: {
      iface_id: ["text", "!"],
      host_dev_name: ["text", "!"],
      guest_mac: ["text", "?"],
      mtu: ["u16", "?"],
      rx_rate_limiter: ["limiter", "?"],
      tx_rate_limiter: ["limiter", "?"],
    },
  },
  {
    put: "/vsock",
    good: { guest_cid: 4, uds_path: "v2.sock", vsock_id: "v" },
    fields: { guest_cid: ["u32", "!"], uds_path: ["text", "!"], vsock_id: ["text", "?"] },
  },
  {
    put: "/balloon",
    good: {
      amount_mib: 1,
      deflate_on_oom: false,
      stats_polling_interval_s: 1,
      free_page_hinting: true,
      free_page_reporting: true,
    },
    fields: {
      amount_mib: ["u32", "!"],
      deflate_on_oom: ["flag", "!"],
      stats_polling_interval_s: ["u16"],
      free_page_hinting: ["flag"],
      free_page_reporting: ["flag"],
    },
  },
  { put: "/entropy", good: { rate_limiter: LIMITER }, fields: { rate_limiter: ["limiter", "?"] } },
  {
    put: "/serial",
    good: { serial_out_path: "out", rate_limiter: BUCKET },
    fields: { serial_out_path: ["text", "?"], rate_limiter: ["bucket", "?"] },
  },
  {
    put: "/mmds/config",
    good: { version: "V2", network_interfaces: ["eth0"], ipv4_address: "169.254.9.9", imds_compat: true },
    fields: {
      version: [["V1", "V2"]],
      network_interfaces: ["list", "!"],
      ipv4_address: ["text", "?"],
      imds_compat: ["flag"],
    },
  },
  {
    put: "/logger",
    good: { log_path: "log", level: "Info", show_level: true, show_log_origin: true, module: "a" },
    fields: {
      log_path: ["text", "?"],
      level: [["Info", "Off"], "?"],
      show_level: ["flag", "?"],
      show_log_origin: ["flag", "?"],
      module: ["text", "?"],
    },
  },
  {
    put: "/metrics",
    good: { metrics_path: "metrics", emit_id: true, properties: { a: "b" } },
    fields: { metrics_path: ["text", "!"], emit_id: ["flag"], properties: ["map", "?"] },
    isOpen: true,
  },
  {
    put: "/actions",
    good: { action_type: "FlushMetrics" },
    fields: { action_type: [["FlushMetrics", "SendCtrlAltDel"], "!"] },
    isLate: true,
  },
  { put: "/vm", method: "PATCH", good: { state: "Paused" }, fields: { state: [["Paused"], "!"] }, isLate: true },
  {
    put: "/balloon",
    method: "PATCH",
    good: { amount_mib: 1 },
    fields: { amount_mib: ["u32", "!"] },
    isLate: true,
  },
  {
    put: "/balloon/statistics",
    method: "PATCH",
    good: { stats_polling_interval_s: 1 },
    fields: { stats_polling_interval_s: ["u16", "!"] },
    isLate: true,
  },
  {
    put: "/drives/root",
    method: "PATCH",
    good: { drive_id: "root", path_on_host: "disk", rate_limiter: LIMITER },
    fields: { drive_id: ["text", "!"], path_on_host: ["text", "?"], rate_limiter: ["limiter", "?"] },
    isLate: true,
  },
  {
    put: "/network-interfaces/eth0",
    method: "PATCH",
    good: { iface_id: "eth0", rx_rate_limiter: LIMITER, tx_rate_limiter: LIMITER },
    fields: { iface_id: ["text", "!"], rx_rate_limiter: ["limiter", "?"], tx_rate_limiter: ["limiter", "?"] },
    isLate: true,
  },
  {
    put: "/snapshot/create",
    good: { snapshot_type: "Full", snapshot_path: "s", mem_file_path: "m" },
    fields: { snapshot_type: [["Full", "Diff"]], snapshot_path: ["text", "!"], mem_file_path: ["text", "!"] },
    isLate: true,
  },
  {
    put: "/snapshot/load",
    good: {
      snapshot_path: "s",
      mem_backend: { backend_type: "File", backend_path: "m" },
      enable_diff_snapshots: false,
      track_dirty_pages: false,
      resume_vm: false,
    },
    fields: {
      snapshot_path: ["text", "!"],
      mem_backend: ["map", "!"],
      enable_diff_snapshots: ["flag"],
      track_dirty_pages: ["flag"],
      resume_vm: ["flag"],
    },
    isLate: true,
  },
];

const WIDTH = { u8: 8, u16: 16, u32: 32, u64: 64 } as const;
/** Of JSON, as text; what a kind of field takes is left out for it. */
const VALUES = { text: '"text"', number: "7", flag: "true", list: "[]", map: "{}" } as const;

function refusedValues(kind: Kind): string[] {
  if (typeof kind !== "string") {
    return [...others("none"), '""', ...kind.flatMap((word) => [`"${word} "`, `"${word}s"`])];
  }
  switch (kind) {
    case "text":
      return others("text");
    case "flag":
      return others("flag");
    case "list":
      return [...others("list"), "[1]", "[null]", "[[]]"];
    case "map":
      return [...others("map"), '{"a":1}', '{"a":null}'];
    case "bucket":
      return [...others("map"), ...badBuckets()];
    case "limiter": {
      const inner = [...others("map"), ...badBuckets()];
      return [
        ...others("map"),
        '{"bytes":null}',
        ...["bandwidth", "ops"].flatMap((name) => inner.map((bad) => `{"${name}":${bad}}`)),
      ];
    }
    default: {
      const beyond = (2n ** BigInt(WIDTH[kind])).toString();
      return [...others("number"), "-1", "1.5", "1.0", "1e0", beyond, `${beyond}0`, '"1"'];
    }
  }
}

function others(own: string): string[] {
  return Object.entries(VALUES).flatMap(([name, value]) => (name === own ? [] : [value]));
}

/** Of their three numbers. */
function badBuckets(): string[] {
  const numbers = ["-1", "1.5", '"1"', "true", "[]", "18446744073709551616"];
  return [
    "{}",
    '{"size":1}',
    '{"refill_time":1}',
    '{"size":null,"refill_time":1}',
    ...numbers.flatMap((bad) => [
      `{"size":${bad},"refill_time":1}`,
      `{"size":1,"refill_time":${bad}}`,
      `{"size":1,"refill_time":1,"one_time_burst":${bad}}`,
    ]),
    '{"size":1,"size":1,"refill_time":1}',
  ];
}

/** The good body as JSON, with one field's text in place of its own, or without it. */
function bodyWith(good: Readonly<Record<string, unknown>>, key: string, value: string | undefined): string {
  const fields = Object.entries(good).flatMap(([name, own]) => {
    if (name !== key) return [`"${name}":${JSON.stringify(own)}`];
    return value === undefined ? [] : [`"${name}":${value}`];
  });
  return `{${fields.join(",")}}`;
}

function refusedBodies({ good, fields, isOpen }: Body): string[] {
  const whole = JSON.stringify(good);
  const [first = ""] = Object.keys(good);
  const bodies = ["null", "1", '"text"', "true", "[1]", "{", whole.slice(0, -1), `${whole}}`, `${whole},`];
  bodies.push(`{"${first}":${JSON.stringify(good[first])},${whole.slice(1)}`);
  if (isOpen !== true)
    bodies.push(
      `{"colour":null,${whole.slice(1)}`,
      bodyWith(good, first, undefined).replace("{", `{"${first.toUpperCase()}":1,`).replace(",}", "}"),
    );
  for (const [key, [kind, when]] of Object.entries(fields)) {
    bodies.push(...refusedValues(kind).map((value) => bodyWith(good, key, value)));
    if (when === "!") bodies.push(bodyWith(good, key, undefined));
    if (when !== "?") bodies.push(bodyWith(good, key, "null"));
  }
  return bodies;
}

describe("firecracker: refused fields", () => {
  let folder: string;
  let rig: FirecrackerRig;
  const before = process.cwd();

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    for (const name of ["kernel", "disk"]) writeFileSync(join(folder, name), "x".repeat(4096));
    process.chdir(folder);
    rig = new FirecrackerRig();
    await rig.done("PUT", "/boot-source", { kernel_image_path: "kernel" });
    await rig.done("PUT", "/machine-config", { vcpu_count: 4, mem_size_mib: 512 });
    await rig.done("PUT", "/drives/root", { drive_id: "root", path_on_host: "disk", is_root_device: true });
    await rig.done("PUT", "/network-interfaces/eth0", { iface_id: "eth0", host_dev_name: "lo" });
    await rig.done("PUT", "/vsock", { guest_cid: 3, uds_path: "v.sock" });
    await rig.done("PUT", "/balloon", { amount_mib: 8, deflate_on_oom: true });
    await rig.done("PUT", "/mmds", { a: 1 });
  });
  afterEach(() => {
    rig.close();
    process.chdir(before);
    rmSync(folder, { recursive: true });
  });

  for (const body of BODIES) {
    const method = body.method ?? "PUT";
    it(`${method} ${body.put}: what is no such body is refused, and changes nothing`, async () => {
      const earlier = rig.everything();
      const refused = refusedBodies(body);
      assert.ok(refused.length > 12);
      for (const text of refused) {
        const answer = await rig.ask(method, body.put, Buffer.from(text));
        assert.equal(answer.status, 400, text);
        assert.ok((answer.fault ?? "").length > 10, text);
        // It is the body that is wrong, and not the time.
        if (body.isLate === true)
          assert.doesNotMatch(answer.fault ?? "", /not supported (?:before|after)|brings its own/, text);
        assert.equal(rig.everything(), earlier, text);
      }
      if (body.isLate === true) return;
      // So that the rest of each was right. The interface is the other device's, on a host that has no more.
      if (body.put.startsWith("/network")) return;
      await rig.done(method, body.put, body.good);
    });
  }
});
