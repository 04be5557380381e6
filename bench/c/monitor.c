/* The least monitor that boots our kernel: what the same boot costs without JavaScript.
 *   monitor VMLINUX INITRD CMDLINE [MIB]
 * Prints one JSON line: milliseconds from process start to the first KVM_RUN and from there to
 * init's milestone, and the exits. Serves a serial port that is always ready, and the boot timer.
 */
#include <elf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PML4 0x9000UL
#define ZERO_PAGE 0x7000UL
#define CMDLINE 0x20000UL
#define GDT 0x500UL
#define MP_TABLE 0x9e000UL
#define BOOT_TIMER 0xc0000000UL

static uint8_t *ram;
static uint64_t ram_size;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void put(uint64_t gpa, uint64_t value, int size)
{
	memcpy(ram + gpa, &value, (size_t)size);
}

static uint64_t load_elf(const char *path)
{
	int fd = open(path, O_RDONLY);
	Elf64_Ehdr header;
	Elf64_Phdr segment;

	if (fd < 0 || pread(fd, &header, sizeof(header), 0) != sizeof(header))
		fail(path);
	for (int i = 0; i < header.e_phnum; i++) {
		pread(fd, &segment, sizeof(segment), (off_t)(header.e_phoff + (uint64_t)i * sizeof(segment)));
		if (segment.p_type != PT_LOAD)
			continue;
		if (pread(fd, ram + segment.p_paddr, segment.p_filesz, (off_t)segment.p_offset) != (ssize_t)segment.p_filesz)
			fail("segment");
	}
	close(fd);
	return header.e_entry;
}

static uint64_t load_initrd(const char *path, uint64_t *size)
{
	int fd = open(path, O_RDONLY);
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat) < 0)
		fail(path);
	uint64_t at = (ram_size - (uint64_t)stat.st_size) & ~0xfffUL;

	if (pread(fd, ram + at, (size_t)stat.st_size, 0) != stat.st_size)
		fail("initrd");
	close(fd);
	*size = (uint64_t)stat.st_size;
	return at;
}

static void e820(int index, uint64_t start, uint64_t size, uint32_t type)
{
	uint64_t at = ZERO_PAGE + 0x2d0 + 20UL * (uint64_t)index;

	put(at, start, 8);
	put(at + 8, size, 8);
	put(at + 16, type, 4);
	ram[ZERO_PAGE + 0x1e8] = (uint8_t)(index + 1);
}

static void checksum(uint64_t at, int length, int place)
{
	uint8_t sum = 0;

	for (int i = 0; i < length; i++)
		sum = (uint8_t)(sum + ram[at + (uint64_t)i]);
	ram[at + (uint64_t)place] = (uint8_t)-sum;
}

/* One processor, one ISA bus, one I/O APIC and its ISA lines. */
static void mp_table(void)
{
	uint64_t at = MP_TABLE + 44;

	memcpy(ram + 0x10, "_MP_", 4);
	put(0x14, MP_TABLE, 4);
	ram[0x18] = 1;
	ram[0x19] = 4;
	checksum(0x10, 16, 10);
	ram[at] = 0, ram[at + 2] = 0x14, ram[at + 3] = 3, at += 20;
	ram[at] = 1, memcpy(ram + at + 2, "ISA   ", 6), at += 8;
	ram[at] = 2, ram[at + 1] = 1, ram[at + 2] = 0x11, ram[at + 3] = 1, put(at + 4, 0xfec00000, 4), at += 8;
	for (int irq = 0; irq < 16; irq++, at += 8)
		ram[at] = 3, ram[at + 5] = (uint8_t)irq, ram[at + 6] = 1, ram[at + 7] = (uint8_t)(irq == 0 ? 2 : irq);
	memcpy(ram + MP_TABLE, "PCMP", 4);
	put(MP_TABLE + 4, at - MP_TABLE, 2);
	ram[MP_TABLE + 6] = 4;
	put(MP_TABLE + 34, 19, 2);
	put(MP_TABLE + 36, 0xfee00000, 4);
	checksum(MP_TABLE, (int)(at - MP_TABLE), 7);
}

