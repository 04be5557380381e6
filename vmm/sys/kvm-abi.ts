// The KVM user-space ABI on x86-64, in the order of <linux/kvm.h> and <asm/kvm.h>:
// constants, structure sizes (SIZEOF_*), field offsets (one object a structure), requests.
// test/unit/kvm-abi.test.ts compares every value with a C compiler's.
import { IO, IOR, IOW, IOWR } from "./ioctl.js";

export const KVM_API_VERSION = 12;

// -- Structures (linux/kvm.h) --------------------------------------------------

export const SIZEOF_KVM_USERSPACE_MEMORY_REGION = 32;
export const kvm_userspace_memory_region = {
  slot: 0,
  flags: 4,
  guest_phys_addr: 8,
  memory_size: 16,
  userspace_addr: 24,
} as const;
export const KVM_MEM_LOG_DIRTY_PAGES = 1 << 0;
export const KVM_MEM_READONLY = 1 << 1;

export const SIZEOF_KVM_DIRTY_LOG = 16;
export const kvm_dirty_log = { slot: 0, dirty_bitmap: 8 } as const;

export const SIZEOF_KVM_IRQCHIP = 520;
export const kvm_irqchip = { chip_id: 0, chip: 8 } as const;
export const KVM_IRQCHIP_PIC_MASTER = 0;
export const KVM_IRQCHIP_PIC_SLAVE = 1;
export const KVM_IRQCHIP_IOAPIC = 2;

export const SIZEOF_KVM_IRQ_LEVEL = 8;
export const kvm_irq_level = { irq: 0, level: 4 } as const;

export const SIZEOF_KVM_PIT_CONFIG = 64;
export const kvm_pit_config = { flags: 0 } as const;
export const KVM_PIT_SPEAKER_DUMMY = 1;

export const KVM_EXIT_UNKNOWN = 0;
export const KVM_EXIT_EXCEPTION = 1;
export const KVM_EXIT_IO = 2;
export const KVM_EXIT_HYPERCALL = 3;
export const KVM_EXIT_DEBUG = 4;
export const KVM_EXIT_HLT = 5;
export const KVM_EXIT_MMIO = 6;
export const KVM_EXIT_IRQ_WINDOW_OPEN = 7;
export const KVM_EXIT_SHUTDOWN = 8;
export const KVM_EXIT_FAIL_ENTRY = 9;
export const KVM_EXIT_INTR = 10;
export const KVM_EXIT_SET_TPR = 11;
export const KVM_EXIT_TPR_ACCESS = 12;
export const KVM_EXIT_NMI = 16;
export const KVM_EXIT_INTERNAL_ERROR = 17;
export const KVM_EXIT_SYSTEM_EVENT = 24;
export const KVM_EXIT_IOAPIC_EOI = 26;
export const KVM_EXIT_X86_RDMSR = 29;
export const KVM_EXIT_X86_WRMSR = 30;

export const KVM_INTERNAL_ERROR_EMULATION = 1;
export const KVM_INTERNAL_ERROR_SIMUL_EX = 2;
export const KVM_INTERNAL_ERROR_DELIVERY_EV = 3;
export const KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4;
export const KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES = 1 << 0;

export const KVM_EXIT_IO_IN = 0;
export const KVM_EXIT_IO_OUT = 1;

export const KVM_SYSTEM_EVENT_SHUTDOWN = 1;
export const KVM_SYSTEM_EVENT_RESET = 2;
export const KVM_SYSTEM_EVENT_CRASH = 3;

/** struct kvm_run; members of the exit union carry the union's name as prefix. */
export const SIZEOF_KVM_RUN = 2352;
export const kvm_run = {
  request_interrupt_window: 0,
  immediate_exit: 1,
  exit_reason: 8,
  ready_for_interrupt_injection: 12,
  if_flag: 13,
  flags: 14,
  cr8: 16,
  apic_base: 24,
  hw: 32,
  fail_entry: 32,
  fail_entry_cpu: 40,
  ex_exception: 32,
  ex_error_code: 36,
  io: 32,
  io_size: 33,
  io_port: 34,
  io_count: 36,
  io_data_offset: 40,
  debug: 32,
  mmio: 32,
  mmio_data: 40,
  mmio_len: 48,
  mmio_is_write: 52,
  hypercall: 32,
  internal: 32,
  internal_ndata: 36,
  internal_data: 40,
  emulation_failure_flags: 40,
  emulation_failure_insn_size: 48,
  emulation_failure_insn_bytes: 49,
  system_event: 32,
  system_event_ndata: 36,
  system_event_data: 40,
  msr_error: 32,
  msr_reason: 40,
  msr_index: 44,
  msr_data: 48,
  kvm_valid_regs: 288,
  kvm_dirty_regs: 296,
  s: 304,
} as const;

