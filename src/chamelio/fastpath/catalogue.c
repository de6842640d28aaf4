/* The catalogue as tables that Python reads: names and texts of drop reasons and events. */
#include "catalogue.h"

struct cham_catalogue_entry {
    const char *name, *text;
};

#define ENTRY(NAME, name, text) {name, text},
const struct cham_catalogue_entry cham_drop_catalogue[] = {CHAM_DROPS(ENTRY){0, 0}};
const struct cham_catalogue_entry cham_event_catalogue[] = {CHAM_EVENTS(ENTRY){0, 0}};
