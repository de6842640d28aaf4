/* Text and byte strings: scans, comparisons, copies, numbers in decimal and hexadecimal. */
#include "program.h"

struct text {
    char bytes[64];
    u32 length;
};

CHAM_ARRAY(texts, 16, struct text, 0);

static const char digits[] = "0123456789abcdef";
char scratch[32];

PROGRAM(length_of_a_string)
{
    char *p = ctx->data;
    void *end = ctx->data_end;
    u32 n = 0;
    while (n < 64 && (void *)(p + n + 1) <= end && p[n])
        n++;
    return n;
}

PROGRAM(end_of_a_line)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    for (u32 i = 0; i + 1 < 100; i++) {
        if (p + i + 2 > end)
            break;
        if (p[i] == '\r' && p[i + 1] == '\n')
            return i;
    }
    return CHAM_PUNT;
}

PROGRAM(word_between_spaces)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    struct text t = {};
    u32 i = 0, zero = 0;
    for (; i < 32; i++) {
        if (p + i + 1 > end || p[i] == ' ')
            break;
    }
    for (u32 k = 0; k < 31; k++) {
        u8 *at = p + i + 1 + k;
        if (at + 1 > end || *at == ' ')
            break;
        t.bytes[k] = *at;
        t.length = k + 1;
    }
    return cham_update(&texts, &zero, &t, 0) ? CHAM_ERROR(1) : CHAM_DONE;
}

PROGRAM(compared_with_a_constant)
{
    static const char name[] = "example.";
    u8 *p = ctx->data;
    if (p + sizeof name - 1 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    for (u32 i = 0; i < sizeof name - 1; i++)
        if ((p[i] | 0x20) != name[i])
            return CHAM_PUNT;
    return CHAM_DONE;
}

PROGRAM(compared_up_to_a_length)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 i = ctx->id;
    struct text *t = cham_lookup(&texts, &i);
    if (!t)
        return CHAM_ERROR(1);
    u32 length = t->length;
    if (length > sizeof t->bytes)
        length = sizeof t->bytes;
    for (u32 k = 0; k < length; k++) {
        if (p + k + 1 > end || p[k] != (u8)t->bytes[k])
            return CHAM_PUNT;
    }
    return CHAM_DONE;
}

PROGRAM(decimal_number)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 value = 0;
    s32 sign = 1;
    if (p < end && *p == '-') {
        sign = -1;
        p++;
    }
    for (u32 i = 0; i < 10 && p < end; i++, p++) {
        u32 digit = *p - '0';
        if (digit > 9)
            break;
        value = value * 10 + digit;
    }
    return (u32)(sign * (s32)value);
}

PROGRAM(hexadecimal_number)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u64 value = 0;
    for (int i = 0; i < 16; i++) {
        if (p + i >= end)
            break;
        u8 c = p[i], nibble;
        if (c >= '0' && c <= '9')
            nibble = c - '0';
        else if (c >= 'a' && c <= 'f')
            nibble = c - 'a' + 10;
        else if (c >= 'A' && c <= 'F')
            nibble = c - 'A' + 10;
        else
            break;
        value = value << 4 | nibble;
    }
    return value;
}

PROGRAM(number_written_backwards)
{
    u32 value = ctx->id, at = sizeof scratch - 1;
    do {
        scratch[at & 31] = '0' + value % 10;
        value /= 10;
    } while (value && --at > 20);
    return at;
}

PROGRAM(number_written_in_hexadecimal)
{
    char text[16];
    u64 value = ctx->now;
    for (int i = 15; i >= 0; i--) {
        text[i] = digits[value & 15];
        value >>= 4;
    }
    return *(u64 *)text ^ *(u64 *)(text + 8);
}

