/* The guest's part of the device bench: a static program without a C library, made of this file and
 * bench/ladder/programs/runtime.c.
 *   device-load DISK [NAME ADDRESS PEER]...
 * Reads DISK (O_DIRECT: the guest's page cache has no part in it), unless it is "-". Then it talks TCP with
 * net-peer.c at each PEER, by an interface that gets ADDRESS/24: the first by the one whose MAC address
 * ends in 1, the next by the one with 2. Prints a line `metric value` for each figure, by the guest's
 * monotonic clock, the network's with NAME before them, and reboots.
 */
#include <asm/fcntl.h>
#include <asm/ioctls.h>
#include <asm/socket.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <linux/if.h>
#include <linux/in.h>
#include <linux/reboot.h>
#include <linux/sockios.h>
#include <linux/tcp.h>

#include "../ladder/programs/runtime.h"

#define MS 1000000ULL
/* A monitor that starts threads after the boot has done so by then. */
#define SETTLE_MS 2000
/* Of each load, before it is measured. The loads with most requests a second come first, because a
 * just-in-time compiler counts calls, not seconds; what a monitor does before that is measured, too. */
#define WARM_UP_MS 2000
#define MEASURE_MS 1000

#define SEQUENTIAL_BYTES (1UL << 20)
#define RANDOM_BYTES 4096UL
#define DEPTH 16
#define PORT 7000
#define INTERFACES 4
#define MESSAGE_BYTES (64UL << 10)

static char *buffer;
static long disk;
static uint64_t disk_bytes;

static void report(const char *metric, uint64_t value)
{
	print(metric);
	print(" ");
	print_number((int64_t)value);
	print("\n");
	flush();
}

static void check(const char *what, long result)
{
	if (result < 0)
		die(what, result);
}

static void sleep_ms(uint64_t ms)
{
	struct { int64_t seconds, nanoseconds; } t = { (int64_t)(ms / 1000), (int64_t)(ms % 1000 * MS) };

	CALL(__NR_nanosleep, &t, 0);
}

/* Repeats `step`, which says how much it has done; units a second. */
static uint64_t cold_rate(uint64_t (*step)(void))
{
	uint64_t start = now_ns(), done = 0, now;

	do {
		done += step();
		now = now_ns();
	} while (now - start < MEASURE_MS * MS);
	return (uint64_t)((double)done * 1e9 / (double)(now - start));
}

static uint64_t rate(uint64_t (*step)(void))
{
	uint64_t start = now_ns();

	while (now_ns() - start < WARM_UP_MS * MS)
		step();
	return cold_rate(step);
}

/* == the disk == */

/* Marsaglia's xorshift64: the same places for every monitor. */
static uint64_t random_offset(void)
{
	static uint64_t state = 0x9e3779b97f4a7c15ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % (disk_bytes / RANDOM_BYTES) * RANDOM_BYTES;
}

static uint64_t read_next(void)
{
	static uint64_t offset;

	if (offset + SEQUENTIAL_BYTES > disk_bytes)
		offset = 0;
	long n = CALL(__NR_pread64, disk, buffer, SEQUENTIAL_BYTES, offset);

	check("pread", n);
	offset += SEQUENTIAL_BYTES;
	return (uint64_t)n;
}

static uint64_t read_random(void)
{
	check("pread", CALL(__NR_pread64, disk, buffer, RANDOM_BYTES, random_offset()));
	return 1;
}

static aio_context_t aio;
static struct iocb blocks[DEPTH];

static void submit(struct iocb *block)
{
	block->aio_offset = (int64_t)random_offset();
	check("io_submit", CALL(__NR_io_submit, aio, 1, &block));
}

static uint64_t read_deep(void)
{
	struct io_event events[DEPTH];
	long n = CALL(__NR_io_getevents, aio, 1, DEPTH, events, 0);

	check("io_getevents", n);
	for (long i = 0; i < n; i++) {
		if (events[i].res != RANDOM_BYTES)
			die("read", (long)events[i].res);
		submit((struct iocb *)events[i].obj);
	}
	return (uint64_t)n;
}

static void load_disk(const char *path)
{
	disk = CALL(__NR_open, path, O_RDONLY | O_DIRECT, 0);
	check(path, disk);
	check("BLKGETSIZE64", CALL(__NR_ioctl, disk, BLKGETSIZE64, &disk_bytes));
	report("blk_read_4k_random_first_second_iops", cold_rate(read_random));
	check("io_setup", CALL(__NR_io_setup, DEPTH, &aio));
	for (int i = 0; i < DEPTH; i++) {
		blocks[i] = (struct iocb){
			.aio_fildes = (uint32_t)disk,
			.aio_lio_opcode = IOCB_CMD_PREAD,
			.aio_buf = (uintptr_t)(buffer + (unsigned long)i * RANDOM_BYTES),
			.aio_nbytes = RANDOM_BYTES,
		};
		submit(&blocks[i]);
	}
	report("blk_read_4k_random_depth_16_iops", rate(read_deep));
	/* Waits for what is under way. */
	check("io_destroy", CALL(__NR_io_destroy, aio));
	report("blk_read_4k_random_iops", rate(read_random));
	report("blk_read_1m_sequential_kib_s", rate(read_next) / 1024);
}

