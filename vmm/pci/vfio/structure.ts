// Arguments of VFIO's ioctls; linux/vfio.h.

/** Zeroes but for its first field, which is its size, `bytes`. */
export function structure(size: number): DataView<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(size));
  view.setUint32(0, size, true);
  return view;
}