/** kvm_run.s: registers that KVM stores at every exit, if kvm_valid_regs asks for them. */
export const SIZEOF_KVM_SYNC_REGS = 520;
export const kvm_sync_regs = { regs: 0, sregs: 144, events: 456 } as const;
export const KVM_SYNC_X86_REGS = 1 << 0;
export const KVM_SYNC_X86_SREGS = 1 << 1;

export const SIZEOF_KVM_COALESCED_MMIO_ZONE = 16;
export const kvm_coalesced_mmio_zone = { addr: 0, size: 8, pio: 12 } as const;
export const SIZEOF_KVM_COALESCED_MMIO = 24;
export const kvm_coalesced_mmio = { phys_addr: 0, len: 8, pio: 12, data: 16 } as const;
export const SIZEOF_KVM_COALESCED_MMIO_RING = 8;
export const kvm_coalesced_mmio_ring = { first: 0, last: 4, coalesced_mmio: 8 } as const;

export const SIZEOF_KVM_TRANSLATION = 24;
export const kvm_translation = {
  linear_address: 0,
  physical_address: 8,
  valid: 16,
  writeable: 17,
  usermode: 18,
} as const;

export const SIZEOF_KVM_MP_STATE = 4;
export const kvm_mp_state = { mp_state: 0 } as const;
export const KVM_MP_STATE_RUNNABLE = 0;
export const KVM_MP_STATE_UNINITIALIZED = 1;
export const KVM_MP_STATE_INIT_RECEIVED = 2;
export const KVM_MP_STATE_HALTED = 3;
export const KVM_MP_STATE_SIPI_RECEIVED = 4;

export const SIZEOF_KVM_GUEST_DEBUG = 72;
export const kvm_guest_debug = { control: 0, arch_debugreg: 8 } as const;
export const KVM_GUESTDBG_ENABLE = 0x00000001;
export const KVM_GUESTDBG_SINGLESTEP = 0x00000002;
export const KVM_GUESTDBG_USE_SW_BP = 0x00010000;
export const KVM_GUESTDBG_USE_HW_BP = 0x00020000;

export const SIZEOF_KVM_IOEVENTFD = 64;
export const kvm_ioeventfd = { datamatch: 0, addr: 8, len: 16, fd: 20, flags: 24 } as const;
export const KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0;
export const KVM_IOEVENTFD_FLAG_PIO = 1 << 1;
export const KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2;

export const SIZEOF_KVM_ENABLE_CAP = 104;
export const kvm_enable_cap = { cap: 0, flags: 4, args: 8 } as const;

