#define VERSION 2
#include "../counter.h"
