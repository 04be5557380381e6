// What clients ask: Firecracker's API and its files, the control socket, the metadata service.
import assert from "node:assert/strict";
import { HttpSession } from "../../../devices/mmds/http.js";
import { MAX_LOOK_BYTES, MmdsResponder } from "../../../devices/mmds/responder.js";
import { mmdsService } from "../../../devices/mmds/service.js";
import { MAX_CONNECTIONS } from "../../../devices/mmds/tcp-endpoint.js";
import { ConfigError } from "../../../vmm/errors.js";
import { checkSection } from "../../../vmm/firecracker/check-section.js";
import { Fault } from "../../../vmm/firecracker/fault.js";
import { MmdsStore } from "../../../vmm/firecracker/mmds-store.js";
import { parseRequest } from "../../../vmm/firecracker/requests.js";
import { parseJson } from "../../../vmm/firecracker/strict-json.js";
import { parseCpuTemplate } from "../../../vmm/machine/cpu-template-file.js";
import { answer, type Controlled } from "../../../vmm/sdk/control.js";
import { frameOf, MMDS_ADDRESS } from "../../helpers/mmds-guest.js";
import { allowing, text, type ByteTarget } from "../coverage/byte-target.js";

const FIELDS = [
  ...["action_type", "amount_mib", "boot_args", "drive_id", "is_root_device", "path_on_host", "rate_limiter"],
  ...["iface_id", "host_dev_name", "guest_mac", "vcpu_count", "mem_size_mib", "snapshot_path", "mem_backend"],
  ...["bandwidth", "ops", "size", "refill_time", "one_time_burst", "ipv4_address", "network_interfaces", "version"],
].map((name) => `"${name}":`);

export const apiRequestTarget: ByteTarget = {
  name: "api-request",
  parser: "parseRequest: the API of Firecracker",
  maxLength: 512,
  seeds: [
    text("GET /machine-config\n"),
    text(
      'PUT /drives/a\n{"drive_id":"a","is_root_device":true,"path_on_host":"/x","rate_limiter":{"ops":{"size":1,"refill_time":2}}}',
    ),
    text('PATCH /machine-config\n{"vcpu_count":2,"mem_size_mib":128}'),
    text('PUT /mmds/config\n{"network_interfaces":["a"],"version":"V2"}'),
    text('PUT /snapshot/load\n{"snapshot_path":"/a","mem_backend":{"backend_type":"File","backend_path":"/b"}}'),
    text('PUT /actions\n{"action_type":"InstanceStart"}'),
    text('PUT /network-interfaces/e\n{"iface_id":"e","host_dev_name":"t"}'),
    text("DELETE /drives/a\n"),
  ],
  words: [
    ...FIELDS,
    "GET ",
    "PUT ",
    "PATCH ",
    "DELETE ",
    "/balloon",
    "/vsock",
    "/hotplug/memory",
    "/pmem/x",
    "/cpu-config",
  ],
  run(input) {
    const bytes = Buffer.from(input);
    const end = bytes.indexOf(0x0a);
    const [method = "", url = ""] = bytes.toString("latin1", 0, end < 0 ? bytes.length : end).split(" ");
    allowing([Fault], () => void parseRequest(method, url, end < 0 ? undefined : bytes.subarray(end + 1)));
  },
};

export const apiConfigTarget: ByteTarget = {
  name: "api-config",
  parser: "parseJson, checkSection: Firecracker's configuration file",
  maxLength: 1024,
  seeds: [
    text(
      '{"boot-source":{"kernel_image_path":"/k"},"drives":[{"drive_id":"a","is_root_device":true,"path_on_host":"/x"}],"machine-config":{"vcpu_count":1,"mem_size_mib":128},"network-interfaces":[{"iface_id":"e","host_dev_name":"t"}],"vsock":{"guest_cid":3,"uds_path":"/v"}}',
    ),
  ],
  words: [...FIELDS, '"balloon"', '"logger"', '"metrics"', '"entropy"', '"cpu-config"', '"mmds-config"'],
  run(input) {
    allowing([Fault], () => void checkSection("FullVmConfiguration", parseJson(input)));
  },
};

const MAX_DOCUMENTS = 4;

export const mmdsStoreTarget: ByteTarget = {
  name: "mmds-store",
  parser: "MmdsStore: JSON that is put and patched",
  maxLength: 512,
  seeds: [text('{"a":{"b":1}}\n{"a":null,"__proto__":{"c":[1]}}')],
  words: ["__proto__", "null", "\n", '{"a":', "}"],
  run(input) {
    const bytes = Buffer.from(input);
    const store = new MmdsStore({ maxBytes: 400 });
    let at = 0;
    // Documents behind the first few meet no store that these have not met.
    for (let count = 0; count < MAX_DOCUMENTS; count++) {
      const end = bytes.indexOf(0x0a, at);
      const part = bytes.subarray(at, end < 0 ? bytes.length : end);
      allowing([Fault], () => {
        const value = parseJson(part, { isFree: true });
        if (count === 0) store.put(value);
        else store.patch(value);
      });
      if (end < 0) break;
      at = end + 1;
    }
    assert.ok(store.value === undefined || Buffer.byteLength(JSON.stringify(store.value)) <= 400);
    assert.equal(({} as Record<string, unknown>)["c"], undefined, "a prototype was changed");
  },
};

export const cpuTemplateTarget: ByteTarget = {
  name: "cpu-template",
  parser: "parseCpuTemplate",
  maxLength: 1024,
  seeds: [
    text(
      '{"cpuid_modifiers":[{"leaf":"0x1","subleaf":"0x0","flags":0,"modifiers":[{"register":"eax","bitmap":"0b00000000000000000000000000000xx1"}]}],"msr_modifiers":[{"addr":"0x10a","bitmap":"0b0x1"}]}',
    ),
  ],
  words: ['"leaf"', '"subleaf"', '"bitmap"', '"register"', '"0b', "_"],
  run(input) {
    allowing([ConfigError], () => void parseCpuTemplate(Buffer.from(input).toString("utf8"), "t.json"));
  },
};