export const KVM_CAP_IRQCHIP = 0;
export const KVM_CAP_HLT = 1;
export const KVM_CAP_USER_MEMORY = 3;
export const KVM_CAP_SET_TSS_ADDR = 4;
export const KVM_CAP_EXT_CPUID = 7;
export const KVM_CAP_NR_VCPUS = 9;
export const KVM_CAP_NR_MEMSLOTS = 10;
export const KVM_CAP_MP_STATE = 14;
export const KVM_CAP_COALESCED_MMIO = 15;
export const KVM_CAP_SYNC_MMU = 16;
export const KVM_CAP_SET_GUEST_DEBUG = 23;
export const KVM_CAP_IRQ_ROUTING = 25;
export const KVM_CAP_IRQFD = 32;
export const KVM_CAP_PIT2 = 33;
export const KVM_CAP_IOEVENTFD = 36;
export const KVM_CAP_SET_IDENTITY_MAP_ADDR = 37;
export const KVM_CAP_ADJUST_CLOCK = 39;
export const KVM_CAP_INTERNAL_ERROR_DATA = 40;
export const KVM_CAP_VCPU_EVENTS = 41;
export const KVM_CAP_DEBUGREGS = 50;
export const KVM_CAP_XSAVE = 55;
export const KVM_CAP_XCRS = 56;
export const KVM_CAP_TSC_CONTROL = 60;
export const KVM_CAP_GET_TSC_KHZ = 61;
export const KVM_CAP_MAX_VCPUS = 66;
export const KVM_CAP_TSC_DEADLINE_TIMER = 72;
export const KVM_CAP_SYNC_REGS = 74;
export const KVM_CAP_SIGNAL_MSI = 77;
export const KVM_CAP_READONLY_MEM = 81;
export const KVM_CAP_MAX_VCPU_ID = 128;
export const KVM_CAP_X2APIC_API = 129;
export const KVM_CAP_IMMEDIATE_EXIT = 136;
export const KVM_CAP_GET_MSR_FEATURES = 153;
export const KVM_CAP_COALESCED_PIO = 162;
export const KVM_CAP_X86_USER_SPACE_MSR = 188;
export const KVM_CAP_X86_MSR_FILTER = 189;
export const KVM_CAP_EXIT_ON_EMULATION_FAILURE = 204;
export const KVM_CAP_XSAVE2 = 208;

export const KVM_MSR_EXIT_REASON_FILTER = 1 << 2;

export const KVM_X2APIC_API_USE_32BIT_IDS = 1 << 0;
export const KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK = 1 << 1;

export const SIZEOF_KVM_IRQFD = 32;
export const kvm_irqfd = { fd: 0, gsi: 4, flags: 8, resamplefd: 12 } as const;
export const KVM_IRQFD_FLAG_DEASSIGN = 1 << 0;
export const KVM_IRQFD_FLAG_RESAMPLE = 1 << 1;

/** Of KVM_SET_GSI_ROUTING, before its entries. */
export const SIZEOF_KVM_IRQ_ROUTING = 8;
export const kvm_irq_routing = { nr: 0, flags: 4, entries: 8 } as const;
export const SIZEOF_KVM_IRQ_ROUTING_ENTRY = 48;
export const kvm_irq_routing_entry = { gsi: 0, type: 4, flags: 8, u: 16 } as const;
export const KVM_IRQ_ROUTING_IRQCHIP = 1;
export const KVM_IRQ_ROUTING_MSI = 2;
/** In `u` of an entry. */
export const kvm_irq_routing_irqchip = { irqchip: 0, pin: 4 } as const;
export const kvm_irq_routing_msi = { address_lo: 0, address_hi: 4, data: 8 } as const;

export const SIZEOF_KVM_MSI = 32;
export const kvm_msi = { address_lo: 0, address_hi: 4, data: 8, flags: 12 } as const;

// -- Structures (asm/kvm.h) ----------------------------------------------------

export const SIZEOF_KVM_REGS = 144;
export const kvm_regs = {
  rax: 0,
  rbx: 8,
  rcx: 16,
  rdx: 24,
  rsi: 32,
  rdi: 40,
  rsp: 48,
  rbp: 56,
  r8: 64,
  r9: 72,
  r10: 80,
  r11: 88,
  r12: 96,
  r13: 104,
  r14: 112,
  r15: 120,
  rip: 128,
  rflags: 136,
} as const;

export const SIZEOF_KVM_LAPIC_STATE = 1024;

export const SIZEOF_KVM_SEGMENT = 24;
export const kvm_segment = {
  base: 0,
  limit: 8,
  selector: 12,
  type: 14,
  present: 15,
  dpl: 16,
  db: 17,
  s: 18,
  l: 19,
  g: 20,
  avl: 21,
  unusable: 22,
} as const;

export const SIZEOF_KVM_DTABLE = 16;
export const kvm_dtable = { base: 0, limit: 8 } as const;

