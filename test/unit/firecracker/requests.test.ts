// Needs: nothing. Requests of Firecracker's interface: what is refused changes nothing, and says why.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FirecrackerRig } from "../../helpers/firecracker-rig.js";

const KERNEL = { kernel_image_path: "kernel" };
const ROOT = { drive_id: "root", path_on_host: "disk", is_root_device: true };
const DATA = { drive_id: "data", path_on_host: "disk", is_root_device: false };
const MACHINE = { vcpu_count: 2, mem_size_mib: 256 };
const LO = { iface_id: "eth0", host_dev_name: "lo" };
const BUCKET = { size: 1000, refill_time: 100 };

/** Method, path, body and what the message says; each on a VM that nothing is configured for. */
const REFUSED: readonly (readonly [method: string, path: string, body: unknown, message: RegExp])[] = [
  // Methods and paths.
  ["GET", "/nowhere", undefined, /^Invalid request method and\/or path: GET nowhere/],
  ["POST", "/", {}, /^Invalid request method and\/or path: POST/],
  ["HEAD", "/", undefined, /^Invalid request method and\/or path: HEAD/],
  ["OPTIONS", "*", undefined, /^Invalid request method and\/or path/],
  ["get", "/", undefined, /^Invalid request method and\/or path/],
  ["PUT", "/", {}, /^Invalid request method and\/or path: PUT/],
  ["PUT", "/version", {}, /^Invalid request method/],
  ["PUT", "/mmds/other", {}, /^Invalid request method and\/or path: PUT mmds\/other/],
  ["PUT", "/snapshot", {}, /^Invalid request method/],
  ["PUT", "/snapshot/make", {}, /^Invalid request method/],
  ["PUT", "/hotplug/cpu", {}, /^Invalid request method/],
  ["PATCH", "/boot-source", {}, /^Invalid request method/],
  ["PATCH", "/balloon/hinting/other", undefined, /^Invalid request method/],
  ["GET", "/vm", undefined, /^Invalid request method/],
  ["GET", "/balloon/other", undefined, /^Invalid request method/],
  ["DELETE", "/vsock", undefined, /^Invalid request method/],
  ["GET", "/", {}, /GET request has no body/],
  ["GET", "/mmds", {}, /GET request has no body/],
  ["PUT", "/machine-config", undefined, /PUT request has a body/],
  ["PUT", "/nowhere", undefined, /PUT request has a body/],
  ["PATCH", "/machine-config", undefined, /PATCH request has a body/],
  ["PATCH", "/machine-config", {}, /changes something/],
  ["PATCH", "/machine-config", { vcpu_count: null }, /changes something/],
  ["DELETE", "/drives/root", {}, /DELETE request has no body/],
  // JSON.
  ["PUT", "/boot-source", raw(""), /has a body/],
  ["PUT", "/boot-source", raw("{"), /not JSON/],
  ["PUT", "/boot-source", raw('{"kernel_image_path":"kernel"} x'), /not JSON/],
  ["PUT", "/boot-source", raw('\ufeff{"kernel_image_path":"kernel"}'), /not JSON/],
  ["PUT", "/boot-source", raw("[]"), /is not an object/],
  ["PUT", "/boot-source", raw('"kernel"'), /is not an object/],
  ["PUT", "/boot-source", raw("null"), /is not an object/],
  ["PUT", "/boot-source", Buffer.from([0x22, 0xff, 0x22]), /not UTF-8/],
  ["PUT", "/boot-source", raw('{"kernel_image_path":"\\ud800"}'), /half a character/],
  ["PUT", "/boot-source", raw('{"kernel_image_path":"kernel","kernel_image_path":"kernel"}'), /twice in one object/],
  ["PUT", "/boot-source", raw('{"kernel_image_path":"kernel","kernel_image\\u005fpath":"kernel"}'), /twice/],
  ["PUT", "/machine-config", raw('{"vcpu_count":1.0,"mem_size_mib":128}'), /1\.0; only whole numbers/],
  ["PUT", "/machine-config", raw('{"vcpu_count":1e0,"mem_size_mib":128}'), /1e0; only whole numbers/],
  ["PUT", "/machine-config", raw('{"vcpu_count":-0,"mem_size_mib":128}'), /-0; only whole numbers/],
  ["PUT", "/mmds", raw(`${"[".repeat(200)}${"]".repeat(200)}`), /levels/],
  ["PUT", "/mmds", raw("{"), /not JSON/],
  // Ids.
  ["PUT", "/drives", ROOT, /path has no id/],
  ["PUT", "/drives/", ROOT, /path has no id/],
  ["PUT", "/drives/ro-ot", { ...ROOT, drive_id: "ro-ot" }, /other characters/],
  ["PUT", "/drives/other", ROOT, /other, is not that of the body, root/],
  ["PUT", "/network-interfaces/eth1", LO, /eth1, is not that of the body, eth0/],
  ["PUT", "/pmem/other", { id: "p", path_on_host: "disk" }, /is not that of the body/],
  // Boot source.
  ["PUT", "/boot-source", {}, /Boot source: no kernel_image_path is given/],
  ["PUT", "/boot-source", { kernel_image_path: 1 }, /kernel_image_path 1 is not a text/],
  ["PUT", "/boot-source", { kernel_image_path: "" }, /is not a path/],
  ["PUT", "/boot-source", { kernel_image_path: "a\0b" }, /is not a path/],
  ["PUT", "/boot-source", { kernel_image_path: "missing" }, /kernel_image_path .*missing: no such file/],
  ["PUT", "/boot-source", { kernel_image_path: "/" }, /a folder/],
  ["PUT", "/boot-source", { ...KERNEL, initrd_path: "missing" }, /initrd_path .*missing: no such file/],
  ["PUT", "/boot-source", { ...KERNEL, boot_args: "a".repeat(2048) }, /2048 characters; 2047 fit/],
  ["PUT", "/boot-source", { ...KERNEL, boot_args: "\u00e4" }, /not printable ASCII/],
  ["PUT", "/boot-source", { ...KERNEL, other: 1 }, /unknown field "other"; known are kernel_image_path, initrd_path/],
  // Machine.
  ["PUT", "/machine-config", { vcpu_count: 1 }, /no mem_size_mib is given/],
  ["PUT", "/machine-config", { mem_size_mib: 128 }, /no vcpu_count is given/],
  ["PUT", "/machine-config", { ...MACHINE, vcpu_count: 0 }, /vcpu_count 0 is not a whole number from 1 to 32/],
  ["PUT", "/machine-config", { ...MACHINE, vcpu_count: 33 }, /vcpu_count 33 is not a whole number from 1 to 32/],
  ["PUT", "/machine-config", { ...MACHINE, vcpu_count: 256 }, /vcpu_count 256 is not a whole number from 1 to 32/],
  ["PUT", "/machine-config", { ...MACHINE, vcpu_count: -1 }, /vcpu_count -1 is not a whole number/],
  ["PUT", "/machine-config", { ...MACHINE, vcpu_count: "2" }, /vcpu_count "2" is not a whole number/],
  [
    "PUT",
    "/machine-config",
    { ...MACHINE, vcpu_count: 3, smt: true },
    /vcpu_count 3 is odd, and two of them are to be a core/,
  ],
  [
    "PUT",
    "/machine-config",
    { ...MACHINE, mem_size_mib: 0 },
    /mem_size_mib 0 is not a whole number from 16 to 1048576 MiB/,
  ],
  ["PUT", "/machine-config", { ...MACHINE, mem_size_mib: 2 ** 64 }, /the largest is 18446744073709551615/],
  ["PUT", "/machine-config", { ...MACHINE, mem_size_mib: 129, huge_pages: "2M" }, /odd, and a huge page/],
  ["PUT", "/machine-config", { ...MACHINE, huge_pages: "1G" }, /huge_pages "1G" is not one of None, Transparent, 2M/],
  ["PUT", "/machine-config", { ...MACHINE, cpu_template: "T9" }, /cpu_template "T9" is not one of/],
  ["PUT", "/machine-config", { ...MACHINE, smt: null }, /smt null is not true or false/],
  ["PUT", "/machine-config", { ...MACHINE, ht_enabled: false }, /unknown field "ht_enabled"/],
  ["PATCH", "/machine-config", { vcpu_count: 64 }, /vcpu_count 64 is not a whole number from 1 to 32/],
  ["PUT", "/cpu-config", { cpuid: [] }, /unknown field "cpuid"/],
  ["PUT", "/cpu-config", { cpuid_modifiers: [{ leaf: "0x1" }] }, /cpuid_modifiers\.0: no subleaf is given/],
  ["PUT", "/cpu-config", { msr_modifiers: [{ addr: "0x1", bitmap: "0b2" }] }, /bitmap "0b2" is not a bitmap/],
  // Drives.
  ["PUT", "/drives/root", { drive_id: "root" }, /no is_root_device is given/],
  ["PUT", "/drives/root", { drive_id: "root", is_root_device: true }, /no path_on_host is given/],
  ["PUT", "/drives/root", { ...ROOT, path_on_host: "missing" }, /missing: no such file/],
  ["PUT", "/drives/root", { ...ROOT, path_on_host: "/" }, /a folder/],
  ["PUT", "/drives/root", { ...ROOT, socket: "/s" }, /no vhost-user disks/],
  ["PUT", "/drives/root", { ...ROOT, cache_type: "None" }, /cache_type "None" is not one of Unsafe, Writeback/],
  ["PUT", "/drives/root", { ...ROOT, cache_type: null }, /cache_type null is not one of/],
  ["PUT", "/drives/root", { ...ROOT, io_engine: "Fast" }, /io_engine "Fast" is not one of Sync, Async/],
  [
    "PUT",
    "/drives/root",
    { ...ROOT, partuuid: "a b" },
    /partuuid "a b" is not 1 to 64 printable characters without spaces/,
  ],
  ["PUT", "/drives/root", { ...ROOT, rate_limiter: { bytes: BUCKET } }, /rate_limiter: unknown field "bytes"/],
  ["PUT", "/drives/root", { ...ROOT, rate_limiter: { ops: { size: 1 } } }, /rate_limiter\.ops: no refill_time/],
  ["PUT", "/drives/root", { ...ROOT, rate_limiter: { ops: { ...BUCKET, size: -1 } } }, /ops\.size -1 is not a whole/],
  // Network interfaces.
  ["PUT", "/network-interfaces/eth0", { iface_id: "eth0" }, /no host_dev_name is given/],
  ["PUT", "/network-interfaces/eth0", { ...LO, host_dev_name: "no-such-if" }, /no interface no-such-if/],
  ["PUT", "/network-interfaces/eth0", { ...LO, host_dev_name: "a/b" }, /host_dev_name "a\/b" is not the name/],
  ["PUT", "/network-interfaces/eth0", { ...LO, host_dev_name: "sixteen-letters-" }, /is not the name/],
  [
    "PUT",
    "/network-interfaces/eth0",
    { ...LO, guest_mac: "01:02:03" },
    /guest_mac "01:02:03" is not an address of one interface/,
  ],
  [
    "PUT",
    "/network-interfaces/eth0",
    { ...LO, guest_mac: "01-23-45-67-89-AB-CD-EF" },
    /is not an address of one interface/,
  ],
  [
    "PUT",
    "/network-interfaces/eth0",
    { ...LO, guest_mac: "01:00:00:00:00:01" },
    /"01:00:00:00:00:01" is not an address of one interface/,
  ],
  ["PUT", "/network-interfaces/eth0", { ...LO, mtu: 67 }, /mtu 67 is not a whole number from 68 to 65535 bytes/],
  ["PUT", "/network-interfaces/eth0", { ...LO, mtu: 65536 }, /mtu 65536 is not a whole number/],
  ["PUT", "/network-interfaces/eth0", { ...LO, allow_mmds_requests: true }, /unknown field "allow_mmds_requests"/],
  // Others.
  ["PUT", "/vsock", { guest_cid: 2, uds_path: "v.sock" }, /guest_cid 2 is not a whole number from 3/],
  ["PUT", "/vsock", { guest_cid: 2 ** 32, uds_path: "v.sock" }, /guest_cid 4294967296 is not/],
  ["PUT", "/vsock", { guest_cid: 3 }, /no uds_path is given/],
  ["PUT", "/vsock", { guest_cid: 3, uds_path: "disk" }, /exists already/],
  ["PUT", "/vsock", { guest_cid: 3, uds_path: "missing/v.sock" }, /no such file or folder/],
  ["PUT", "/vsock", { guest_cid: 3, uds_path: "v".repeat(200) }, /200 bytes; 107 fit/],
  ["PUT", "/balloon", { amount_mib: 1 }, /no deflate_on_oom is given/],
  ["PUT", "/balloon", { amount_mib: 129, deflate_on_oom: true }, /129 is more than the 128 MiB/],
  ["PUT", "/balloon", { amount_mib: -1, deflate_on_oom: true }, /amount_mib -1 is not a whole number/],
  ["PUT", "/balloon", { amount_mib: 1, deflate_on_oom: true, stats_polling_interval_s: 65536 }, /stats_polling/],
  ["PUT", "/balloon", { amount_mib: 1, deflate_on_oom: "yes" }, /deflate_on_oom "yes" is not true or false/],
  ["PUT", "/entropy", { rate: 1 }, /unknown field "rate"/],
  ["PUT", "/serial", { path: "x" }, /unknown field "path"/],
  ["PUT", "/serial", { rate_limiter: { size: 1 } }, /rate_limiter: no refill_time/],
  ["PUT", "/logger", { level: "Loud" }, /level "Loud" is not Off, Error/],
  ["PUT", "/logger", { log_path: "missing/log" }, /missing\/log: no such file/],
  ["PUT", "/logger", { log_path: "/" }, /a folder/],
  ["PUT", "/logger", { file: "x" }, /unknown field "file"/],
  ["PUT", "/metrics", {}, /no metrics_path is given/],
  ["PUT", "/metrics", { metrics_path: "missing/m" }, /missing\/m: no such file/],
  ["PUT", "/metrics", { metrics_path: "m", properties: { a: 1 } }, /properties\.a 1 is not a text/],
  ["PUT", "/mmds/config", {}, /no network_interfaces is given/],
  ["PUT", "/mmds/config", { network_interfaces: [] }, /network_interfaces is empty/],
  ["PUT", "/mmds/config", { network_interfaces: ["eth0"] }, /no network interface eth0/],
  ["PUT", "/mmds/config", { network_interfaces: ["eth0"], version: "V3" }, /version "V3" is not one of V1, V2/],
  [
    "PUT",
    "/mmds/config",
    { network_interfaces: ["eth0"], ipv4_address: "169.254.1" },
    /is not a link-local IPv4 address/,
  ],
  ["PATCH", "/mmds", { a: 1 }, /PUT \/mmds comes first/],
  ["PUT", "/actions", { action_type: "Stop" }, /action_type "Stop" is not one of InstanceStart/],
  ["PUT", "/actions", { action_type: "InstanceStart", payload: "" }, /unknown field "payload"/],
  ["PUT", "/actions", { action_type: "InstanceStart" }, /no kernel to start/],
  ["PUT", "/pmem/p", { id: "p", path_on_host: "disk" }, /no pmem devices/],
  ["PUT", "/hotplug/memory", { total_size_mib: 1024 }, /plugged in later/],
  ["PUT", "/snapshot/load", { snapshot_path: "s" }, /give mem_backend or mem_file_path, one of the two/],
  [
    "PUT",
    "/snapshot/load",
    { snapshot_path: "s", mem_file_path: "m", mem_backend: { backend_type: "File", backend_path: "m" } },
    /not both/,
  ],
  ["PUT", "/snapshot/load", { snapshot_path: "s", mem_backend: { backend_type: "Net", backend_path: "m" } }, /"Net"/],
  ["PUT", "/snapshot/load", { mem_file_path: "m" }, /no snapshot_path is given/],
  // What only a guest that runs can do.
  ["PUT", "/actions", { action_type: "FlushMetrics" }, /not supported before starting the microVM/],
  ["PUT", "/actions", { action_type: "SendCtrlAltDel" }, /not supported before starting/],
  ["PATCH", "/vm", { state: "Paused" }, /not supported before starting/],
  ["PATCH", "/vm", { state: "Stopped" }, /state "Stopped" is not one of Paused, Resumed/],
  ["PATCH", "/drives/root", { drive_id: "root", path_on_host: "disk" }, /not supported before starting/],
  ["PATCH", "/network-interfaces/eth0", { iface_id: "eth0" }, /not supported before starting/],
  ["PATCH", "/balloon", { amount_mib: 1 }, /not supported before starting/],
  ["PATCH", "/balloon/statistics", { stats_polling_interval_s: 1 }, /not supported before starting/],
  ["GET", "/balloon/statistics", undefined, /not supported before starting/],
  ["GET", "/balloon", undefined, /no balloon/],
  ["PATCH", "/balloon/hinting/start", undefined, /not supported before starting/],
  ["PATCH", "/balloon/hinting/stop", undefined, /not supported before starting/],
  ["GET", "/balloon/hinting/status", undefined, /not supported before starting/],
  ["GET", "/hotplug/memory", undefined, /not supported before starting/],
  ["PATCH", "/hotplug/memory", { requested_size_mib: 1 }, /not supported before starting/],
  ["PATCH", "/pmem/p", { id: "p" }, /not supported before starting/],
  ["DELETE", "/drives/root", undefined, /not supported before starting/],
  ["PUT", "/snapshot/create", { snapshot_path: "s", mem_file_path: "m" }, /not supported before starting/],
  ["PUT", "/snapshot/create", { snapshot_path: "s" }, /no mem_file_path is given/],
  ["PUT", "/snapshot/create", { snapshot_path: "s", mem_file_path: "m", version: "1" }, /unknown field "version"/],
];

