/* Intrusive circular lists. A head and an unlinked element both point to themselves. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define CONTAINER_OF(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))

struct list {
	struct list *prev, *next; /* borrowed */
};

static inline void list_init(struct list *l)
{
	l->prev = l->next = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_insert_before(struct list *place, struct list *l)
{
	l->prev = place->prev;
	l->next = place;
	place->prev->next = l;
	place->prev = l;
}

static inline void list_append(struct list *head, struct list *l)
{
	list_insert_before(head, l);
}

/* Unlinks L, which may be unlinked already. */
static inline void list_remove(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

#define list_for_each(i, head) for (struct list *i = (head)->next; i != (head); i = i->next)

/* The same where the body may unlink I. */
#define list_for_each_safe(i, head)                                                                \
	for (struct list *i = (head)->next, *i##_next = i->next; i != (head);                      \
		i = i##_next, i##_next = i->next)