int main(int argc, char **argv)
{
	double started = now_ms();

	if (argc < 4) {
		fprintf(stderr, "usage: monitor VMLINUX INITRD CMDLINE [MIB]\n");
		return 64;
	}
	ram_size = (argc > 4 ? strtoul(argv[4], NULL, 10) : 128) << 20;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		fail("/dev/kvm");
	ram = mmap(NULL, ram_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t entry = load_elf(argv[1]), initrd_size;
	uint64_t initrd = load_initrd(argv[2], &initrd_size);

	strcpy((char *)ram + CMDLINE, argv[3]);
	put(ZERO_PAGE + 0x1fe, 0xaa55, 2);
	put(ZERO_PAGE + 0x202, 0x53726448, 4);
	put(ZERO_PAGE + 0x206, 0x20c, 2);
	ram[ZERO_PAGE + 0x210] = 0xff;
	ram[ZERO_PAGE + 0x211] = 1;
	put(ZERO_PAGE + 0x218, initrd, 4);
	put(ZERO_PAGE + 0x21c, initrd_size, 4);
	put(ZERO_PAGE + 0x228, CMDLINE, 4);
	e820(0, 0, MP_TABLE, 1);
	e820(1, MP_TABLE, 0x100000 - MP_TABLE, 2);
	e820(2, 0x100000, ram_size - 0x100000, 1);
	mp_table();
	put(PML4, (PML4 + 0x1000) | 3, 8);
	for (uint64_t i = 0; i < 4; i++)
		put(PML4 + 0x1000 + 8 * i, (PML4 + 0x2000 + 0x1000 * i) | 3, 8);
	for (uint64_t i = 0; i < 2048; i++)
		put(PML4 + 0x2000 + 8 * i, (i << 21) | 0x83, 8);
	put(GDT + 0x10, 0x00af9b000000ffff, 8);
	put(GDT + 0x18, 0x00cf93000000ffff, 8);

	int vm = ioctl(kvm, KVM_CREATE_VM, 0);

	if (vm < 0)
		fail("KVM_CREATE_VM");
	struct kvm_userspace_memory_region slot = { .memory_size = ram_size, .userspace_addr = (uint64_t)ram };

	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL);
	ioctl(vm, KVM_CREATE_IRQCHIP, 0);
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };

	ioctl(vm, KVM_CREATE_PIT2, &pit);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	size_t length = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };

	ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	/* Without the hypervisor bit Linux looks for no kvm-clock, and for a TSC deadline it needs its bit. */
	for (uint32_t i = 0; i < cpuid.head.nent; i++)
		if (cpuid.entries[i].function == 1)
			cpuid.entries[i].ecx |= 1U << 31 | 1U << 24;
	ioctl(vcpu, KVM_SET_CPUID2, &cpuid);
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = { .head.nmsrs = 1, .entry = { .index = 0x2ff, .data = 0x806 } };

	ioctl(vcpu, KVM_SET_MSRS, &msrs);
	struct kvm_sregs sregs;

	ioctl(vcpu, KVM_GET_SREGS, &sregs);
	struct kvm_segment code = { .limit = 0xffffffff, .selector = 0x10, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = 0xffffffff, .selector = 0x18, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1 };

	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.gdt.base = GDT;
	sregs.gdt.limit = 0x1f;
	sregs.cr3 = PML4;
	sregs.cr4 = 0x20;
	sregs.cr0 = 0x80000011;
	sregs.efer = 0x500;
	ioctl(vcpu, KVM_SET_SREGS, &sregs);
	struct kvm_regs regs = { .rip = entry, .rsi = ZERO_PAGE, .rflags = 2 };

	ioctl(vcpu, KVM_SET_REGS, &regs);

	double first_run = now_ms(), init = 0;
	unsigned long exits = 0;
	int done = 0;

	while (!done) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0)
			fail("KVM_RUN");
		exits++;
		if (run->exit_reason == KVM_EXIT_IO) {
			uint8_t *at = (uint8_t *)run + run->io.data_offset;
			uint16_t port = run->io.port;

			if (run->io.direction == KVM_EXIT_IO_IN)
				memset(at, port == 0x3fd ? 0x60 : port == 0x3fa ? 1 : port == 0x64 ? 0 : port >= 0x3f8 && port < 0x400 ? 0 : 0xff,
				       (size_t)run->io.size * run->io.count);
			else if (port == 0x64 && *at == 0xfe)
				done = 1;
		} else if (run->exit_reason == KVM_EXIT_MMIO) {
			uint64_t offset = run->mmio.phys_addr - BOOT_TIMER;

			if (!run->mmio.is_write) {
				uint32_t magic = 0x544c4d56;

				memcpy(run->mmio.data, offset == 12 ? (void *)&magic : (void *)"\377\377\377\377", 4);
			} else if (offset == 0 && run->mmio.data[0] == 123) {
				init = now_ms();
			} else if (offset == 8) {
				done = 1;
			}
		} else {
			fprintf(stderr, "exit reason %u\n", run->exit_reason);
			return 1;
		}
	}
	printf("{\"process_to_first_run\": %.3f, \"first_run_to_init\": %.3f, \"init_to_exit\": %.3f, \"exits\": %lu}\n",
	       first_run - started, init - first_run, now_ms() - init, exits);
	return 0;
}
