// Numbers of the console device, virtio 1.2 §5.3 and linux/virtio_console.h.

// §5.3.2 queues of a device with one port.
export const CONSOLE_RECEIVEQ = 0;
export const CONSOLE_TRANSMITQ = 1;

// §5.3.3 feature bits.
export const VIRTIO_CONSOLE_F_SIZE = 0;

// §5.3.4 struct virtio_console_config, offsets.
export const VIRTIO_CONSOLE_CONFIG_COLS = 0;
export const VIRTIO_CONSOLE_CONFIG_ROWS = 2;
export const VIRTIO_CONSOLE_CONFIG_LENGTH = 12;
