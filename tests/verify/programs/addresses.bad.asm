# Addresses within one object have an order, below its first byte as well, but no sign and no bits that a program may see.

-- top_of_the_stack_is_above_it
    mov r2, r10
    mov r3, r10
    add r3, -8
    jgt r2, r3, above
    mov r0, 0
    exit
above:
    ldxdw r0, [r10-8]           # V111: were written
    exit

-- before_global_data_is_below_it
    lddw r2, map_value 8+4
    mov r3, r2
    add r3, -8
    jlt r3, r2, below
    mov r0, 0
    exit
below:
    ldxdw r0, [r10-8]           # V111: were written
    exit

-- before_the_packet_is_below_it
    ldxdw r2, [r1+0]
    mov r3, r2
    add r3, -8
    jlt r3, r2, below
    mov r0, 0
    exit
below:
    ldxdw r0, [r10-8]           # V111: were written
    exit

-- before_a_packet_that_does_not_exist_is_above_it
    ldxdw r2, [r1+0]
    mov r3, r2
    add r3, -8
    jgt r3, r2, above
    mov r0, 0
    exit
above:
    ldxdw r0, [r10-8]           # V111: were written
    exit

-- bits_of_addresses
    lddw r2, map_value 8+0
    mov r3, r2
    jset r2, r3, out            # V114: no sign and no bits
    mov r0, 0
    exit
out:
    mov r0, 1
    exit

-- sign_of_addresses
    mov r2, r10
    mov r3, r10
    add r3, -8
    mov r0, 0
    jslt r2, r3, out            # V114: no sign and no bits
    mov r0, 1
out:
    exit

-- stack_is_not_below_its_lowest_byte
    mov r2, r10
    add r2, -16
    mov r3, r10
    mov r0, 1
again:
    stxb [r2+0], r0
    add r2, 1
    jlt r2, r3, again
    ldxdw r0, [r10-24]          # V111: were written
    exit

-- bits_of_halves_of_addresses
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r0, 0
    jset32 r2, r3, out          # V114: half a pointer is compared
    mov r0, 1
out:
    exit
