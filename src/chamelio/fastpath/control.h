/* The commands that the control thread gives to the round, and how they end. */
#ifndef CHAM_CONTROL_H
#define CHAM_CONTROL_H

enum cham_op {
    CHAM_OP_ADD_TENANT,      /* tenant, weight, frame quota */
    CHAM_OP_REMOVE_TENANT,   /* tenant */
    CHAM_OP_SET_WEIGHT,      /* tenant, weight */
    CHAM_OP_SET_FRAME_QUOTA, /* tenant, frames */
    CHAM_OP_ADD_INSTANCE,    /* address of a struct cham_instance */
    CHAM_OP_REMOVE_INSTANCE, /* instance */
    CHAM_OP_SET_UNIT,        /* unit, address of a struct cham_unit or 0 */
    CHAM_OP_MOVE_INSTANCE,   /* instance, unit */
    CHAM_OP_BIND,            /* network, address, tenant, instance, protocol, low port << 16 | high port, steer */
    CHAM_OP_ADD_PORT,        /* port, address of a struct cham_port */
    CHAM_OP_REMOVE_PORT,     /* port */
    CHAM_OP_ADD_ROUTE,       /* network, prefix, mask, gateway, port */
    CHAM_OP_REMOVE_ROUTE,    /* network, prefix, mask */
    CHAM_OP_ATTACH,          /* instance, context, ring start */
    CHAM_OP_DETACH,          /* instance, context */
    CHAM_OP_PAUSE_INSTANCE,  /* instance, 1 or 0 */
    CHAM_OP_REPLACE_INSTANCE, /* instance, the one that takes its place */
    CHAM_OP_COUNT_FRAMES,    /* out: free frames, frames that wait somewhere */
};

enum cham_status { CHAM_STATUS_OK, CHAM_STATUS_TAKEN, CHAM_STATUS_FULL, CHAM_STATUS_UNKNOWN, CHAM_STATUS_BUSY };

#endif