export const SIZEOF_KVM_SREGS = 312;
export const kvm_sregs = {
  cs: 0,
  ds: 24,
  es: 48,
  fs: 72,
  gs: 96,
  ss: 120,
  tr: 144,
  ldt: 168,
  gdt: 192,
  idt: 208,
  cr0: 224,
  cr2: 232,
  cr3: 240,
  cr4: 248,
  cr8: 256,
  efer: 264,
  apic_base: 272,
  interrupt_bitmap: 280,
} as const;

export const SIZEOF_KVM_FPU = 416;
export const kvm_fpu = { fpr: 0, fcw: 128, fsw: 130, ftwx: 132, mxcsr: 408 } as const;

export const SIZEOF_KVM_MSRS = 8;
export const kvm_msrs = { nmsrs: 0, entries: 8 } as const;
export const SIZEOF_KVM_MSR_ENTRY = 16;
export const kvm_msr_entry = { index: 0, data: 8 } as const;
export const SIZEOF_KVM_MSR_LIST = 4;

export const SIZEOF_KVM_CPUID2 = 8;
export const kvm_cpuid2 = { nent: 0, entries: 8 } as const;
export const SIZEOF_KVM_CPUID_ENTRY2 = 40;
export const kvm_cpuid_entry2 = { function: 0, index: 4, flags: 8, eax: 12, ebx: 16, ecx: 20, edx: 24 } as const;
export const KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0;

export const SIZEOF_KVM_DEBUG_EXIT_ARCH = 32;
export const kvm_debug_exit_arch = { exception: 0, pc: 8, dr6: 16, dr7: 24 } as const;

export const SIZEOF_KVM_VCPU_EVENTS = 64;
export const kvm_vcpu_events = {
  exception_injected: 0,
  exception_nr: 1,
  exception_has_error_code: 2,
  exception_pending: 3,
  exception_error_code: 4,
  interrupt_injected: 8,
  interrupt_nr: 9,
  interrupt_soft: 10,
  interrupt_shadow: 11,
  nmi_injected: 12,
  nmi_pending: 13,
  nmi_masked: 14,
  sipi_vector: 16,
  flags: 20,
  smi_smm: 24,
  smi_pending: 25,
  smi_smm_inside_nmi: 26,
  smi_latched_init: 27,
  triple_fault_pending: 28,
  exception_has_payload: 55,
  exception_payload: 56,
} as const;
export const KVM_VCPUEVENT_VALID_NMI_PENDING = 0x00000001;
export const KVM_VCPUEVENT_VALID_SIPI_VECTOR = 0x00000002;
export const KVM_VCPUEVENT_VALID_SHADOW = 0x00000004;
export const KVM_VCPUEVENT_VALID_SMM = 0x00000008;
export const KVM_VCPUEVENT_VALID_PAYLOAD = 0x00000010;
export const KVM_VCPUEVENT_VALID_TRIPLE_FAULT = 0x00000020;

export const SIZEOF_KVM_DEBUGREGS = 128;
export const kvm_debugregs = { db: 0, dr6: 32, dr7: 40, flags: 48 } as const;

export const SIZEOF_KVM_XSAVE = 4096;
export const SIZEOF_KVM_XCRS = 392;
export const kvm_xcrs = { nr_xcrs: 0, flags: 4, xcrs: 8 } as const;
export const SIZEOF_KVM_XCR = 16;
export const kvm_xcr = { xcr: 0, value: 8 } as const;

export const SIZEOF_KVM_CLOCK_DATA = 48;
export const kvm_clock_data = { clock: 0, flags: 8, realtime: 16, host_tsc: 24 } as const;

export const SIZEOF_KVM_PIC_STATE = 16;
export const kvm_pic_state = {
  last_irr: 0,
  irr: 1,
  imr: 2,
  isr: 3,
  priority_add: 4,
  irq_base: 5,
  read_reg_select: 6,
  poll: 7,
  special_mask: 8,
  init_state: 9,
  auto_eoi: 10,
  rotate_on_auto_eoi: 11,
  special_fully_nested_mode: 12,
  init4: 13,
  elcr: 14,
  elcr_mask: 15,
} as const;

export const KVM_IOAPIC_NUM_PINS = 24;
export const SIZEOF_KVM_IOAPIC_STATE = 216;
export const kvm_ioapic_state = { base_address: 0, ioregsel: 8, id: 12, irr: 16, redirtbl: 24 } as const;

