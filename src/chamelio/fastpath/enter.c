/* From the round into an instance's unit, through the core's table, which is what swapping a unit changes.
 *
 * A whole image (jit/whole.py) has functions of the same names instead, which know its units and call them directly.
 */
#include "core.h"

CHAM_INLINE const struct cham_unit *unit_of(struct cham_core *core, struct cham_instance *inst) { return core->units[inst->unit]; }

u32 cham_enter_rx(struct cham_core *core, struct cham_instance *inst, struct cham_frame **frames, u32 n)
{
    return unit_of(core, inst)->rx(core, inst, frames, n);
}

u32 cham_enter_ring(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    const struct cham_unit *unit = unit_of(core, inst);
    return unit->ring ? unit->ring(core, inst, max) : 0;
}

u32 cham_enter_tx(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    const struct cham_unit *unit = unit_of(core, inst);
    return unit->tx ? unit->tx(core, inst, max) : 0;
}

u32 cham_enter_timer(struct cham_core *core, struct cham_instance *inst, u32 max)
{
    const struct cham_unit *unit = unit_of(core, inst);
    return unit->timer ? unit->timer(core, inst, max) : 0;
}
