/* A TAP interface: one non-blocking read or write per frame, straight into and out of the frame's own bytes. */
#ifndef CHAM_PORT_TAP_H
#define CHAM_PORT_TAP_H

#include "base.h"

struct cham_tap {
    s32 fd;
    u32 link;   /* 1: the interface is up; written by the control thread only */
    u32 failed; /* errno that said the interface is gone; 0: none */
    u32 pad;
    u64 errors;
};

#endif
