# The boot sector of the lab's Intel disk: loads an uncompressed kernel and starts it in 64-bit
# mode, as Documentation/arch/x86/boot.rst ("64-bit Boot Protocol") wants it. A boot loader from
# a distribution would load a bzImage, whose unpacking alone is a billion instructions.
# Assembled with --defsym: PARAMS_LBA, KERNEL_LBA, INITRD_LBA and the same with _SECTORS.

.set BOOT_PARAMS, 0x100000	# two pages: struct boot_params and the command line
.set KERNEL, 0x1000000		# where vmlinux is linked to
.set INITRD, 0x8000000
.set E820_ENTRIES, 0x1e8	# offsets in struct boot_params
.set E820_TABLE, 0x2d0
.set E820_ENTRY_SIZE, 20
.set E820_BUFFER, 0x8000
.set PML4, 0x1000
.set PDPT, 0x2000
.set MSR_EFER, 0xc0000080

.code16
.globl start
start:
	cli
	cld
	xor %ax, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov $0x7c00, %sp

	# INT 15h, AX=E820h: the map of memory, until EBX is 0 again.
	xor %ebx, %ebx
	mov $E820_BUFFER, %di
1:	mov $0xe820, %eax
	mov $E820_ENTRY_SIZE, %ecx
	mov $0x534d4150, %edx	# "SMAP"
	int $0x15
	jc 2f
	add $E820_ENTRY_SIZE, %di
	test %ebx, %ebx
	jnz 1b
2:	mov %di, %bp		# end of the map

	in $0x92, %al		# address line 20
	or $2, %al
	out %al, $0x92

	# The first 4 GiB, identity-mapped with pages of 1 GiB.
	mov $PML4, %di
	xor %eax, %eax
	mov $0x800, %cx
	rep stosl
	movl $PDPT + 3, PML4
	mov $PDPT, %di
	mov $0x83, %eax
	mov $4, %cx
3:	mov %eax, (%di)
	add $8, %di
	add $0x40000000, %eax
	loop 3b

	lgdtl gdtr
	mov %cr4, %eax
	or $0x20, %eax		# PAE
	mov %eax, %cr4
	mov $PML4, %eax
	mov %eax, %cr3
	mov $MSR_EFER, %ecx
	rdmsr
	or $0x100, %eax		# LME
	wrmsr
	mov %cr0, %eax
	and $0x9fffffff, %eax	# not CD, NW
	or $0x80000001, %eax	# PG, PE
	mov %eax, %cr0
	ljmp $0x10, $long

.code64
long:
	mov $0x18, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	movzwl %bp, %r9d
	mov $table, %ebx

	# Each part of the table by ATA's READ SECTORS (20h), at most 256 sectors a command.
part:	mov (%rbx), %esi	# LBA
	mov 4(%rbx), %ebp	# sectors that are left
	mov 8(%rbx), %edi	# address
	test %ebp, %ebp
	jz loaded
command:
	mov $256, %ecx		# which the register calls 0
	cmp %ecx, %ebp
	cmovb %ebp, %ecx
	mov %ecx, %r8d
	mov $0x1f2, %edx
	mov %cl, %al
	out %al, %dx
	inc %edx
	mov %esi, %eax
	out %al, %dx
	inc %edx
	shr $8, %eax
	out %al, %dx
	inc %edx
	shr $8, %eax
	out %al, %dx
	inc %edx
	shr $8, %eax
	or $0xe0, %al		# LBA, master
	out %al, %dx
	inc %edx
	mov $0x20, %al
	out %al, %dx
sector:	in %dx, %al
	and $0x88, %al		# BSY, DRQ
	cmp $8, %al
	jne sector
	mov $128, %ecx
	mov $0x1f0, %edx
	rep insl
	mov $0x1f7, %edx
	inc %esi
	dec %ebp
	dec %r8d
	jnz sector
	test %ebp, %ebp
	jnz command
	add $12, %ebx
	jmp part

loaded:	mov %r9d, %ecx
	mov $E820_BUFFER, %esi
	sub %esi, %ecx
	mov %ecx, %eax
	mov $BOOT_PARAMS + E820_TABLE, %edi
	rep movsb
	xor %edx, %edx
	mov $E820_ENTRY_SIZE, %ecx
	div %ecx
	mov %al, BOOT_PARAMS + E820_ENTRIES
	mov $BOOT_PARAMS, %esi
	mov $KERNEL, %eax
	jmp *%rax

.align 4
table:	.long PARAMS_LBA, PARAMS_SECTORS, BOOT_PARAMS
	.long KERNEL_LBA, KERNEL_SECTORS, KERNEL
	.long INITRD_LBA, INITRD_SECTORS, INITRD
	.long 0, 0
.align 8
gdt:	.quad 0, 0
	.quad 0x00af9b000000ffff	# 10h: code, 64 bits
	.quad 0x00cf93000000ffff	# 18h: data
gdtr:	.word 31
	.long gdt

.org 510
	.word 0xaa55
