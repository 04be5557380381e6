// What a bundle's config.json is, as far as it is looked at. OCI runtime-spec 1.0 to 1.2, config.md and config-linux.md.
import type { SeccompConfig } from "./seccomp/compile.js";

export interface OciUser {
  readonly uid: number;
  readonly gid: number;
  readonly umask?: number;
  readonly additionalGids?: readonly number[];
}

export interface OciCapabilities {
  readonly bounding?: readonly string[];
  readonly effective?: readonly string[];
  readonly permitted?: readonly string[];
  readonly inheritable?: readonly string[];
  readonly ambient?: readonly string[];
}

export interface OciProcess {
  readonly terminal?: boolean;
  readonly consoleSize?: { readonly height: number; readonly width: number };
  readonly user: OciUser;
  readonly args: readonly string[];
  readonly env?: readonly string[];
  readonly cwd: string;
  readonly capabilities?: OciCapabilities;
  readonly rlimits?: readonly { readonly type: string; readonly soft: number; readonly hard: number }[];
  readonly noNewPrivileges?: boolean;
  readonly oomScoreAdj?: number;
  readonly apparmorProfile?: string;
  readonly selinuxLabel?: string;
}

export interface OciMount {
  readonly destination: string;
  readonly type?: string;
  readonly source?: string;
  readonly options?: readonly string[];
}

export interface OciHook {
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  readonly timeout?: number;
}

export const HOOK_KINDS = [
  "prestart",
  "createRuntime",
  "createContainer",
  "startContainer",
  "poststart",
  "poststop",
] as const;
export type HookKind = (typeof HOOK_KINDS)[number];

export interface OciDevice {
  readonly type: string;
  readonly path: string;
  readonly major?: number;
  readonly minor?: number;
  readonly fileMode?: number;
  readonly uid?: number;
  readonly gid?: number;
}

export interface OciThrottle {
  readonly major: number;
  readonly minor: number;
  /** A second; 0: as much as there is. */
  readonly rate: number;
}

export interface OciBlockIo {
  readonly weight?: number;
  readonly throttleReadBpsDevice?: readonly OciThrottle[] | null;
  readonly throttleWriteBpsDevice?: readonly OciThrottle[] | null;
  readonly throttleReadIOPSDevice?: readonly OciThrottle[] | null;
  readonly throttleWriteIOPSDevice?: readonly OciThrottle[] | null;
}

export interface OciDeviceRule {
  readonly allow: boolean;
  readonly type?: string;
  readonly major?: number;
  readonly minor?: number;
  readonly access?: string;
}

/** Of linux.resources and of `update`. */
export interface OciResources {
  readonly memory?: {
    readonly limit?: number;
    readonly reservation?: number;
    readonly swap?: number;
    readonly swappiness?: number;
    readonly disableOOMKiller?: boolean;
  };
  readonly cpu?: {
    readonly shares?: number;
    readonly quota?: number;
    readonly period?: number;
    readonly burst?: number;
    readonly idle?: number;
    readonly cpus?: string;
    readonly mems?: string;
  };
  readonly pids?: { readonly limit?: number };
  readonly blockIO?: OciBlockIo;
  readonly devices?: readonly OciDeviceRule[] | null;
  readonly unified?: Readonly<Record<string, string>>;
}

export interface OciLinux {
  readonly namespaces?: readonly { readonly type: string; readonly path?: string }[];
  readonly uidMappings?: readonly unknown[];
  readonly gidMappings?: readonly unknown[];
  readonly devices?: readonly OciDevice[];
  readonly cgroupsPath?: string;
  readonly resources?: OciResources;
  readonly sysctl?: Readonly<Record<string, string>>;
  readonly maskedPaths?: readonly string[];
  readonly readonlyPaths?: readonly string[];
  readonly seccomp?: SeccompConfig | null;
  readonly rootfsPropagation?: string;
  readonly mountLabel?: string;
  readonly intelRdt?: unknown;
  readonly personality?: { readonly domain?: string };
}

export interface OciSpec {
  readonly ociVersion: string;
  readonly process?: OciProcess;
  readonly root?: { readonly path: string; readonly readonly?: boolean };
  readonly hostname?: string;
  readonly domainname?: string;
  readonly mounts?: readonly OciMount[];
  readonly hooks?: Readonly<Partial<Record<HookKind, readonly OciHook[]>>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly linux?: OciLinux;
}
