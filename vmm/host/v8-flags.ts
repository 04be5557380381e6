// V8's flags that vmlet's Node is started with. dist/cli.cache is made with them, and refused by a Node with others:
// it then works all the same, 20 ms later. All versions from 20 to 24 have them.
export const V8_FLAGS: readonly string[] = [
  // The hash seed of the start-up snapshot need not be changed: nothing that a guest controls becomes a property name.
  "--no-rehash-snapshot",
  // Node 20 sums up its snapshot and our code cache to learn that the disk has kept each byte; later ones do not.
  "--no-verify-snapshot-checksum",
  // MiB: what a start allocates has room, and no garbage is collected before the guest runs.
  "--min-semi-space-size=2",
];
