/* The files that a program needs before its first instruction: its dynamic loader and its shared libraries, found as the loader
 * finds them without a cache and without LD_LIBRARY_PATH. System V ABI, chapter 5; ld.so(8). */
#ifndef VMLET_LAUNCHER_ELF_H
#define VMLET_LAUNCHER_ELF_H

#include <elf.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "options.h"

#define MAX_FILES 128

/* Paths of this host, which are the same in the jail. */
struct files {
	const char *paths[MAX_FILES];
	int count;
};

static const char *const library_folders[] = {
	"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib", NULL,
};

struct elf {
	const char *path;
	const unsigned char *bytes;
	size_t size;
	const Elf64_Phdr *segments;
	int segment_count;
};

static void add_file(struct files *files, const char *path)
{
	for (int at = 0; at < files->count; at++)
		if (strcmp(files->paths[at], path) == 0)
			return;
	if (files->count == MAX_FILES)
		fail("%s: a program of more than %d files", path, MAX_FILES);
	files->paths[files->count++] = path;
}

/* False: not an ELF file of this machine. */
static bool open_elf(const char *path, struct elf *elf)
{
	struct stat stat;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &stat) < 0)
		fail("%s: %s", path, strerror(errno));
	elf->path = path;
	elf->size = (size_t)stat.st_size;
	elf->bytes = elf->size < sizeof(Elf64_Ehdr) ? MAP_FAILED : mmap(NULL, elf->size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (elf->bytes == MAP_FAILED)
		return false;
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)elf->bytes;

	if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64 ||
	    header->e_machine != EM_X86_64 || header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phoff > elf->size ||
	    header->e_phnum > (elf->size - header->e_phoff) / sizeof(Elf64_Phdr)) {
		munmap((void *)elf->bytes, elf->size);
		return false;
	}
	elf->segments = (const Elf64_Phdr *)(elf->bytes + header->e_phoff);
	elf->segment_count = header->e_phnum;
	return true;
}

/* A text in the file, or NULL. */
static const char *text_at(const struct elf *elf, Elf64_Off offset)
{
	if (offset >= elf->size || !memchr(elf->bytes + offset, 0, elf->size - offset))
		return NULL;
	return (const char *)elf->bytes + offset;
}

/* Where an address of the program lies in its file; the file's size if nowhere. */
static Elf64_Off offset_of(const struct elf *elf, Elf64_Addr address)
{
	for (int at = 0; at < elf->segment_count; at++) {
		const Elf64_Phdr *segment = &elf->segments[at];

		if (segment->p_type == PT_LOAD && address >= segment->p_vaddr && address - segment->p_vaddr < segment->p_filesz)
			return address - segment->p_vaddr + segment->p_offset;
	}
	return elf->size;
}

static const Elf64_Phdr *segment_of(const struct elf *elf, Elf64_Word type)
{
	for (int at = 0; at < elf->segment_count; at++)
		if (elf->segments[at].p_type == type && elf->segments[at].p_offset < elf->size &&
		    elf->segments[at].p_filesz <= elf->size - elf->segments[at].p_offset)
			return &elf->segments[at];
	return NULL;
}

/* The path of a library in one of the folders between colons, or NULL. */
static const char *find_below(const struct elf *elf, const char *folders, const char *name)
{
	const int origin = (int)(strrchr(elf->path, '/') - elf->path);

	while (folders && *folders) {
		int length = (int)strcspn(folders, ":");
		const char *after = strncmp(folders, "$ORIGIN", 7) == 0 ? folders + 7
				    : strncmp(folders, "${ORIGIN}", 9) == 0 ? folders + 9 : NULL;
		char *path = after ? text_of("%.*s%.*s/%s", origin, elf->path, length - (int)(after - folders), after, name)
				   : text_of("%.*s/%s", length, folders, name);

		if (path[0] == '/' && access(path, R_OK) == 0)
			return path;
		folders += length;
		folders += *folders == ':';
	}
	return NULL;
}

static const char *find_library(const struct elf *elf, const char *folders, const char *name)
{
	const char *path;

	if (strchr(name, '/'))
		return name;
	if ((path = find_below(elf, folders, name)))
		return path;
	for (const char *const *folder = library_folders; *folder; folder++)
		if (access(path = text_of("%s/%s", *folder, name), R_OK) == 0)
			return path;
	fail("%s needs the library %s, which is in no folder where loaders look by themselves", elf->path, name);
}

static void add_libraries(struct files *files, const struct elf *elf)
{
	const Elf64_Phdr *dynamic = segment_of(elf, PT_DYNAMIC);
	const Elf64_Dyn *entries = dynamic ? (const Elf64_Dyn *)(elf->bytes + dynamic->p_offset) : NULL;
	int count = dynamic ? (int)(dynamic->p_filesz / sizeof(*entries)) : 0;
	Elf64_Off strings = elf->size;
	const char *folders = NULL;

	for (int at = 0; at < count; at++)
		if (entries[at].d_tag == DT_STRTAB)
			strings = offset_of(elf, entries[at].d_un.d_ptr);
	for (int at = 0; at < count; at++)
		if (entries[at].d_tag == DT_RUNPATH || (entries[at].d_tag == DT_RPATH && !folders))
			folders = text_at(elf, strings + entries[at].d_un.d_val);
	for (int at = 0; at < count && entries[at].d_tag != DT_NULL; at++) {
		if (entries[at].d_tag != DT_NEEDED)
			continue;
		const char *name = text_at(elf, strings + entries[at].d_un.d_val);

		if (!name)
			fail("%s: not a program that can be loaded", elf->path);
		add_file(files, find_library(elf, folders, name));
	}
}

/* Also of its libraries. */
static void add_program(struct files *files, const char *path)
{
	add_file(files, path);
	for (int at = 0; at < files->count; at++) {
		struct elf elf;

		if (!open_elf(files->paths[at], &elf))
			fail("%s: not a program or library of this machine", files->paths[at]);
		const Elf64_Phdr *loader = segment_of(&elf, PT_INTERP);
		const char *name = loader ? text_at(&elf, loader->p_offset) : NULL;

		if (name)
			add_file(files, name);
		add_libraries(files, &elf);
	}
}

#endif
