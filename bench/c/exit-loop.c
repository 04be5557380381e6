/* The cost of one exit in C: a guest that writes one port for ever, in user-mode code, so that
 * it is the same on hardware and software KVM. Prints nanoseconds an exit, one line a round.
 *   exit-loop ROUNDS EXITS
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

int main(void)
{
	long exits;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = ioctl(kvm, KVM_CREATE_VM, 0);
	size_t size = 2 << 20;
	uint8_t *ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region slot = { .memory_size = size, .userspace_addr = (uint64_t)ram };

	*(uint64_t *)(ram + 0x1000) = 0x2007;
	*(uint64_t *)(ram + 0x2000) = 0x3007;
	*(uint64_t *)(ram + 0x3000) = 0x87;
	memcpy(ram + 0x10000, "\xee\xeb\xfd", 3); /* out dx, al; jmp back */
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	struct kvm_run *run =
		mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} cpuid = { .head.nent = 256 };

	ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	ioctl(vcpu, KVM_SET_CPUID2, &cpuid);
	struct kvm_sregs sregs;

	ioctl(vcpu, KVM_GET_SREGS, &sregs);
	struct kvm_segment code = { .limit = 0xffffffff, .selector = 0x33, .type = 11, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1 };
	struct kvm_segment data = { .limit = 0xffffffff, .selector = 0x2b, .type = 3, .present = 1, .dpl = 3, .s = 1, .db = 1, .g = 1 };

	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr3 = 0x1000;
	sregs.cr4 = 0x20;
	sregs.cr0 = 0x80010011;
	sregs.efer = 0x500;
	ioctl(vcpu, KVM_SET_SREGS, &sregs);
	struct kvm_regs regs = { .rip = 0x10000, .rsp = 0x20000, .rdx = 0x300, .rflags = 0x3002 };

	ioctl(vcpu, KVM_SET_REGS, &regs);
	unsigned long sum = 0;

	while (scanf("%ld", &exits) == 1) {
		double started = now_ns();

		for (long i = 0; i < exits; i++) {
			if (ioctl(vcpu, KVM_RUN, 0) < 0 || run->exit_reason != KVM_EXIT_IO)
				return 1;
			sum += *((uint8_t *)run + run->io.data_offset);
		}
		printf("%.1f\n", (now_ns() - started) / (double)exits);
		fflush(stdout);
	}
	return sum == 1;
}
