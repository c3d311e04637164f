/* Where a message ends. A part of `wire.h`. */

/* Follows one message through its bytes: `at` is how far it got, `owed` the values that must still come. */
typedef struct {
    size_t at, resume; /* it gets no further before `resume` bytes have come */
    uint64_t owed;
    uint32_t depth;
    uint64_t max_size;
    uint32_t max_depth;
    uint64_t *open; /* values still to come of each open container; room for max_depth + 2 */
} wire_outline;

enum { OUTLINE_WHOLE = 1, OUTLINE_SHORT = 0, OUTLINE_REFUSED = -1 };

static inline void outline_begin(wire_outline *o, uint64_t *open, uint64_t max_size, uint32_t max_depth)
{
    o->max_size = max_size;
    o->max_depth = max_depth;
    o->at = 0;
    o->resume = 1;
    o->owed = 1;
    o->depth = 1;
    o->open = open;
    open[0] = 1;
}

/* Go on through `data`, the message from its first byte. OUTLINE_REFUSED: no MessagePack, too large, or too deep; which of
 * them is for `rpccluster.protocol.outline` to say. */
static inline int outline_advance(wire_outline *o, const uint8_t *data, size_t size)
{
    while (o->resume <= size) {
        const uint8_t *p = data + o->at;
        uint8_t first = *p;
        uint64_t whole = 1, inside = 0; /* bytes of the value itself; values inside a container */
        unsigned width = 0, extra = 0;
        int is_container = 0;
        if (first <= 0x7f || first >= 0xe0 || first == 0xc0 || first == 0xc2 || first == 0xc3)
            ;
        else if (first <= 0x8f) {
            is_container = 1;
            inside = (uint64_t)(first & 0x0f) * 2;
        } else if (first <= 0x9f) {
            is_container = 1;
            inside = first & 0x0f;
        } else if (first <= 0xbf)
            whole = 1 + (uint64_t)(first & 0x1f);
        else {
            switch (first) {
            case 0xc4: case 0xd9: width = 1; break;
            case 0xc5: case 0xda: width = 2; break;
            case 0xc6: case 0xdb: width = 4; break;
            case 0xc7: width = 1; extra = 1; break;
            case 0xc8: width = 2; extra = 1; break;
            case 0xc9: width = 4; extra = 1; break;
            case 0xca: case 0xce: case 0xd2: whole = 5; break;
            case 0xcb: case 0xcf: case 0xd3: whole = 9; break;
            case 0xcc: case 0xd0: whole = 2; break;
            case 0xcd: case 0xd1: whole = 3; break;
            case 0xd4: whole = 3; break;
            case 0xd5: whole = 4; break;
            case 0xd6: whole = 6; break;
            case 0xd7: whole = 10; break;
            case 0xd8: whole = 18; break;
            case 0xdc: case 0xde: width = 2; is_container = 1; break;
            case 0xdd: case 0xdf: width = 4; is_container = 1; break;
            default: return OUTLINE_REFUSED;
            }
            if (width) {
                if (o->at + 1 + width > size) {
                    o->resume = o->at + 1 + width;
                    return OUTLINE_SHORT;
                }
                uint64_t length = width == 1 ? p[1] : width == 2 ? wire_u16(p + 1) : wire_u32(p + 1);
                if (is_container) {
                    whole = 1 + width;
                    inside = first >= 0xde ? length * 2 : length;
                } else
                    whole = 1 + width + extra + length;
            }
        }
        uint64_t end = o->at + whole;
        if (is_container) {
            if (o->depth > o->max_depth)
                return OUTLINE_REFUSED;
            o->owed += inside;
            o->owed -= 1;
            o->open[o->depth - 1] -= 1;
            o->open[o->depth++] = inside;
        } else if (end > size) {
            if (end + o->owed - 1 > o->max_size)
                return OUTLINE_REFUSED;
            o->resume = end;
            return OUTLINE_SHORT;
        } else {
            o->owed -= 1;
            o->open[o->depth - 1] -= 1;
        }
        o->at = end;
        if (end + o->owed > o->max_size)
            return OUTLINE_REFUSED;
        while (o->depth && !o->open[o->depth - 1])
            o->depth--;
        if (!o->depth)
            return OUTLINE_WHOLE;
        o->resume = end + 1;
    }
    return OUTLINE_SHORT;
}