PROGRAM(table_of_strings)
{
    u8 *p = ctx->data;
    if (p + 3 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    for (u32 i = 0; i < 4; i++) {
        static const char names[4][4] = {"GET", "PUT", "HEA", "POS"};
        if (p[0] == names[i][0] && p[1] == names[i][1] && p[2] == names[i][2])
            return i;
    }
    return CHAM_PUNT;
}

PROGRAM(copied_up_to_a_length)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 i = ctx->id;
    struct text *t = cham_lookup(&texts, &i);
    if (!t || p + 2 > end)
        return CHAM_ERROR(1);
    u32 length = p[1];
    if (length > sizeof t->bytes)
        return CHAM_ERROR(2);
    for (u32 k = 0; k < length && p + 2 + k + 1 <= end; k++)
        t->bytes[k] = p[2 + k];
    t->length = length;
    return CHAM_DONE;
}

PROGRAM(copied_in_pieces)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u8 buffer[64] = {};
    u32 n = 0;
    if (p + 32 <= end) {
        __builtin_memcpy(buffer, p, 32);
        n = 32;
    }
    if (p + n + 16 <= end) {
        __builtin_memcpy(buffer + n, p + n, 16);
        n += 16;
    }
    if (p + n + 8 <= end) {
        __builtin_memcpy(buffer + n, p + n, 8);
        n += 8;
    }
    u32 sum = 0;
    for (u32 i = 0; i < 64; i++)
        sum += buffer[i];
    return sum + n;
}

PROGRAM(bytes_in_reverse)
{
    u8 *p = ctx->data;
    if (p + 16 > (u8 *)ctx->data_end)
        return CHAM_ERROR(1);
    for (u32 low = 0, high = 15; low < high; low++, high--) {
        u8 byte = p[low];
        p[low] = p[high];
        p[high] = byte;
    }
    return CHAM_TX;
}

PROGRAM(byte_stuffing)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 i = ctx->id, out = 0;
    struct text *t = cham_lookup(&texts, &i);
    if (!t)
        return CHAM_ERROR(1);
    for (u32 in = 0; in < 30 && p + in + 1 <= end; in++) {
        if (out > 61)
            break;
        u8 byte = p[in];
        if (byte == 0x7e || byte == 0x7d) {
            t->bytes[out++] = 0x7d;
            byte ^= 0x20;
        }
        t->bytes[out++] = byte;
    }
    t->length = out;
    return CHAM_DONE;
}

PROGRAM(run_lengths)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 i = ctx->id, out = 0;
    struct text *t = cham_lookup(&texts, &i);
    if (!t)
        return CHAM_ERROR(1);
    for (u32 k = 0; k < 8; k++) {
        if (p + 2 > end)
            break;
        u32 count = p[0] & 7;
        for (u32 c = 0; c < count; c++) {
            if (out >= sizeof t->bytes)
                return CHAM_ERROR(2);
            t->bytes[out++] = p[1];
        }
        p += 2;
    }
    return out;
}

PROGRAM(comma_separated)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 fields[4] = {}, field = 0;
    for (u32 i = 0; i < 24; i++) {
        if (p + i + 1 > end)
            break;
        if (p[i] == ',') {
            if (++field >= 4)
                return CHAM_ERROR(1);
            continue;
        }
        fields[field & 3] = fields[field & 3] * 10 + (p[i] - '0');
    }
    return fields[0] ^ fields[1] ^ fields[2] ^ fields[3];
}

PROGRAM(lower_case_in_a_word)
{
    u64 word = ctx->now;
    u64 heptets = word & 0x7f7f7f7f7f7f7f7full;
    u64 above_z = heptets + 0x2525252525252525ull, from_a = heptets + 0x3f3f3f3f3f3f3f3full;
    u64 is_ascii = ~word & 0x8080808080808080ull, is_upper = is_ascii & (from_a ^ above_z);
    return word | is_upper >> 2;
}

PROGRAM(needle_of_four_bytes)
{
    u8 *p = ctx->data, *end = ctx->data_end;
    u32 window = 0;
    for (u32 i = 0; i < 80; i++) {
        if (p + i + 1 > end)
            return CHAM_DONE;
        window = window << 8 | p[i];
        if (window == 0x0d0a0d0a)
            return i + 1;
    }
    return CHAM_PUNT;
}