export const SIZEOF_KVM_PIT_CHANNEL_STATE = 24;
export const kvm_pit_channel_state = {
  count: 0,
  latched_count: 4,
  count_latched: 6,
  status_latched: 7,
  status: 8,
  read_state: 9,
  write_state: 10,
  write_latch: 11,
  rw_mode: 12,
  mode: 13,
  bcd: 14,
  gate: 15,
  count_load_time: 16,
} as const;
export const SIZEOF_KVM_PIT_STATE2 = 112;
export const kvm_pit_state2 = { channels: 0, flags: 72 } as const;

export const SIZEOF_KVM_MSR_FILTER_RANGE = 24;
export const kvm_msr_filter_range = { flags: 0, nmsrs: 4, base: 8, bitmap: 16 } as const;
export const KVM_MSR_FILTER_WRITE = 1 << 1;
export const SIZEOF_KVM_MSR_FILTER = 392;
export const kvm_msr_filter = { flags: 0, ranges: 8 } as const;

/** The ring of coalesced writes lies in this page of the vCPU mapping. */
export const KVM_COALESCED_MMIO_PAGE_OFFSET = 2;
/** The page of the vCPU mapping in which `io_data_offset` usually points. */
export const KVM_PIO_PAGE_OFFSET = 1;

// -- Requests ------------------------------------------------------------------

const KVMIO = 0xae;

// /dev/kvm
export const KVM_GET_API_VERSION = IO(KVMIO, 0x00);
export const KVM_CREATE_VM = IO(KVMIO, 0x01);
export const KVM_GET_MSR_INDEX_LIST = IOWR(KVMIO, 0x02, SIZEOF_KVM_MSR_LIST);
export const KVM_CHECK_EXTENSION = IO(KVMIO, 0x03);
export const KVM_GET_VCPU_MMAP_SIZE = IO(KVMIO, 0x04);
export const KVM_GET_SUPPORTED_CPUID = IOWR(KVMIO, 0x05, SIZEOF_KVM_CPUID2);

// VM
export const KVM_CREATE_VCPU = IO(KVMIO, 0x41);
export const KVM_SET_USER_MEMORY_REGION = IOW(KVMIO, 0x46, SIZEOF_KVM_USERSPACE_MEMORY_REGION);
export const KVM_SET_TSS_ADDR = IO(KVMIO, 0x47);
export const KVM_SET_IDENTITY_MAP_ADDR = IOW(KVMIO, 0x48, 8);
export const KVM_CREATE_IRQCHIP = IO(KVMIO, 0x60);
export const KVM_IRQ_LINE = IOW(KVMIO, 0x61, SIZEOF_KVM_IRQ_LEVEL);
export const KVM_REGISTER_COALESCED_MMIO = IOW(KVMIO, 0x67, SIZEOF_KVM_COALESCED_MMIO_ZONE);
export const KVM_UNREGISTER_COALESCED_MMIO = IOW(KVMIO, 0x68, SIZEOF_KVM_COALESCED_MMIO_ZONE);
export const KVM_SET_GSI_ROUTING = IOW(KVMIO, 0x6a, SIZEOF_KVM_IRQ_ROUTING);
export const KVM_IRQFD = IOW(KVMIO, 0x76, SIZEOF_KVM_IRQFD);
export const KVM_CREATE_PIT2 = IOW(KVMIO, 0x77, SIZEOF_KVM_PIT_CONFIG);
export const KVM_IOEVENTFD = IOW(KVMIO, 0x79, SIZEOF_KVM_IOEVENTFD);
export const KVM_SET_CLOCK = IOW(KVMIO, 0x7b, SIZEOF_KVM_CLOCK_DATA);
export const KVM_GET_CLOCK = IOR(KVMIO, 0x7c, SIZEOF_KVM_CLOCK_DATA);

export const KVM_X86_SET_MSR_FILTER = IOW(KVMIO, 0xc6, SIZEOF_KVM_MSR_FILTER);

