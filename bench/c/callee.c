/* What the bindings call: as little as possible, so that the call itself is the cost. */
#include <stddef.h>
#include <stdint.h>

/* The shape of struct kvm_userspace_memory_region. */
struct region {
	uint32_t slot, flags;
	uint64_t gpa, size, hva;
};

int add(int a, int b)
{
	return a + b;
}

uint32_t ends(const uint8_t *bytes, size_t length)
{
	return (uint32_t)bytes[0] + bytes[length - 1];
}

uint32_t region_pages(const struct region *region)
{
	return (uint32_t)(region->size >> 12) + region->slot;
}
