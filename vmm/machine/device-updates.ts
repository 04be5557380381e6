// What may be changed of the devices while the VM lives. The configuration follows, so that a snapshot describes the
// devices as they are.
import { balloonProblem, intervalProblem, type ResolvedBalloon } from "../config/balloon.js";
import { checkRecord, type Checked } from "../config/check.js";
import { diskName, DISK_SCHEMA } from "../config/disks.js";
import { NET_SCHEMA } from "../config/nets.js";
import { RATE_LIMITER_SCHEMA } from "../config/rate-limiter.js";
import type { RecordSchema } from "../config/schema.js";
import type { ResolvedConfig } from "../config/types.js";
import { ConfigError } from "../errors.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import { MIB } from "../memory/layout.js";
import type { BalloonControls, DeviceControls, DeviceHost } from "../virtio/device-host.js";

/** What may be changed of a disk. In a rate limiter, a bucket that is not given stays as it is; of size 0, it is no more. */
export interface DiskUpdate {
  /** Another file; the same one, to have its size read again. */
  readonly path?: string | undefined;
  readonly rateLimiter?: RateLimiterConfig | undefined;
}

/** What may be changed of a network device, each direction by itself; as of a disk. */
export interface NetUpdate {
  readonly rxRateLimiter?: RateLimiterConfig | undefined;
  readonly txRateLimiter?: RateLimiterConfig | undefined;
}

const DISK_UPDATE_SCHEMA = schemaOf("Disk update", {
  path: DISK_SCHEMA.properties.path,
  rateLimiter: DISK_SCHEMA.properties.rateLimiter,
});
const NET_UPDATE_SCHEMA = schemaOf("Network device update", {
  rxRateLimiter: NET_SCHEMA.properties.rxRateLimiter,
  txRateLimiter: NET_SCHEMA.properties.txRateLimiter,
});

export class DeviceUpdates {
  #config: ResolvedConfig;
  readonly #devices: DeviceHost | undefined;
  /** Runs what a device does; a defect of it ends the VM. */
  readonly #guarded: (task: () => void) => void;

  constructor(config: ResolvedConfig, devices: DeviceHost | undefined, guarded: (task: () => void) => void) {
    this.#config = config;
    this.#devices = devices;
    this.#guarded = guarded;
  }

  /** With all that was changed. */
  get config(): ResolvedConfig {
    return this.#config;
  }

  /** Throws ConfigError, DiskError or HostError, and nothing has changed then. */
  updateDisk(name: string, given: DiskUpdate): void {
    const { path, rateLimiter } = checked(DISK_UPDATE_SCHEMA, given);
    const disk = this.#find(name, "disk");
    if (path !== undefined) disk.replaceFile(path);
    if (rateLimiter !== undefined) this.#guarded(() => disk.updateRateLimiter(rateLimiter));
    const disks = this.#config.disks.map((one, index) =>
      diskName(index) !== name
        ? one
        : { ...one, path: path ?? one.path, rateLimiter: merged(one.rateLimiter, rateLimiter) },
    );
    this.#config = { ...this.#config, disks };
  }

  /** Throws ConfigError. */
  updateNet(name: string, given: NetUpdate): void {
    const { rxRateLimiter: rx, txRateLimiter: tx } = checked(NET_UPDATE_SCHEMA, given);
    const net = this.#find(name, "net");
    this.#guarded(() => net.updateRateLimiters({ ...(rx !== undefined && { rx }), ...(tx !== undefined && { tx }) }));
    const nets = this.#config.nets.map((one, index) =>
      `net${String(index)}` !== name
        ? one
        : {
            ...one,
            rxRateLimiter: merged(one.rxRateLimiter, rx),
            txRateLimiter: merged(one.txRateLimiter, tx),
          },
    );
    this.#config = { ...this.#config, nets };
  }

  /** After the guest's end a fitting number changes nothing. Throws ConfigError. */
  setBalloon(targetMib: number, hasGuest: boolean): void {
    const { balloon, config } = this.#balloon();
    const problem = balloonProblem(targetMib, this.#config.memoryMib);
    if (problem !== undefined) throw new ConfigError([problem]);
    if (!hasGuest) return;
    this.#guarded(() => {
      balloon.setTarget(targetMib * MIB);
    });
    this.#config = { ...this.#config, balloon: { ...config, targetMib } };
  }

  /** Throws ConfigError. */
  setBalloonInterval(seconds: number): void {
    const { balloon, config } = this.#balloon();
    const problem = intervalProblem(seconds, config);
    if (problem !== undefined) throw new ConfigError([problem]);
    this.#guarded(() => {
      balloon.setStatisticsInterval(seconds);
    });
    this.#config = { ...this.#config, balloon: { ...config, statisticsIntervalS: seconds } };
  }

  /** Throws ConfigError for a balloon without hinting. */
  hints(): BalloonControls {
    const { balloon, config } = this.#balloon();
    if (!config.hinting) throw new ConfigError(["This VM's balloon has no hinting"]);
    return balloon;
  }

  #balloon(): { balloon: BalloonControls; config: ResolvedBalloon } {
    const balloon = this.#devices?.controls.balloon;
    const config = this.#config.balloon;
    if (balloon === undefined || config === undefined) throw new ConfigError(["This VM has no balloon"]);
    return { balloon, config };
  }

  /** Throws ConfigError. */
  updateRng(given: RateLimiterConfig): void {
    const limiter = checked(schemaOf("Rate limiter", RATE_LIMITER_SCHEMA.properties), given);
    const rng = this.#find("rng0", "rng");
    this.#guarded(() => rng.updateRateLimiter(limiter));
    this.#config = { ...this.#config, rngRateLimiter: merged(this.#config.rngRateLimiter, limiter) };
  }

  #find<Kind extends "disk" | "net" | "rng">(name: string, kind: Kind): NonNullable<DeviceControls[Kind]> {
    const controls = this.#devices?.controlsOf(name)?.[kind];
    if (controls === undefined) throw new ConfigError([`This VM has no ${KINDS[kind]} ${JSON.stringify(name)}`]);
    return controls;
  }
}

const KINDS = { disk: "disk", net: "network device", rng: "entropy device" } as const;

function schemaOf<Properties extends RecordSchema["properties"]>(title: string, properties: Properties) {
  return { type: "object", title, properties, required: [], additionalProperties: false } as const;
}

/** Throws ConfigError. */
function checked<S extends RecordSchema>(schema: S, given: unknown): Checked<S> {
  const problems: string[] = [];
  const record = checkRecord(schema, given, problems);
  if (record === undefined || problems.length > 0) throw new ConfigError(problems);
  return record;
}

function merged(
  before: RateLimiterConfig | undefined,
  given: RateLimiterConfig | undefined,
): RateLimiterConfig | undefined {
  if (given === undefined) return before;
  return { bandwidth: given.bandwidth ?? before?.bandwidth, operations: given.operations ?? before?.operations };
}