/* == the network == */

static uint32_t parse_address(const char *text)
{
	uint32_t address = 0;

	for (int shift = 0; shift < 32; shift += 8) {
		address |= (uint32_t)parse_number(text) << shift;
		while (*text && *text != '.')
			text++;
		if (*text)
			text++;
	}
	return address;
}

static struct sockaddr_in socket_address(const char *text, uint16_t port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = __builtin_bswap16(port),
		.sin_addr = { parse_address(text) },
	};
}

/* By its MAC address: monitors give their devices places in orders of their own. */
static struct ifreq find_interface(long fd, int number)
{
	struct ifreq interface = { .ifr_name = "eth0" };

	for (char i = 0; i < INTERFACES; i++) {
		interface.ifr_name[3] = (char)('0' + i);
		if (CALL(__NR_ioctl, fd, SIOCGIFHWADDR, &interface) == 0 &&
		    interface.ifr_hwaddr.sa_data[5] == number)
			return interface;
	}
	die("no such interface", number);
}

static void configure(long fd, struct ifreq interface, unsigned long request, struct sockaddr_in address)
{
	__builtin_memcpy(&interface.ifr_addr, &address, sizeof address);
	check("SIOCSIFADDR", CALL(__NR_ioctl, fd, request, &interface));
}

static void bring_up(int number, const char *own)
{
	long fd = CALL(__NR_socket, AF_INET, SOCK_DGRAM, 0);

	check("socket", fd);

	struct ifreq interface = find_interface(fd, number);

	configure(fd, interface, SIOCSIFADDR, socket_address(own, 0));
	configure(fd, interface, SIOCSIFNETMASK, socket_address("255.255.255.0", 0));
	interface.ifr_flags = IFF_UP;
	check("SIOCSIFFLAGS", CALL(__NR_ioctl, fd, SIOCSIFFLAGS, &interface));
	CALL(__NR_close, fd);
}

static long connection;

/* `mode`: what the peer does; see net-peer.c. */
static void connect_peer(const char *peer, char mode)
{
	struct sockaddr_in address = socket_address(peer, PORT);
	int on = 1;

	connection = CALL(__NR_socket, AF_INET, SOCK_STREAM, 0);
	check("socket", connection);
	check("connect", CALL(__NR_connect, connection, &address, sizeof address));
	CALL(__NR_setsockopt, connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	check("write", CALL(__NR_write, connection, &mode, 1));
}

static uint64_t send_some(void)
{
	long n = CALL(__NR_write, connection, buffer, MESSAGE_BYTES);

	check("write", n);
	return (uint64_t)n;
}

static uint64_t receive_some(void)
{
	long n = CALL(__NR_read, connection, buffer, MESSAGE_BYTES);

	check("read", n);
	if (n == 0)
		die("the peer has gone", 0);
	return (uint64_t)n;
}

static uint64_t round_trip(void)
{
	check("write", CALL(__NR_write, connection, buffer, 1));
	if (CALL(__NR_read, connection, buffer, 1) != 1)
		die("the peer has gone", 0);
	return 1;
}

static void report_of(const char *name, const char *metric, uint64_t value)
{
	print(name);
	report(metric, value);
}

static void load_network(int number, const char *name, const char *own, const char *peer)
{
	bring_up(number, own);
	connect_peer(peer, 'r');
	report_of(name, "_round_trips_first_second_per_s", cold_rate(round_trip));
	CALL(__NR_close, connection);
	connect_peer(peer, 't');
	report_of(name, "_guest_to_host_kib_s", rate(send_some) / 1024);
	CALL(__NR_close, connection);
	connect_peer(peer, 's');
	report_of(name, "_host_to_guest_kib_s", rate(receive_some) / 1024);
	CALL(__NR_close, connection);
	connect_peer(peer, 'r');
	report_of(name, "_round_trips_per_s", rate(round_trip));
	CALL(__NR_close, connection);
}

static void restart(void)
{
	/* What has been printed leaves the serial port first, also where it goes there through another process. */
	CALL(__NR_ioctl, 1, TCSBRK, 1);
	sleep_ms(SETTLE_MS / 4);
	CALL(__NR_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, 0);
}

int main(int argc, char **argv)
{
	at_end = restart;
	if (argc < 2 || (argc - 2) % 3 != 0)
		die("usage: device-load DISK [NAME ADDRESS PEER]...", 0);
	buffer = allocate(SEQUENTIAL_BYTES);
	for (unsigned long i = 0; i < SEQUENTIAL_BYTES; i++)
		buffer[i] = (char)i;
	sleep_ms(SETTLE_MS);
	if (!is_equal(argv[1], "-"))
		load_disk(argv[1]);
	for (int number = 1, at = 2; at < argc; number++, at += 3)
		load_network(number, argv[at], argv[at + 1], argv[at + 2]);
	return 0;
}