function raw(text: string): Buffer {
  return Buffer.from(text);
}

describe("firecracker: requests", () => {
  let folder: string;
  let rig: FirecrackerRig;
  const before = process.cwd();

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    for (const name of ["kernel", "disk"]) writeFileSync(join(folder, name), "x".repeat(4096));
    process.chdir(folder);
    rig = new FirecrackerRig();
  });
  afterEach(() => {
    rig.close();
    process.chdir(before);
    rmSync(folder, { recursive: true });
  });

  for (const [method, path, body, message] of REFUSED) {
    const shown = body === undefined ? "" : Buffer.isBuffer(body) ? body.toString() : JSON.stringify(body);
    it(`${method} ${path} ${shown.slice(0, 80)} is refused`, async () => {
      const earlier = rig.everything();
      const answer = await rig.ask(method, path, body);
      assert.equal(answer.status, 400, JSON.stringify(answer));
      assert.match(answer.fault ?? "", message);
      assert.equal(rig.everything(), earlier);
    });
  }

  it("a whole configuration is taken and told again as Firecracker tells it", async () => {
    await rig.done("PUT", "/machine-config", { ...MACHINE, smt: true, track_dirty_pages: true, huge_pages: "None" });
    await rig.done("PATCH", "/machine-config", { vcpu_count: 4, cpu_template: null });
    await rig.done("PUT", "/boot-source", { ...KERNEL, boot_args: "console=ttyS0", initrd_path: null });
    await rig.done("PUT", "/drives/data", { ...DATA, rate_limiter: { ops: BUCKET, bandwidth: null } });
    await rig.done("PUT", "/drives/root", { ...ROOT, cache_type: "Writeback", io_engine: "Async", partuuid: null });
    await rig.done("PUT", "/network-interfaces/eth0", { ...LO, guest_mac: "02:00:00:00:00:01", mtu: null });
    await rig.done("PUT", "/vsock", { guest_cid: 3, uds_path: "v.sock", vsock_id: "old" });
    await rig.done("PUT", "/balloon", { amount_mib: 10, deflate_on_oom: true, stats_polling_interval_s: 1 });
    await rig.done("PUT", "/entropy", { rate_limiter: null });
    await rig.done("PUT", "/serial", { serial_out_path: null });
    await rig.done("PUT", "/mmds/config", {
      network_interfaces: ["eth0"],
      version: "V2",
      ipv4_address: "169.254.170.2",
    });
    const { body } = await rig.ask("GET", "/vm/config");
    assert.deepEqual(body, {
      balloon: {
        amount_mib: 10,
        deflate_on_oom: true,
        stats_polling_interval_s: 1,
        free_page_hinting: false,
        free_page_reporting: false,
      },
      drives: [
        {
          ...ROOT,
          partuuid: null,
          cache_type: "Writeback",
          is_read_only: false,
          rate_limiter: null,
          io_engine: "Async",
          socket: null,
        },
        {
          ...DATA,
          partuuid: null,
          cache_type: "Unsafe",
          is_read_only: false,
          rate_limiter: { ops: BUCKET, bandwidth: null },
          io_engine: "Sync",
          socket: null,
        },
      ],
      "boot-source": { ...KERNEL, initrd_path: null, boot_args: "console=ttyS0" },
      "cpu-config": null,
      logger: null,
      "machine-config": { vcpu_count: 4, mem_size_mib: 256, smt: true, track_dirty_pages: true, huge_pages: "None" },
      metrics: null,
      "mmds-config": {
        version: "V2",
        network_interfaces: ["eth0"],
        ipv4_address: "169.254.170.2",
        imds_compat: false,
      },
      "network-interfaces": [
        { ...LO, guest_mac: "02:00:00:00:00:01", mtu: null, rx_rate_limiter: null, tx_rate_limiter: null },
      ],
      vsock: { guest_cid: 3, uds_path: "v.sock" },
      entropy: { rate_limiter: null },
      pmem: [],
      "memory-hotplug": null,
    });
    assert.deepEqual((await rig.ask("GET", "/machine-config")).body, {
      vcpu_count: 4,
      mem_size_mib: 256,
      smt: true,
      track_dirty_pages: true,
      huge_pages: "None",
    });
  });

  it("a device of the same id takes the place of the one before; another root is refused", async () => {
    await rig.done("PUT", "/drives/data", DATA);
    await rig.done("PUT", "/drives/root", ROOT);
    await rig.done("PUT", "/drives/root", { ...ROOT, is_read_only: true });
    const { fault } = await rig.ask("PUT", "/drives/data", { ...DATA, is_root_device: true });
    assert.match(fault ?? "", /root is the root device already/);
    const { drives } = (await rig.ask("GET", "/vm/config")).body as { drives: { drive_id: string }[] };
    assert.deepEqual(
      drives.map(({ drive_id }) => drive_id),
      ["root", "data"],
    );
    await rig.done("PUT", "/network-interfaces/a", {
      iface_id: "a",
      host_dev_name: "lo",
      guest_mac: "02:00:00:00:00:0a",
    });
    const same = { iface_id: "b", host_dev_name: "lo", guest_mac: "02:00:00:00:00:0A" };
    assert.match((await rig.ask("PUT", "/network-interfaces/b", same)).fault ?? "", /another interface's/);
  });

  it("memory and balloon fit each other, whichever comes first", async () => {
    await rig.done("PUT", "/machine-config", MACHINE);
    await rig.done("PUT", "/balloon", { amount_mib: 256, deflate_on_oom: false });
    const { fault } = await rig.ask("PUT", "/machine-config", { ...MACHINE, mem_size_mib: 255 });
    assert.match(fault ?? "", /255 is less than the 256 MiB of the balloon/);
  });

  it("what is old is taken, and said to be", async () => {
    assert.equal((await rig.ask("PUT", "/machine-config", { ...MACHINE, cpu_template: "T2" })).isDeprecated, true);
    assert.equal((await rig.ask("PUT", "/machine-config", MACHINE)).isDeprecated, false);
    assert.equal((await rig.ask("GET", "/machine-config")).body?.["cpu_template"], "T2");
    await rig.done("PATCH", "/machine-config", { cpu_template: "None" });
    assert.equal((await rig.ask("GET", "/machine-config")).body?.["cpu_template"], undefined);
    assert.equal((await rig.ask("PUT", "/vsock", { guest_cid: 3, uds_path: "v", vsock_id: "1" })).isDeprecated, true);
  });

  it("metadata is put, merged and told, up to its limit", async () => {
    assert.deepEqual((await rig.ask("GET", "/mmds")).body, {});
    await rig.done("PUT", "/mmds", { a: { b: 1.5, c: "x" }, gone: 1 });
    await rig.done("PATCH", "/mmds", { a: { b: null, d: [1] }, gone: null, __proto__: { e: 1 } });
    assert.deepEqual((await rig.ask("GET", "/mmds")).body, { a: { c: "x", d: [1] } });
    const large = await rig.ask("PATCH", "/mmds", { large: "x".repeat(60_000) });
    assert.equal(large.status, 413);
    assert.match(large.fault ?? "", /more than the limit of 51200/);
    assert.deepEqual((await rig.ask("GET", "/mmds")).body, { a: { c: "x", d: [1] } });
    await rig.done("PUT", "/mmds", raw('{"twice":1,"twice":2.5e3}'));
    assert.deepEqual((await rig.ask("GET", "/mmds")).body, { twice: 2500 });
  });

  it("a snapshot is not loaded where something was configured for a boot", async () => {
    const load = { snapshot_path: "s", mem_backend: { backend_type: "File", backend_path: "m" } };
    assert.doesNotMatch((await rig.ask("PUT", "/snapshot/load", load)).fault ?? "", /brings its own devices/);
    await rig.done("PUT", "/machine-config", MACHINE);
    assert.match((await rig.ask("PUT", "/snapshot/load", load)).fault ?? "", /brings its own devices/);
  });
});
