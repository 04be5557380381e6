/* A connection to peer.c on the host: what a message costs there and back, and what data cost. */
#include <asm-generic/socket.h>
#include <linux/if.h>
#include <linux/in.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <sys/socket.h>

#include "peer.h"
#include "probe.h"
#include "runtime.h"

/* A host that drops packets gives no answer at all. */
#define PATIENCE_S 5

static const char *const metrics[] = { "network_round_trip_ns", "network_send_64k_ns", "network_receive_64k_ns" };
static char data[PEER_DATA_BYTES];
static long to_peer;

static uint32_t parse_address(const char *text)
{
	uint32_t address = 0;

	for (int i = 0; i < 4; i++) {
		address |= (uint32_t)parse_number(text) << (8 * i);
		while (*text && *text++ != '.')
			;
	}
	return address;
}

static struct sockaddr_in address_of(const char *address, const char *port)
{
	uint16_t number = (uint16_t)parse_number(port);

	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = (uint16_t)(number << 8 | number >> 8),
		.sin_addr.s_addr = parse_address(address),
	};
}

/* What ip(8) does; a guest of nothing but init has none. */
void give_address(const char *interface, const char *address, const char *netmask)
{
	struct ifreq request = { 0 };
	struct sockaddr_in value = address_of(address, "0");
	long fd = CALL(__NR_socket, AF_INET, SOCK_DGRAM, 0);
	long error;

	for (size_t i = 0; interface[i] && i < IFNAMSIZ - 1; i++)
		request.ifr_name[i] = interface[i];
	memcpy(&request.ifr_addr, &value, sizeof value);
	if ((error = CALL(__NR_ioctl, fd, SIOCSIFADDR, &request)) < 0)
		die(interface, error);
	value = address_of(netmask, "0");
	memcpy(&request.ifr_netmask, &value, sizeof value);
	if ((error = CALL(__NR_ioctl, fd, SIOCSIFNETMASK, &request)) < 0)
		die(interface, error);
	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if ((error = CALL(__NR_ioctl, fd, SIOCSIFFLAGS, &request)) < 0)
		die(interface, error);
	CALL(__NR_close, fd);
}

static void send_all(const char *bytes, long length)
{
	for (long done = 0; done < length;) {
		long n = CALL(__NR_write, to_peer, bytes + done, length - done);

		if (n <= 0)
			die("network: write", n);
		done += n;
	}
}

static void receive_all(long length)
{
	for (long done = 0; done < length;) {
		long n = CALL(__NR_read, to_peer, data + done, length - done);

		if (n <= 0)
			die("network: read", n);
		done += n;
	}
}

static void there_and_back(long n)
{
	for (long i = 0; i < n; i++) {
		send_all((const char[]){ PEER_ECHO }, 1);
		receive_all(1);
	}
}

/* The answer says that all of it has arrived. */
static void upload(long n)
{
	for (long i = 0; i < n; i++) {
		send_all((const char[]){ PEER_TAKE }, 1);
		send_all(data, sizeof data);
		receive_all(1);
	}
}

static void download(long n)
{
	for (long i = 0; i < n; i++) {
		send_all((const char[]){ PEER_GIVE }, 1);
		receive_all(sizeof data);
	}
}

void network(const char *address, const char *port, uint64_t budget_ns)
{
	struct sockaddr_in peer = address_of(address, port);
	struct { int64_t seconds, microseconds; } patience = { PATIENCE_S, 0 };
	int on = 1;

	to_peer = CALL(__NR_socket, AF_INET, SOCK_STREAM, 0);
	if (to_peer < 0)
		die("network: socket", to_peer);
	CALL(__NR_setsockopt, to_peer, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	CALL(__NR_setsockopt, to_peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (CALL(__NR_connect, to_peer, &peer, sizeof peer) < 0) {
		for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++)
			skip(metrics[i], "the host does not answer over its network");
		return;
	}
	measure(metrics[0], there_and_back, budget_ns);
	measure(metrics[1], upload, budget_ns);
	measure(metrics[2], download, budget_ns);
	CALL(__NR_close, to_peer);
}
