#define VERSION 1
#include "../counter.h"
