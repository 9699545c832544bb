#include "guest-mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define GUEST_MEM_PAGE 4096

void guest_mem_init(struct guest_mem *m, bool may_shrink)
{
	m->n = 0;
	m->may_shrink = may_shrink;
}

void guest_mem_finish(struct guest_mem *m)
{
	for (size_t i = 0; i < m->n; i++)
		munmap(m->regions[i].map, m->regions[i].map_bytes);
	m->n = 0;
}

static bool guest_mem_wraps(uint64_t start, uint64_t size)
{
	return start + size < start;
}

/* Neither range wraps. */
static bool guest_mem_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

static int guest_mem_check(
	const struct guest_mem *m, const struct guest_mem_region *r, uint64_t offset)
{
	if (r->size == 0 || (r->size | r->gpa | r->user | offset) % GUEST_MEM_PAGE)
		return -EINVAL;
	if (guest_mem_wraps(r->gpa, r->size) || guest_mem_wraps(r->user, r->size) ||
		guest_mem_wraps(offset, r->size))
		return -EINVAL;
	for (size_t i = 0; i < m->n; i++) {
		const struct guest_mem_region *o = &m->regions[i];

		if (guest_mem_overlap(r->gpa, r->size, o->gpa, o->size) ||
			guest_mem_overlap(r->user, r->size, o->user, o->size))
			return -EINVAL;
	}
	return 0;
}

/* The file's page size: hugetlbfs maps only whole huge pages. */
static int guest_mem_check_file(const struct guest_mem *m, int fd, uint64_t end, uint64_t *ret_page)
{
	struct stat st;
	int seals;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || end > (uint64_t)st.st_size)
		return -EINVAL;
	seals = fcntl(fd, F_GET_SEALS);
	if (!m->may_shrink && (seals < 0 || !(seals & F_SEAL_SHRINK)))
		return -EPERM;
	*ret_page = st.st_blksize > GUEST_MEM_PAGE && !(st.st_blksize & (st.st_blksize - 1))
			    ? (uint64_t)st.st_blksize
			    : GUEST_MEM_PAGE;
	return 0;
}

int guest_mem_add(
	struct guest_mem *m, int fd, uint64_t gpa, uint64_t size, uint64_t user, uint64_t offset)
{
	struct guest_mem_region r = { .gpa = gpa, .size = size, .user = user };
	uint64_t page = GUEST_MEM_PAGE, lead;
	int q;

	if (m->n >= GUEST_MEM_REGIONS_MAX)
		return -ENOSPC;
	q = guest_mem_check(m, &r, offset);
	if (q < 0)
		return q;
	q = guest_mem_check_file(m, fd, offset + size, &page);
	if (q < 0)
		return q;
	lead = offset & (page - 1);
	r.map_bytes = (lead + size + page - 1) & ~(page - 1);
	r.map = mmap(NULL, r.map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd,
		(off_t)(offset - lead));
	if (r.map == MAP_FAILED)
		return -errno;
	madvise(r.map, r.map_bytes, MADV_DONTDUMP);
	r.data = (uint8_t *)r.map + lead;
	m->regions[m->n++] = r;
	return 0;
}

void *guest_mem_user(const struct guest_mem *m, uint64_t user, uint64_t len)
{
	for (size_t i = 0; i < m->n; i++) {
		const struct guest_mem_region *r = &m->regions[i];

		if (user >= r->user && user - r->user < r->size)
			return len <= r->size - (user - r->user) ? r->data + (user - r->user)
								 : NULL;
	}
	return NULL;
}

static const struct guest_mem_region *guest_mem_find(const struct guest_mem *m, uint64_t gpa)
{
	for (size_t i = 0; i < m->n; i++) {
		if (gpa >= m->regions[i].gpa && gpa - m->regions[i].gpa < m->regions[i].size)
			return &m->regions[i];
	}
	return NULL;
}

int guest_mem_iov(
	const struct guest_mem *m, uint64_t gpa, uint64_t len, struct iovec *iov, size_t max)
{
	size_t n = 0;

	if (guest_mem_wraps(gpa, len))
		return -EFAULT;
	while (len > 0) {
		const struct guest_mem_region *r = guest_mem_find(m, gpa);
		uint64_t part;

		if (!r)
			return -EFAULT;
		if (n >= max)
			return -ENOBUFS;
		part = r->size - (gpa - r->gpa);
		part = part < len ? part : len;
		iov[n++] = (struct iovec){ r->data + (gpa - r->gpa), part };
		gpa += part;
		len -= part;
	}
	return (int)n;
}

int guest_mem_read(const struct guest_mem *m, uint64_t gpa, void *ret, size_t len)
{
	struct iovec iov[GUEST_MEM_REGIONS_MAX];
	uint8_t *out = ret;
	int n = guest_mem_iov(m, gpa, len, iov, GUEST_MEM_REGIONS_MAX);

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		memcpy(out, iov[i].iov_base, iov[i].iov_len);
		out += iov[i].iov_len;
	}
	__asm__ volatile("" : : "r"(ret) : "memory");
	return 0;
}
