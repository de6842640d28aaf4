# Two paths join, and what the second one brings differs from the first in something that is relied on only indirectly.

-- null_that_is_none
    ldxw r8, [r1+44]
    stw [r10-4], 50
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r7, 5
    jeq r8, 0, join
    mov r7, 0
join:
    jeq r0, r7, out             # V114: compared with the number 5
    ldxw r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- null_that_is_none_first_operand
    ldxw r8, [r1+44]
    stw [r10-4], 50
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r7, 5
    jeq r8, 0, join
    mov r7, 0
join:
    jne r7, r0, in              # V114: compared with
    mov r0, 0
    exit
in:
    ldxw r0, [r0+0]
    exit

-- upper_half_of_a_spilled_address
    ldxw r8, [r1+44]
    stdw [r10-8], 3
    mov r6, 1
    jeq r8, 0, other
    lock add [r10-8], r6
    stw [r10-8], 1
    ja join
other:
    stxdw [r10-8], r1
join:
    ldxw r0, [r10-4]            # V112: part of a spilled pointer
    exit

-- written_though_nobody_reads_it
    ldxw r8, [r1+44]
    jeq r8, 0, join
    mov r6, 1
join:
    stxdw [r10-8], r6           # V110: r6
    mov r0, 0
    exit

-- half_an_address_written_though_nobody_reads_it
    ldxw r8, [r1+44]
    mov r6, r1
    jeq r8, 0, join
    mov r6, 1
join:
    stxw [r10-8], r6            # V112: stored
    mov r0, 0
    exit

-- distance_known_by_a_linked_number_only
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r8, [r1+44]
    jeq r8, 0, other
    mov r4, r3
    sub r4, r2
    mov r5, r4
    add r5, 4
    mov r7, r3                  # seven more: the first distance is forgotten
    sub r7, r2
    mov r7, r3
    sub r7, r2
    mov r7, r3
    sub r7, r2
    mov r7, r3
    sub r7, r2
    mov r7, r3
    sub r7, r2
    mov r7, r3
    sub r7, r2
    mov r7, r3
    sub r7, r2
    ja join
other:
    ldxw r4, [r1+40]
    and r4, 1023
    mov r5, r4
    add r5, 4
join:
    mov r0, 0
    jle r4, 20, out
    ldxb r0, [r2+19]            # V102: not within
out:
    exit

-- another_callback (xdp)
    ldxw r6, [r1+12]
    jeq r6, 0, other
    lddw r2, code 11
    ja join
other:
    lddw r2, code 10
join:
    mov r6, 0
    mov r1, 4
    mov r3, 0
    mov r4, 0
    call 181
    mov r0, 0
    exit
    mov r0, 0                   # the first callback
    exit
    ldxw r0, [r10-4]            # V111: were written
    exit

-- linked_at_another_distance
    ldxw r8, [r1+44]
    ldxdw r6, [r1+32]
    jeq r8, 0, other
    mov r7, r6
    add r7, 8
    ja join
other:
    mov r7, r6
    add r7, 17
join:
    mov r0, 0
    jgt r6, 7, out
    lddw r2, map_value 9+0
    add r2, r7
    ldxb r0, [r2+0]             # V106: not within
out:
    exit

-- a_longer_variable_part
    ldxw r8, [r1+44]
    ldxdw r6, [r1+32]
    lddw r2, map_value 8+0
    jeq r8, 0, other
    and r6, 8
    ja join
other:
    and r6, 24
join:
    mov r3, r2
    add r3, r6
    ja further
further:
    ldxdw r0, [r3+0]            # V106: not within
    exit

-- a_longer_variable_part_of_an_address
    ldxw r8, [r1+44]
    ldxdw r6, [r1+32]
    lddw r2, map_value 8+0
    jeq r8, 0, other
    and r6, 8
    add r2, r6
    ja join
other:
    and r6, 24
    add r2, r6
join:
    ldxdw r0, [r2+0]            # V106: not within
    exit
