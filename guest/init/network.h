/* The network that the kernel command line describes, for kernels without CONFIG_IP_PNP, which would
 * set it themselves: ip=CLIENT:SERVER:GATEWAY:NETMASK:HOSTNAME:DEVICE:AUTOCONF:DNS, of which SERVER and
 * HOSTNAME mean nothing here, and DHCP is left to programs. Linux: admin-guide/nfs/nfsroot.rst.
 * Structures and numbers: linux/if.h, linux/route.h, linux/sockios.h. */
#ifndef VMLET_NETWORK_H
#define VMLET_NETWORK_H

#include <asm/fcntl.h>
#include <linux/mount.h>
#include <linux/sockios.h>

#include "root.h"
#include "syscall.h"

#define AF_INET 2
#define SOCK_DGRAM 2
#define IFF_UP 0x1
#define RTF_UP 0x1
#define RTF_GATEWAY 0x2

struct internet_address {
	unsigned short family, port;
	/* Network order, as it lies in memory. */
	unsigned char bytes[4];
	char zero[8];
};

struct interface_request {
	char name[16];
	union {
		struct internet_address address;
		short flags;
		char size[24];
	};
};

struct route_request {
	unsigned long pad1;
	struct internet_address destination, gateway, netmask;
	unsigned short flags;
	short pad2;
	unsigned long pad3;
	void *pad4;
	short metric;
	char *device;
	unsigned long mtu, window;
	unsigned short round_trip_time;
};

#define IP_FIELDS 8
enum ip_field { IP_CLIENT, IP_SERVER, IP_GATEWAY, IP_NETMASK, IP_HOSTNAME, IP_DEVICE, IP_AUTOCONF, IP_DNS };

/* The length of a field, which ends at a colon, a blank or NUL. */
static size_t field_length(const char *field)
{
	size_t length = 0;

	while (field[length] > ' ' && field[length] != ':')
		length++;
	return length;
}

/* True if the field is an IPv4 address. */
static int read_address(const char *field, struct internet_address *address)
{
	address->family = AF_INET;
	for (int i = 0; i < 4; i++) {
		unsigned value = 0;

		if (*field < '0' || *field > '9')
			return 0;
		while (*field >= '0' && *field <= '9')
			value = value * 10 + (unsigned)(*field++ - '0');
		if (value > 255 || (i < 3 && *field++ != '.'))
			return 0;
		address->bytes[i] = (unsigned char)value;
	}
	return 1;
}

static long set_up(long socket, const char *name, size_t length)
{
	struct interface_request request = { 0 };

	for (size_t i = 0; i < length && i < sizeof(request.name) - 1; i++)
		request.name[i] = name[i];
	if (call3(ioctl, socket, SIOCGIFFLAGS, &request) < 0)
		return -1;
	request.flags |= IFF_UP;
	return call3(ioctl, socket, SIOCSIFFLAGS, &request);
}

/* On a disk that is not ours the file is covered, not written; an image has one for this (image.h). */
static void set_resolver(const char *address)
{
	static const char file[] = "/run/resolv.conf", path[] = "/etc/resolv.conf", word[] = "nameserver ";
	long fd = call3(open, root_kind == ROOT_IMAGE ? path : file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	if (fd < 0)
		return;
	call3(write, fd, word, sizeof(word) - 1);
	call3(write, fd, address, field_length(address));
	call3(write, fd, "\n", 1);
	call1(close, fd);
	if (root_kind != ROOT_IMAGE && call5(mount, file, path, 0, MS_BIND, 0) != 0 && root_kind != ROOT_DISK)
		call2(symlink, file, path);
}

/* "ip=dhcp" and the like have none. */
static int has_address(const char *parameter)
{
	struct internet_address address;

	return read_address(parameter, &address);
}

/* False if the device is not there, or the kernel does not want to. */
static int configure_network(const char *parameter)
{
	const char *fields[IP_FIELDS];
	struct interface_request request = { 0 };
	struct route_request route = { 0 };
	long socket;
	int done;

	for (int i = 0; i < IP_FIELDS; i++) {
		fields[i] = parameter;
		parameter += field_length(parameter);
		if (*parameter == ':')
			parameter++;
	}
	/* What has no address is the kernel's alone. */
	if (!read_address(fields[IP_CLIENT], &request.address))
		return 1;
	socket = call3(socket, AF_INET, SOCK_DGRAM, 0);
	for (size_t i = 0; i < field_length(fields[IP_DEVICE]) && i < sizeof(request.name) - 1; i++)
		request.name[i] = fields[IP_DEVICE][i];
	done = call3(ioctl, socket, SIOCSIFADDR, &request) == 0;
	if (done && read_address(fields[IP_NETMASK], &request.address))
		call3(ioctl, socket, SIOCSIFNETMASK, &request);
	done = done && set_up(socket, request.name, sizeof(request.name)) == 0;
	if (done && read_address(fields[IP_GATEWAY], &route.gateway)) {
		route.destination.family = route.netmask.family = AF_INET;
		route.flags = RTF_UP | RTF_GATEWAY;
		/* The kernel may have set it already. */
		call3(ioctl, socket, SIOCADDRT, &route);
	}
	call1(close, socket);
	if (done && read_address(fields[IP_DNS], &request.address))
		set_resolver(fields[IP_DNS]);
	return done;
}

#endif