export const KVM_GET_DIRTY_LOG = IOW(KVMIO, 0x42, SIZEOF_KVM_DIRTY_LOG);
export const KVM_GET_IRQCHIP = IOWR(KVMIO, 0x62, SIZEOF_KVM_IRQCHIP);
export const KVM_SET_IRQCHIP = IOR(KVMIO, 0x63, SIZEOF_KVM_IRQCHIP);
export const KVM_GET_PIT2 = IOR(KVMIO, 0x9f, SIZEOF_KVM_PIT_STATE2);
export const KVM_SET_PIT2 = IOW(KVMIO, 0xa0, SIZEOF_KVM_PIT_STATE2);

// vCPU
export const KVM_RUN = IO(KVMIO, 0x80);
export const KVM_GET_REGS = IOR(KVMIO, 0x81, SIZEOF_KVM_REGS);
export const KVM_SET_REGS = IOW(KVMIO, 0x82, SIZEOF_KVM_REGS);
export const KVM_GET_SREGS = IOR(KVMIO, 0x83, SIZEOF_KVM_SREGS);
export const KVM_SET_SREGS = IOW(KVMIO, 0x84, SIZEOF_KVM_SREGS);
export const KVM_TRANSLATE = IOWR(KVMIO, 0x85, SIZEOF_KVM_TRANSLATION);
export const KVM_GET_MSRS = IOWR(KVMIO, 0x88, SIZEOF_KVM_MSRS);
export const KVM_SET_MSRS = IOW(KVMIO, 0x89, SIZEOF_KVM_MSRS);
export const KVM_GET_FPU = IOR(KVMIO, 0x8c, SIZEOF_KVM_FPU);
export const KVM_SET_FPU = IOW(KVMIO, 0x8d, SIZEOF_KVM_FPU);
export const KVM_GET_LAPIC = IOR(KVMIO, 0x8e, SIZEOF_KVM_LAPIC_STATE);
export const KVM_SET_LAPIC = IOW(KVMIO, 0x8f, SIZEOF_KVM_LAPIC_STATE);
export const KVM_SET_CPUID2 = IOW(KVMIO, 0x90, SIZEOF_KVM_CPUID2);
export const KVM_GET_MP_STATE = IOR(KVMIO, 0x98, SIZEOF_KVM_MP_STATE);
export const KVM_SET_MP_STATE = IOW(KVMIO, 0x99, SIZEOF_KVM_MP_STATE);
export const KVM_NMI = IO(KVMIO, 0x9a);
export const KVM_SET_GUEST_DEBUG = IOW(KVMIO, 0x9b, SIZEOF_KVM_GUEST_DEBUG);
export const KVM_GET_VCPU_EVENTS = IOR(KVMIO, 0x9f, SIZEOF_KVM_VCPU_EVENTS);
export const KVM_SET_VCPU_EVENTS = IOW(KVMIO, 0xa0, SIZEOF_KVM_VCPU_EVENTS);
export const KVM_GET_DEBUGREGS = IOR(KVMIO, 0xa1, SIZEOF_KVM_DEBUGREGS);
export const KVM_SET_DEBUGREGS = IOW(KVMIO, 0xa2, SIZEOF_KVM_DEBUGREGS);
export const KVM_ENABLE_CAP = IOW(KVMIO, 0xa3, SIZEOF_KVM_ENABLE_CAP);
export const KVM_SIGNAL_MSI = IOW(KVMIO, 0xa5, SIZEOF_KVM_MSI);
export const KVM_GET_XSAVE = IOR(KVMIO, 0xa4, SIZEOF_KVM_XSAVE);
export const KVM_SET_XSAVE = IOW(KVMIO, 0xa5, SIZEOF_KVM_XSAVE);
export const KVM_GET_XCRS = IOR(KVMIO, 0xa6, SIZEOF_KVM_XCRS);
export const KVM_SET_XCRS = IOW(KVMIO, 0xa7, SIZEOF_KVM_XCRS);
export const KVM_SET_TSC_KHZ = IO(KVMIO, 0xa2);
export const KVM_GET_TSC_KHZ = IO(KVMIO, 0xa3);
export const KVM_KVMCLOCK_CTRL = IO(KVMIO, 0xad);
export const KVM_GET_XSAVE2 = IOR(KVMIO, 0xcf, SIZEOF_KVM_XSAVE);
