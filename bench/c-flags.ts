// How the benches' C programs are compiled.

export const C_FLAGS: readonly string[] = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"];

/** For a static program without a C library. */
export const FREESTANDING_FLAGS: readonly string[] = [
  ...["-ffreestanding", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fno-pie", "-fcf-protection=none"],
  ...["-nostdlib", "-static", "-no-pie", "-s"],
  ...["-Wl,--build-id=none", "-Wl,-z,noseparate-code", "-Wl,-z,max-page-size=4096"],
];
