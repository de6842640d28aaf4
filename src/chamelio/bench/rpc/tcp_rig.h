/* A C application of TCP on the rig's core (bench/tax/rig.h), and what a slow path would have done for it. */
#ifndef TCP_RIG_H
#define TCP_RIG_H

#include "rig.h"
#include "tcp_app.h"

/* What a slow path leaves in memory, from a file that export.py has written: variables of the handlers, the configuration. */
void rig_patch(const char *path);
/* The application of context 1. */
void tcp_rig_application(struct tcp_app *app);
/* Connections to the port of the set-up are context 1's. */
void tcp_rig_listen(u32 backlog);
/* End the program if the slow path has been told of anything. */
void tcp_rig_check(void);

#endif
