/*
 * Who may call this VM's guest (vm-service.h, accept). The caller is another VM's supervisor: its words say for whom, and
 * the kernel which process it is, which has to be that VM's supervisor.
 */
#pragma once

#include <stdint.h>

struct control_call;
struct sv;

/* Answers CALL, now or later, with a connection to PORT of the guest beside it. FROM is borrowed. */
void sv_service_dial(struct sv *sv, struct control_call *call, const char *from, uint32_t port);
