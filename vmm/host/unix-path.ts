// What the kernel takes as the path of a Unix socket.

/** `bytes` of sun_path in struct sockaddr_un, less the final zero. */
export const MAX_UNIX_PATH_BYTES = 107;

/** `bytes` behind the path of a socket device, for the programs that listen for its guest: "_" and the largest port. */
export const PORT_SUFFIX_BYTES = "_4294967295".length;
