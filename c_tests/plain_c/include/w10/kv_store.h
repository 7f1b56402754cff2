/* W10 names the store by its own directory; it lives in W09. */
#include "../w09/kv_store.h"
