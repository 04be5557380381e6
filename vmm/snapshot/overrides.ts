// What a restored guest may be given in place of what it had: the host's ends of its devices, never what it sees of
// them.
import type { ResolvedConfig } from "../config/types.js";
import { describeConfig, resolveDescribed } from "../config/describe.js";
import { diskName } from "../config/disks.js";
import type { NetConfig } from "../config/nets.js";
import { shareName } from "../config/shares.js";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import { checkObject } from "./arguments.js";
import { isHostName } from "./host-name.js";

/** What the guest finds behind a shared folder's tag. */
export interface ShareOverride {
  readonly path: string;
  /** Default: as it was. */
  readonly isReadonly?: boolean | undefined;
}

export interface RestoreOverrides {
  /** Paths of disks, by the device's name: { vda: "copy.img" }. */
  readonly disks?: Readonly<Record<string, string>> | undefined;
  /** Host ends of network devices, by the device's name: { net0: { tap: "tap7" } }; address and MTU stay. */
  readonly nets?: Readonly<Record<string, NetConfig>> | undefined;
  /** Folders in place of those that were shared, by the device's name: { share0: { path: "here" } }; tags stay. */
  readonly shares?: Readonly<Record<string, ShareOverride>> | undefined;
  /** The host's socket, the guest's context id, or both: what is not given stays as it was. */
  readonly vsock?: { readonly path?: string | undefined; readonly cid?: number | undefined } | undefined;
  /** The guest's own name, if vmlet's init is there to set it. */
  readonly hostName?: string | undefined;
}

const SHARE_FIELDS = ["path", "isReadonly"];
const KNOWN = ["disks", "nets", "shares", "vsock", "hostName"];

/** Throws ConfigError, with all problems. */
export function overridden(config: ResolvedConfig, overrides: RestoreOverrides): ResolvedConfig {
  checkObject("Overrides", overrides, KNOWN);
  // A restore is a matter of a millisecond.
  if (Object.keys(overrides).length === 0) return config;
  const { disks = {}, nets = {}, shares = {}, vsock, hostName } = overrides;
  for (const [name, value] of Object.entries({ disks, nets, shares, vsock: vsock ?? {}, ...nets })) {
    checkObject(`Overrides: ${name}`, value, undefined);
  }
  const problems: string[] = [];
  if (hostName !== undefined && !isHostName(hostName)) {
    problems.push(`Host name ${show(hostName)} is not 1 to 64 letters, digits, "." and "-"`);
  }
  const described = describeConfig(config);
  checkNames(
    "disk",
    Object.keys(disks),
    config.disks.map((_, index) => diskName(index)),
    problems,
  );
  checkNames(
    "network device",
    Object.keys(nets),
    config.nets.map((_, index) => netName(index)),
    problems,
  );
  checkNames(
    "shared folder",
    Object.keys(shares),
    config.shares.map((_, index) => shareName(index)),
    problems,
  );
  for (const [name, share] of Object.entries(shares)) checkObject(`Overrides: ${name}`, share, SHARE_FIELDS);
  for (const [name, { mac, mtu, mmds }] of Object.entries(nets)) {
    if (mac !== undefined || mtu !== undefined || mmds !== undefined)
      problems.push(`Override of ${name}: the guest keeps its address, MTU and metadata service`);
  }
  if (vsock !== undefined && config.vsock === undefined) problems.push("The saved guest has no socket device");
  if (problems.length > 0) throw new ConfigError(problems);
  return resolveDescribed({
    ...described,
    disks: described.disks?.map((disk, index) => ({ ...disk, path: disks[diskName(index)] ?? disk.path })),
    nets: described.nets?.map((net, index) => {
      const other = nets[netName(index)];
      return other === undefined
        ? net
        : { ...limitsOf(other, net), ...other, mac: net.mac, mtu: net.mtu, mmds: net.mmds };
    }),
    shares: described.shares?.map((share, index) => ({ ...share, ...givenOf(shares[shareName(index)]) })),
    vsock: described.vsock === undefined ? undefined : { ...described.vsock, ...withoutUndefined(vsock) },
  });
}

function givenOf(share: ShareOverride | undefined): { path?: string; isReadonly?: boolean } {
  if (share === undefined) return {};
  return { path: share.path, ...(share.isReadonly === undefined ? {} : { isReadonly: share.isReadonly }) };
}

/** Those of before, if there are no others. */
function limitsOf(
  { rateLimiter, rxRateLimiter, txRateLimiter }: NetConfig,
  before: NetConfig,
): Pick<NetConfig, "rxRateLimiter" | "txRateLimiter"> {
  if (rateLimiter !== undefined || rxRateLimiter !== undefined || txRateLimiter !== undefined) return {};
  return { rxRateLimiter: before.rxRateLimiter, txRateLimiter: before.txRateLimiter };
}

function netName(index: number): string {
  return `net${String(index)}`;
}

function checkNames(kind: string, given: readonly string[], known: readonly string[], problems: string[]): void {
  for (const name of given) {
    if (known.includes(name)) continue;
    const list = known.length === 0 ? `it has no ${kind}` : `it has ${known.join(", ")}`;
    problems.push(`The saved guest has no ${kind} ${show(name)}; ${list}`);
  }
}

function withoutUndefined({ path, cid }: NonNullable<RestoreOverrides["vsock"]> = {}): { path?: string; cid?: number } {
  return { ...(path === undefined ? {} : { path }), ...(cid === undefined ? {} : { cid }) };
}
