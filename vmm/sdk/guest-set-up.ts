// What a VM's guest gets before any program of the user's: its name, its folders, and what else its programs are to find. One that goes on from a template has heard
// its name, the time and fresh random numbers already.
import { posix } from "node:path";
import type { AgentConnection } from "../agent/connection.js";
import { GuestFiles } from "../agent/files.js";
import { GuestControl } from "../agent/guest.js";
import { GuestRequestError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { isSealedLater, volumeDevice, volumeTag } from "./guest-config.js";
import { setUpWorld } from "./set-up-world.js";
import { tmpfsMount } from "./tmpfs-options.js";
import type { VmSpec, VolumeSpec } from "./vm-spec.js";

/** mount(2) */
const MS_RDONLY = 1;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
/** umount2(2) */
const MNT_DETACH = 2;
/** A folder that is there in every guest, and can be written in whatever the root is. */
const BEHIND = "/dev/.vmlet-";

/** Rejects with GuestRequestError for what the guest refuses, and with AgentError. */
export async function setUpGuest(agent: AgentConnection, spec: VmSpec, isRestored: boolean): Promise<void> {
  const files = new GuestFiles(agent);
  const guest = new GuestControl(agent, files);
  // Nothing waits for it: the connection keeps the order.
  const named = isRestored
    ? undefined
    : guest.setIdentity({
        ...(spec.hostName === undefined ? {} : { hostname: spec.hostName }),
        timeNs: BigInt(Date.now()) * 1_000_000n,
      });
  named?.catch(() => undefined);
  if (spec.world !== undefined) await setUpWorld(guest, files, spec.world, spec.root.kind === "image");
  const mounts = [
    ...spec.volumes.map((volume, index) => ({
      guestPath: volume.guestPath,
      mount: () => mountVolume(guest, files, volume, spec.isInLab === true ? labVolume(index) : sharedVolume(index)),
    })),
    ...spec.tmpfs.map(({ guestPath, options }) => ({
      guestPath,
      mount: () => mountTmpfs(guest, guestPath, options),
    })),
  ];
  // What lies in another one comes behind it, whatever the order in which they were given. One after the other: the guest does
  // each in a process of its own.
  for (const { mount } of mounts.sort((a, b) => depthOf(a.guestPath) - depthOf(b.guestPath))) await mount();
  await named;
  if (!isSealedLater(spec)) return;
  await files.mkdir(spec.defaults.workingDirectory, { parents: true });
  await guest.mount("", "/", "", { flags: MS_REMOUNT | MS_RDONLY });
}

/** How the guest gets at a volume. */
interface VolumeSource {
  readonly name: string;
  readonly type: "virtiofs" | "erofs";
}

function sharedVolume(index: number): VolumeSource {
  return { name: volumeTag(index), type: "virtiofs" };
}

function labVolume(index: number): VolumeSource {
  return { name: volumeDevice(index), type: "erofs" };
}

function depthOf(path: string): number {
  return path.split("/").length;
}

async function mountTmpfs(guest: GuestControl, guestPath: string, options: string): Promise<void> {
  const mount = tmpfsMount(options);
  if (typeof mount !== "string") await guest.mount("tmpfs", guestPath, "tmpfs", mount);
}

async function mountVolume(
  guest: GuestControl,
  files: GuestFiles,
  volume: VolumeSpec,
  from: VolumeSource,
): Promise<void> {
  const { hostPath, guestPath } = volume;
  try {
    await mountShare(guest, files, volume, from);
  } catch (error) {
    if (!(error instanceof GuestRequestError)) throw error;
    const { errno, errnoName } = error;
    throw new GuestRequestError(`volume ${hostPath} at ${guestPath}`, errno, errnoName, errnoText(errnoName));
  }
}

async function mountShare(
  guest: GuestControl,
  files: GuestFiles,
  volume: VolumeSpec,
  { name, type }: VolumeSource,
): Promise<void> {
  const { hostPath, guestPath, isReadonly, isFile } = volume;
  const flags = isReadonly ? MS_RDONLY : 0;
  if (!isFile) {
    await guest.mount(name, guestPath, type, { flags });
    return;
  }
  // A file system has folders at its top: the file is mounted out of it, and what is around it goes.
  const behind = `${BEHIND}${name}`;
  await guest.mount(name, behind, type, { flags });
  await makeFile(files, guestPath);
  await guest.mount(`${behind}/${posix.basename(hostPath)}`, guestPath, "", { flags: MS_BIND });
  if (isReadonly) await guest.mount("", guestPath, "", { flags: MS_BIND | MS_REMOUNT | MS_RDONLY });
  await guest.umount(behind, { flags: MNT_DETACH });
  await files.remove(behind);
}

/** A place for it, where there is none. */
async function makeFile(files: GuestFiles, path: string): Promise<void> {
  if (await files.exists(path)) return;
  await files.mkdir(posix.dirname(path), { parents: true });
  await files.write(path, "");
}
