/* What "/" is. */
#ifndef VMLET_ROOT_KIND_H
#define VMLET_ROOT_KIND_H

static enum { ROOT_INITRAMFS, ROOT_DISK, ROOT_IMAGE } root_kind;

#endif
