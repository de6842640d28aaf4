# Two paths join. The first one explored is safe, and the second looks much like it: it must not be taken for known.

-- numbers_linked_otherwise
    ldxdw r6, [r1+32]
    ldxdw r8, [r1+32]
    ldxw r2, [r1+44]
    jeq r2, 0, other
    mov r7, r6
    mov r8, r6
    stxdw [r10-16], r6
    ja join
other:
    mov r7, r8
    stxdw [r10-16], r6
    mov r9, r6
join:
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, out
    jgt r7, 15, out
    ldxdw r6, [r10-16]
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- numbers_linked_in_registers_otherwise
    ldxdw r6, [r1+32]
    ldxdw r8, [r1+32]
    ldxw r2, [r1+44]
    jeq r2, 0, other
    mov r7, r6
    mov r9, r6
    ja join
other:
    mov r7, r8
    mov r9, r6
join:
    jgt r7, 15, out
    lddw r2, map_value 9+0
    add r2, r9                  # V114: unbounded
    ldxb r0, [r2+0]
    exit
out:
    mov r0, 0
    exit

-- null_of_another_lookup
    ldxw r8, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r6, r0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r7, r0
    jeq r8, 0, join
    mov r7, r6
join:
    jeq r6, 0, out
    ldxw r0, [r7+0]             # V108: may be NULL
    exit
out:
    mov r0, 0
    exit

-- null_checked_before_on_the_other_path
    ldxw r8, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r6, r0
    jeq r8, 0, join
    jeq r6, 0, out
join:
    ldxw r0, [r6+0]             # V108: may be NULL
    exit
out:
    mov r0, 0
    exit

-- another_variable_base
    ldxw r8, [r1+44]
    mov r9, r8
    and r8, 31
    rsh r9, 27
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+40]
    mov r6, r2
    add r6, r8
    mov r7, r2
    add r7, r9
    jeq r5, 0, join
    mov r7, r6
join:
    mov r4, r6
    add r4, 8
    mov r0, 0
    jgt r4, r3, exit
    ldxb r0, [r7+0]             # V102: never compared
    exit

-- less_of_the_packet_is_proven
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    mov r0, 0
    mov r4, r2
    add r4, 20
    jeq r5, 0, short
    jgt r4, r3, exit
    ja join
short:
    sub r4, 6
    jgt r4, r3, exit
join:
    ldxh r0, [r2+18]            # V102: not within the proven [0, 14)
    exit

-- less_of_the_packet_is_proven_and_it_is_loaded_again
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    mov r0, 0
    jeq r5, 0, join
    mov r4, r2
    add r4, 20
    jgt r4, r3, exit
join:
    ldxdw r2, [r1+0]
    ldxh r0, [r2+18]            # V102: not within the proven [0, 0)
    exit

-- a_lower_variable_part
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    ldxw r6, [r1+40]
    and r5, 7
    jeq r6, 0, join
    add r5, 4
join:
    add r2, r5
    mov r0, 0
    jgt r2, r3, exit
    ldxw r0, [r2-4]             # V102: 4 bytes before the packet
    exit

-- bytes_not_written_on_the_other_path
    ldxdw r6, [r1+32]
    ldxw r2, [r1+44]
    jeq r2, 0, join
    stxdw [r10-8], r6
join:
    ldxdw r0, [r10-8]           # V111: written before on this path
    exit

-- an_address_in_place_of_bytes
    ldxdw r6, [r1+32]
    ldxw r2, [r1+44]
    stxdw [r10-8], r6
    jne r2, 0, join
    stxdw [r10-8], r1
join:
    ldxw r0, [r10-8]            # V112: part of a spilled pointer
    exit

-- an_address_in_place_of_a_number
    ldxdw r6, [r1+32]
    ldxw r2, [r1+44]
    jne r2, 0, join
    mov r6, r1
join:
    mov r0, r6
    exit                        # V112: the context is returned

-- an_expected_value_is_an_address
    stdw [r10-8], 0
    ldxw r2, [r1+44]
    mov r3, 0
    mov r0, r10
    jeq r2, 0, join
    mov r0, 5
join:
    lock cmpxchg [r10-8], r3    # V114: compare and exchange needs a number
    mov r0, 0
    exit

-- a_second_operand_is_an_address
    ldxw r2, [r1+44]
    mov r3, r10
    mov r0, 0
    jeq r2, 0, join
    mov r3, 5
join:
    jgt r2, r3, exit            # V114: is compared
    exit

-- a_register_of_the_caller_was_bounded_on_one_path
    ldxdw r6, [r1+32]
    ldxw r2, [r1+44]
    jeq r2, 0, call
    and r6, 15
call:
    mov r1, 0
    call local callee
    lddw r2, map_value 9+0
    add r2, r6                  # V114: unbounded
    ldxb r0, [r2+0]
    exit
callee:
    mov r0, r1
    exit

-- a_register_of_the_caller_is_what_differs_at_a_join_in_the_callee
    ldxdw r6, [r1+32]
    ldxw r2, [r1+44]
    mov r3, r6
    call local callee
    lddw r2, map_value 9+0
    add r2, r6                  # V114: unbounded
    ldxb r0, [r2+0]
    exit
callee:
    jgt r3, 15, join
    mov r4, 0
join:
    mov r0, 0
    exit

-- the_offset_of_a_pointer_differs
    ldxw r2, [r1+44]
    lddw r3, map_value 9+12
    jeq r2, 0, join
    lddw r3, map_value 9+8
join:
    ldxdw r0, [r3+0]            # V106: bytes 12..19
    exit

-- a_read_only_map_on_the_other_path
    ldxw r2, [r1+44]
    lddw r3, map_value 9+8
    jeq r2, 0, join
    lddw r3, map_value 8+8
join:
    stb [r3+0], 1               # V113: .rodata is written
    mov r0, 0
    exit

-- steps_of_a_shared_index_differ
    ldxw r6, [r1+44]
    ldxw r7, [r1+40]
    ldxw r8, [r1+48]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, out
    and r6, 12
    mov r3, r0
    add r3, r6
    jne r7, 0, join
    and r8, 10
    mov r3, r0
    add r3, r8
join:
    ldxw r0, [r3+0]             # V115: aligned
    exit
out:
    mov r0, 0
    exit

-- a_spill_that_a_helper_reads_still_matters
    mov r9, r1
    ldxdw r6, [r9+32]
    ldxw r3, [r9+44]
    jeq r3, 0, unknown
    mov r6, 7
unknown:
    stxdw [r10-8], r6
    mov r2, r10
    add r2, -8
    lddw r1, map 1
    call 3
    ldxdw r3, [r10-8]
    rsh r3, 60
    lddw r2, map_value 9+0
    add r2, r3
    ldxb r0, [r2+8]             # V106: access of 1 byte at offset 8..23
    exit
