// Additional certificates of this host, without which some hosts reach no registry. Node reads all of them at each start, which
// takes longer than the start: the hundreds of programs that tests start go without, and those get them that need a network.

const NAME = "NODE_EXTRA_CA_CERTS";
const KEPT = "VMLET_TEST_CA_CERTS";

/** The environment for a process of tests. */
export function withoutCertificates(): NodeJS.ProcessEnv {
  const { [NAME]: certificates, ...env } = process.env;
  return certificates === undefined ? env : { [KEPT]: certificates, ...env };
}

/** A file of certificates, or undefined. */
export function hostCertificates(): string | undefined {
  return process.env[NAME] ?? process.env[KEPT];
}

/** For the environment of a program that needs the network. */
export function withCertificates(): NodeJS.ProcessEnv {
  const certificates = hostCertificates();
  return certificates === undefined ? {} : { [NAME]: certificates };
}