const CONTROLLED: Controlled = {
  setBalloon: () => Promise.resolve(),
  pause: () => Promise.resolve(),
  resume: () => Promise.resolve(),
  state: () => Promise.resolve("running"),
  wantsFiles: (handed: string | undefined) => (handed === "a" ? "/inbox" : undefined),
  snapshot: () => Promise.resolve({ id: "x", bytes: 1, pausedMs: 1 }),
  migrate: () => Promise.resolve({ stopMs: 1, totalMs: 1, bytes: 1, rounds: [] }),
} as unknown as Controlled;

export const controlTarget: ByteTarget = {
  name: "control",
  parser: "answer: requests at the control socket",
  maxLength: 512,
  seeds: [
    text('{"balloon_mib":12}'),
    text('{"pause":true}'),
    text('{"snapshot":{"folder":"/a","resume":true,"stop":false,"mode":"diff","base":"/b","watch":true}}'),
    text('{"migrate":{"to":"unix:/a"}}'),
  ],
  words: ['"resume"', '"state"', '"snapshot"', '"migrate"', '"handed":"a"', '"__proto__"', "null"],
  async run(input) {
    const reply = await answer(Buffer.from(input).toString("utf8"), CONTROLLED);
    assert.ok("ok" in reply || typeof reply.error === "string");
  },
};

function service(): ReturnType<typeof mmdsService> {
  const source = { value: { latest: { a: ["b", 1], long: "x".repeat(3000) } } as unknown };
  const tokens = { issue: () => "t", isValid: (token: string) => token === "t" };
  return mmdsService({ version: "V2", imdsCompat: false, source, tokens });
}

const HTTP_WORDS = [
  ...["GET ", "PUT ", "/latest/api/token", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "\r\n\r\n", "X-metadata-token: t\r\n"],
  ...[
    "X-metadata-token-ttl-seconds: 60\r\n",
    "Content-Length: ",
    "Connection: close\r\n",
    "Accept: application/json\r\n",
  ],
  ...["Transfer-Encoding: chunked\r\n", "http://x/", "/~1~0"],
];

export const mmdsHttpTarget: ByteTarget = {
  name: "mmds-http",
  parser: "HttpSession, mmdsService",
  maxLength: 1024,
  seeds: [
    text("GET /latest HTTP/1.1\r\nX-metadata-token: t\r\nAccept: application/json\r\n\r\n"),
    text(
      "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 60\r\nContent-Length: 1\r\n\r\nxGET / HTTP/1.0\r\n\r\n",
    ),
  ],
  words: HTTP_WORDS,
  run(input) {
    const read = (step: number): string => {
      const session = new HttpSession(service());
      let seen = "";
      for (let at = 0; at < input.length && !session.isOver; at += step) {
        session.take(input.subarray(at, Math.min(at + step, at + session.room)));
        for (let count = 0; ; count++) {
          const made = session.nextAnswer();
          if (made === undefined) break;
          assert.ok(count < 100, "no end of answers");
          seen += Buffer.from(made).toString("latin1");
        }
      }
      return seen;
    };
    const whole = read(input.length || 1);
    if (input.length % 4 === 0) assert.equal(read(7), whole, "an answer depends on how its request comes");
  },
};

const GET = text("GET /latest HTTP/1.1\r\nX-metadata-token: t\r\n\r\n");
const SYN_FRAME = frameOf(1, { sequence: 100, acknowledgement: 0, flags: 2, window: 60_000, mss: 1000 }, 80);
const GET_FRAME = frameOf(1, { sequence: 101, acknowledgement: 6, flags: 24, window: 60_000, payload: GET }, 80);

/** Frames behind their lengths, 2 bytes each; between two of them the clock moves and frames are taken. */
function wire(...frames: readonly Uint8Array[]): Buffer {
  return Buffer.concat(frames.flatMap((frame) => [Uint8Array.of(frame.length & 0xff, frame.length >> 8), frame]));
}

export const mmdsWireTarget: ByteTarget = {
  name: "mmds-wire",
  parser: "MmdsResponder: ARP, IPv4, TCP",
  maxLength: 1024,
  seeds: [wire(SYN_FRAME, GET_FRAME), wire(SYN_FRAME, SYN_FRAME)],
  run(input) {
    let nowMs = 0;
    const options = { address: MMDS_ADDRESS, answer: service(), random: () => 5, now: () => nowMs };
    const responder = new MmdsResponder(options);
    for (let at = 0; at + 2 <= input.length;) {
      const length = Math.min((input[at] ?? 0) | (((input[at + 1] ?? 0) & 15) << 8), MAX_LOOK_BYTES);
      const frame = input.subarray(at + 2, at + 2 + length);
      if (responder.isFor(frame.subarray(0, 64))) responder.receive(frame);
      for (let left = (input[at + 1] ?? 0) >> 4; left > 0; left--) {
        const made = responder.nextFrame();
        if (made === undefined) break;
        assert.ok(made.length >= 42 && made.length <= 1514);
      }
      assert.ok(responder.connectionCount <= MAX_CONNECTIONS);
      nowMs += length;
      at += 2 + length;
    }
    // It comes to rest, however long nobody answers it.
    for (let turns = 0; responder.nextFrame() !== undefined || responder.dueMs !== Infinity; turns++) {
      assert.ok(turns < 50_000, "it never rests");
      if (responder.dueMs !== Infinity) nowMs = Math.max(nowMs, responder.dueMs);
    }
  },
};
