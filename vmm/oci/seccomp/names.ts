// The words of linux.seccomp and their numbers: linux/seccomp.h and seccomp.h of libseccomp.

/** Those with a number in them take it from errnoRet. */
export const ACTIONS: Readonly<Record<string, { readonly base: number; readonly hasNumber?: boolean }>> = {
  SCMP_ACT_KILL: { base: 0 },
  SCMP_ACT_KILL_THREAD: { base: 0 },
  SCMP_ACT_KILL_PROCESS: { base: 0x8000_0000 },
  SCMP_ACT_TRAP: { base: 0x0003_0000 },
  SCMP_ACT_ERRNO: { base: 0x0005_0000, hasNumber: true },
  SCMP_ACT_TRACE: { base: 0x7ff0_0000, hasNumber: true },
  SCMP_ACT_LOG: { base: 0x7ffc_0000 },
  SCMP_ACT_ALLOW: { base: 0x7fff_0000 },
};
export const OPERATORS: Readonly<Record<string, number>> = {
  SCMP_CMP_NE: 1,
  SCMP_CMP_LT: 2,
  SCMP_CMP_LE: 3,
  SCMP_CMP_EQ: 4,
  SCMP_CMP_GE: 5,
  SCMP_CMP_GT: 6,
  SCMP_CMP_MASKED_EQ: 7,
};
export const FLAGS: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 1,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
};

export const SECCOMP_ACTIONS = Object.keys(ACTIONS);
export const SECCOMP_OPERATORS = Object.keys(OPERATORS);
/** Of this processor. */
export const SECCOMP_ARCHITECTURES: readonly string[] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
export const SECCOMP_FLAGS = Object.keys(FLAGS);
