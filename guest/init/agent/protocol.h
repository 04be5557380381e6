/* The agent's protocol, version 2: docs/agent-protocol.md. vmm/agent/ is the other end. */
#ifndef VMLET_AGENT_PROTOCOL_H
#define VMLET_AGENT_PROTOCOL_H

#define AGENT_MAGIC 0x414c4d56U
#define AGENT_VERSION 2
#define FRAME_PAYLOAD 65536U
#define FRAME_HEADER 12U
/* Bytes of DATA, and of DATA2, that may be sent before more credit comes. */
#define WINDOW 524288U
#define MAX_STREAMS 256
#define LAST_STREAM 0x7fffffffU
#define MAX_PING 64
/* Of text, with its NUL. */
#define MAX_PATH 4096

enum frame_type {
	FRAME_HELLO = 0x01,
	FRAME_PING = 0x02,
	FRAME_PONG = 0x03,
	FRAME_DONE = 0x06,
	FRAME_FAILED = 0x07,
	FRAME_CANCEL = 0x08,
	FRAME_DATA = 0x09,
	FRAME_DATA2 = 0x0a,
	FRAME_END = 0x0b,
	FRAME_CREDIT = 0x0c,
	FRAME_CLOSED = 0x0d,
	FRAME_EXEC = 0x10,
	FRAME_STARTED = 0x11,
	FRAME_SIGNAL = 0x12,
	FRAME_RESIZE = 0x13,
	FRAME_STAT = 0x20,
	FRAME_LIST = 0x21,
	FRAME_READ = 0x22,
	FRAME_WRITE = 0x23,
	FRAME_MKDIR = 0x24,
	FRAME_REMOVE = 0x25,
	FRAME_RENAME = 0x26,
	FRAME_LINK = 0x27,
	FRAME_READLINK = 0x28,
	FRAME_SETATTR = 0x29,
	FRAME_MKNOD = 0x2a,
	FRAME_WAIT_PORT = 0x30,
	FRAME_IDENTITY = 0x31,
	FRAME_NETWORK = 0x32,
	FRAME_SYNC = 0x33,
	FRAME_POWER_OFF = 0x34,
	FRAME_MOUNT = 0x35,
	FRAME_UMOUNT = 0x36,
	FRAME_NETLINK = 0x37,
};

struct frame {
	unsigned length, stream;
	unsigned char type, zero[3];
};

struct hello {
	unsigned magic;
	unsigned short version, zero;
	unsigned streams, nonce;
};

struct credit {
	unsigned char which, zero[3];
	unsigned bytes;
};

#define EXEC_TERMINAL 1
#define EXEC_NO_INPUT 2
#define EXEC_MERGED 4
#define EXEC_CLEAN 8
#define EXEC_HOLD 16
#define EXEC_MAKE_FOLDER 32
#define EXEC_CONTAINER 64
#define EXEC_WAIT 128
#define EXEC_FLAGS 255

struct exec_request {
	unsigned flags;
	unsigned short rows, columns;
	unsigned arguments, variables, groups, limits;
};

struct exec_limit {
	unsigned resource, zero;
	unsigned long soft, hard;
};

#define CONTAINER_NO_NEW_PRIVILEGES 1
#define CONTAINER_OOM_SCORE 2
#define CONTAINER_UMASK 4
#define CONTAINER_CAPABILITIES 8
#define CONTAINER_ENDS_GUEST 16

/* Behind the groups, with EXEC_CONTAINER. */
struct exec_container {
	unsigned flags;
	int oom_score;
	/* How many strings there are before the arguments. */
	unsigned umask, steps;
	/* Of a process some of whose namespaces this one enters; 0: none. */
	unsigned pid;
	/* CLONE_NEW…: those; and those that are new. */
	unsigned joined, made, zero;
	unsigned long bounding, effective, permitted, inheritable, ambient;
};

struct exec_result {
	unsigned code, signal, zero;
};

#define PATH_FOLLOW 1
#define LIST_NAMES 2
#define WRITE_CREATE 4
#define WRITE_EXCLUSIVE 8
#define WRITE_TRUNCATE 16
#define WRITE_APPEND 32
#define WRITE_OWNER 64
#define WRITE_MODE 128
#define MKDIR_PARENTS 2
#define MKDIR_OWNER 64
#define REMOVE_TREE 2
#define REMOVE_FORCE 4
#define LINK_SYMBOLIC 2
#define SETATTR_MODE 2
#define SETATTR_OWNER 4
#define SETATTR_TIMES 8
#define SETATTR_SIZE 16
#define TIME_AS_IT_IS (~0UL)

struct file_status {
	unsigned mode, uid, gid, links;
	unsigned long size, inode, seconds;
	unsigned nanoseconds, major, minor, zero;
	unsigned long blocks;
};

/* What comes before the path in the requests on files. */
struct read_request {
	unsigned flags;
	unsigned long offset, count;
} __attribute__((packed));

struct write_request {
	unsigned flags, mode, uid, gid;
	unsigned long offset;
} __attribute__((packed));

struct folder_request {
	unsigned flags, mode, uid, gid;
};

struct attributes_request {
	unsigned flags, mode, uid, gid;
	unsigned long accessed, modified;
} __attribute__((packed));

struct node_request {
	unsigned flags, mode, major, minor;
};

#define IDENTITY_SEED 1
#define IDENTITY_CLOCK 2
#define IDENTITY_NAME 4

struct identity_request {
	unsigned flags, zero;
	unsigned long seconds;
	unsigned nanoseconds, zero_too;
	unsigned char seed[32];
};

struct port_request {
	unsigned short port, zero;
	unsigned ms;
};

#endif
