// What the rest of the monitor knows of an image.

/** When a registry or an engine is asked for an image that has a name: if it is not there yet, each time, or never. */
export type PullPolicy = "missing" | "always" | "never";

/** How an image says that it wants to be run. Lists are empty and texts "" where it says nothing. */
export interface ImageConfig {
  /** NAME=VALUE */
  readonly env: readonly string[];
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly workingDir: string;
  /** USER[:GROUP], names or numbers. */
  readonly user: string;
  /** PORT/PROTOCOL */
  readonly exposedPorts: readonly string[];
  /** Folders that the image wants to be writable and apart. */
  readonly volumes: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  /** A signal's name or number. */
  readonly stopSignal: string;
  readonly hostname: string;
}

/** What is being done, and how far it is. */
export interface ImageProgress {
  /** "index": the file system's own blocks are being made of what is in the cache. */
  readonly phase: "download" | "unpack" | "index";
  /** `bytes` */
  readonly done: number;
  /** `bytes`; undefined where nobody has said how many there will be. */
  readonly total: number | undefined;
}

export interface PrepareOptions {
  /** Default: "missing". */
  readonly pull?: PullPolicy;
  readonly onProgress?: (progress: ImageProgress) => void;
  readonly signal?: AbortSignal;
  /** Default: limits.ts. */
  readonly limits?: Partial<ImageLimits>;
  /** Default: the images' folder in the user's cache. */
  readonly cache?: string;
}

/** How much of an image is taken before it is refused. */
export interface ImageLimits {
  /** `bytes` of all files of a layer, and of a layer unpacked. */
  readonly layerBytes: number;
  /** Files, folders and all else, of a layer and of an image. */
  readonly entries: number;
  /** `bytes` of names, link targets and attributes, of a layer and of an image. */
  readonly metadataBytes: number;
  /** A layer may unpack to so many times its length ... */
  readonly ratio: number;
  /** ... once it has come to so many `bytes`. */
  readonly ratioFromBytes: number;
  /** `bytes` of manifests and configurations. */
  readonly jsonBytes: number;
  readonly layers: number;
  /** `bytes` of the cache; what was used last stays. */
  readonly cacheBytes: number;
}

/** An image that a guest can have as a disk. */
export interface PreparedImage {
  /** sha256 of its configuration: 64 hexadecimal digits. */
  readonly id: string;
  /** As it was asked for. */
  readonly reference: string;
  /** For a disk with format "parts" and isReadonly: one erofs file system. */
  readonly manifestPath: string;
  readonly config: ImageConfig;
  /** Of the disk. */
  readonly bytes: number;
  /** The cache may remove it from now on. */
  release(): void;
}

/** One line of `vmlet images`. */
export interface ImageSummary {
  readonly id: string;
  /** All names that lead to it. */
  readonly references: readonly string[];
  /** `bytes` of its disk, and of that what no other image has. */
  readonly bytes: number;
  readonly ownBytes: number;
  /** When it was brought here and when it was used last, ISO 8601. */
  readonly created: string;
  readonly used: string;
  /** A VM or a process holds it. */
  readonly isInUse: boolean;
}

export const EMPTY_CONFIG: ImageConfig = {
  env: [],
  entrypoint: [],
  cmd: [],
  workingDir: "",
  user: "",
  exposedPorts: [],
  volumes: [],
  labels: {},
  stopSignal: "",
  hostname: "",
};
