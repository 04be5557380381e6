/* What makes a lab's host this one: the machine may have been restored from a state that many labs share, so
 * it is given the time, randomness of its own, and the disks of this run. */
#include <linux/random.h>
#include <time.h>

#define INPUT_DISK "/dev/vdb"
#define INPUT_FOLDER "/input"
#define SEED_BYTES 64
#define DISKS_TRIES 3000
#define DISKS_WAIT_US 5000

struct begin {
	int64_t seconds;
	uint32_t nanoseconds;
	/* Disks behind the base and the input disk that are to be there. */
	uint32_t disks;
	uint8_t seed[SEED_BYTES];
} __attribute__((packed));

/* Two labs from one state would have the same random numbers, and so would programs in them. */
static void reseed(const uint8_t *seed)
{
	struct {
		struct rand_pool_info info;
		uint8_t bytes[SEED_BYTES];
	} pool = { .info = { .entropy_count = 8 * SEED_BYTES, .buf_size = SEED_BYTES } };
	int fd = open("/dev/random", O_WRONLY | O_CLOEXEC);

	memcpy(pool.info.buf, seed, SEED_BYTES);
	if (fd < 0 || ioctl(fd, RNDADDENTROPY, &pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		power_off("no fresh randomness");
	close(fd);
}

/* Those that were plugged in come one after the other, in the order of their names. */
static void wait_for_disks(uint32_t count)
{
	char path[] = "/dev/vdb";

	path[sizeof(path) - 2] = (char)('b' + count);
	for (int tries = 0; count > 0 && access(path, F_OK) < 0; tries++) {
		if (tries == DISKS_TRIES)
			power_off("a disk has not come");
		usleep(DISKS_WAIT_US);
	}
}

static void mount_input(void)
{
	if (mount(INPUT_DISK, INPUT_FOLDER, "ext4", MS_RDONLY, NULL) < 0)
		fprintf(stderr, "lab: mount " INPUT_FOLDER ": %s\n", strerror(errno));
}

static void begin(const char *payload, size_t length)
{
	struct begin begin;

	if (length != sizeof(begin))
		power_off("the host speaks another language");
	memcpy(&begin, payload, sizeof(begin));
	struct timespec now = { .tv_sec = begin.seconds, .tv_nsec = begin.nanoseconds };

	clock_settime(CLOCK_REALTIME, &now);
	reseed(begin.seed);
	wait_for_disks(begin.disks);
	mount_input();
	send_frame('R', NULL, 0);
}
