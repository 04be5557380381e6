// What the kernel takes as the path of a Unix socket.

/** `bytes` of sun_path in struct sockaddr_un, less the final zero. */
export const MAX_UNIX_PATH_BYTES = 107;
