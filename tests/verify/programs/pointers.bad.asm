# Leaked addresses, values that may be NULL, and arithmetic that pointers do not have.

-- pointer_returned
    mov r0, r10                 # a comment without a code
    exit                        # V112: a stack address is returned

-- context_returned
    mov r0, r1
    exit                        # V112: the context is returned

-- lookup_returned
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    exit                        # V112: that may be NULL is returned

-- map_returned
    lddw r0, map 0
    exit                        # V112: a map is returned

-- no_verdict
    mov r1, 0
    exit                        # V116: r0 was never written

-- no_verdict_on_one_path
    ldxw r2, [r1+44]
    jeq r2, 0, out
    mov r0, 1
out:
    exit                        # V116: without a verdict

-- no_verdict_after_a_function_without_result
    call local nothing
    exit                        # V116: without a verdict
nothing:
    exit

-- pointer_stored_in_a_value
    mov r6, r1
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    stxdw [r0+0], r6            # V112: the context is stored in an address in a map's value
    mov r0, 0
    exit

-- half_a_pointer_stored_in_a_value
    mov r6, r10
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    stxw [r0+0], r6             # V112: a stack address is stored
    mov r0, 0
    exit

-- pointer_stored_in_the_packet
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    stxdw [r2+0], r2            # V112: a packet address is stored
    exit

-- pointer_stored_in_the_entry (ring)
    ldxdw r2, [r1+16]
    stxdw [r2+0], r10           # V112: a stack address is stored
    mov r0, 0
    exit

-- pointer_stored_in_global_data
    lddw r2, map_value 8+0
    stxdw [r2+0], r1            # V112: the context is stored
    mov r0, 0
    exit

-- pointer_stored_in_half
    stxw [r10-8], r1            # V112: on the handler's own stack, whole
    mov r0, 0
    exit

-- spilled_pointer_read_in_half
    stxdw [r10-8], r1
    ldxw r0, [r10-8]            # V112: part of a spilled pointer
    exit

-- spilled_pointer_read_by_its_last_byte
    stxdw [r10-8], r1
    ldxb r0, [r10-1]            # V112: part of a spilled pointer
    exit

-- spilled_pointer_read_across
    stdw [r10-16], 0
    stxdw [r10-8], r1
    ldxdw r0, [r10-12]          # V112: part of a spilled pointer
    exit

-- spilled_pointer_partly_overwritten
    stxdw [r10-8], r1
    stw [r10-8], 0
    ldxdw r1, [r10-8]           # V111: not all of them were written
    ldxw r0, [r1+44]
    exit

-- spilled_pointer_upper_half_left
    stxdw [r10-8], r1
    stw [r10-8], 0
    ldxw r0, [r10-4]            # V111: not all of them were written
    exit

-- spilled_pointer_changed_atomically
    stxdw [r10-8], r1
    mov r2, 8
    lock add [r10-8], r2        # V112: spilled pointer
    mov r0, 0
    exit

-- pointer_as_atomic_operand
    stdw [r10-8], 0
    lock xchg [r10-8], r1       # V114: an atomic operation needs a number
    mov r0, 0
    exit

-- pointer_as_expected_value
    stdw [r10-8], 0
    mov r0, r1
    mov r2, 0
    lock cmpxchg [r10-8], r2    # V114: compare and exchange needs a number
    mov r0, 0
    exit

-- pointer_in_a_key
    stxdw [r10-8], r1
    mov r2, r10
    add r2, -8
    lddw r1, map 1
    call 1                      # V112: contains an address
    mov r0, 0
    exit

-- pointer_in_the_middle_of_a_ring_entry
    stdw [r10-16], 0
    stxdw [r10-8], r1
    mov r3, r10
    add r3, -16
    mov r2, 0
    lddw r1, map 3
    call 0x101                  # V112: argument 3 (entry) contains an address
    mov r0, 0
    exit

-- pointer_pushed_by_a_subprogram
    stxdw [r10-8], r1
    stdw [r10-16], 0
    mov r1, r10
    add r1, -16
    call local push
    mov r0, 0
    exit
push:
    mov r3, r1
    mov r2, 0
    lddw r1, map 3
    call 0x101                  # V112: contains an address
    mov r0, 0
    exit

-- pointer_returned_by_a_subprogram
    call local callee
    exit                        # V112: a packet address is returned
callee:
    ldxdw r0, [r1+0]
    exit

-- local_variable_returned
    call local callee
    mov r0, 0
    exit
callee:
    mov r0, r10
    add r0, -8
    exit                        # V112: its frame ends here

-- local_variable_left_behind
    mov r1, r10
    add r1, -8
    call local callee
    mov r0, 0
    exit
callee:
    stxdw [r1+0], r10           # V112: outlives its function
    mov r0, 0
    exit

-- pointer_as_a_number_for_a_helper
    mov r3, r10
    mov r2, 0
    lddw r1, map 6
    call 0x106                  # V120: argument 3 (when) is a stack address
    mov r0, 0
    exit

-- pointer_multiplied
    mul r1, 2                   # V114: an operation on the context
    mov r0, 0
    exit

-- pointer_masked
    mov r2, r10
    and r2, -8                  # V114: an operation on a stack address
    mov r0, 0
    exit

-- pointer_shifted
    mov r2, r10
    rsh r2, 3                   # V114: an operation on
    mov r0, 0
    exit

-- pointer_negated
    mov r2, r10
    neg r2                      # V114: negation needs a number
    mov r0, 0
    exit

-- pointer_byte_swapped
    be64 r1                     # V114: a byte swap needs a number
    mov r0, 0
    exit

-- pointer_xored_with_itself
    xor r1, r1                  # V114: the context and the context are combined
    mov r0, 0
    exit

-- pointer_added_in_32_bits
    ldxdw r2, [r1+0]
    add32 r2, 4                 # V114: an operation on a packet address
    mov r0, 0
    exit

-- pointer_moved_in_32_bits
    mov32 r2, r1                # V114: part of the context is moved
    mov r0, 0
    exit

-- pointer_moved_sign_extended
    movsx3264 r2, r1            # V114: part of the context is moved
    mov r0, 0
    exit

-- pointer_subtracted_from_a_number
    mov r2, 0
    sub r2, r1                  # V114: only adding is possible
    mov r0, 0
    exit

-- pointers_added
    ldxdw r2, [r1+0]
    add r2, r2                  # V114: two pointers can only be subtracted
    mov r0, 0
    exit

-- stack_pointers_subtracted_by_halves
    mov r2, r10
    mov r3, r10
    sub r2, r3
    mov r4, r10
    mov r3, r1
    sub r4, r3                  # V114: not addresses within one object
    mov r0, r2
    exit

-- pointers_of_different_objects_subtracted
    ldxdw r2, [r1+0]
    mov r3, r10
    sub r2, r3                  # V114: are combined
    mov r0, r2
    exit

-- pointer_compared_with_a_number
    ldxdw r2, [r1+0]
    mov r0, 0
    jgt r2, 4096, exit          # V114: is compared with the number 4096
    exit

-- pointer_compared_with_an_unknown_number
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+32]
    mov r0, 0
    jeq r2, r3, exit            # V114: is compared with a number
    exit

-- pointer_bit_tested
    mov r0, 0
    jset r1, 1, exit            # V114: is compared
    exit

-- pointer_compared_in_32_bits
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r0, 0
    jgt32 r2, 9, exit           # V114: half a pointer
    exit

-- pointer_ordered_with_null
    ldxdw r2, [r1+0]
    mov r0, 0
    jge r2, 0, exit             # V114: is compared with the number 0
    exit

-- packet_compared_signed
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r0, 0
    jsgt r2, r3, exit           # V114: is compared with the packet's end
    exit

-- stack_compared_with_the_packets_end
    ldxdw r3, [r1+8]
    mov r2, r10
    mov r0, 0
    jgt r2, r3, exit            # V114: a stack address is compared
    exit

-- packet_compared_with_the_entrys_end
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+24]
    mov r0, 0
    jgt r2, r3, exit            # V114: they are not within one object
    exit

-- null_not_checked
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    ldxw r0, [r0+0]             # V108: an address in a map's value that may be NULL
    exit

-- null_not_checked_before_a_write
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    stw [r0+0], 1               # V108: a write
    mov r0, 0
    exit

-- null_checked_the_wrong_way
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jne r0, 0, out
    ldxw r0, [r0+0]             # V107: holds a number
    exit
out:
    mov r0, 0
    exit

-- null_checked_on_another_lookup
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
    jeq r0, 0, out
    ldxw r0, [r6+0]             # V108: may be NULL
    exit
out:
    mov r0, 0
    exit

-- null_checked_after_the_arithmetic
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    add r0, 8
    jeq r0, 0, out
    ldxw r0, [r0+0]             # V108: that may be NULL
    exit
out:
    mov r0, 0
    exit

-- null_checked_in_32_bits
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq32 r0, 0, out            # V114: half a pointer
    ldxw r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- null_checked_on_one_path
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r6, 0, use
    jeq r0, 0, out
use:
    ldxw r0, [r0+0]             # V108: may be NULL
    exit
out:
    mov r0, 0
    exit

-- null_spilled_before_a_second_lookup
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    stxdw [r10-16], r0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, out
    ldxdw r1, [r10-16]
    ldxw r0, [r1+0]             # V108: may be NULL
    exit
out:
    mov r0, 0
    exit

-- null_passed_as_a_key
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r2, r0
    lddw r1, map 1
    call 1                      # V108: argument 2 (key) may be NULL
    mov r0, 0
    exit

-- null_checked_in_a_loop_once
    mov r7, 0
    mov r6, 2
again:
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jne r7, 0, use
    mov r7, 1
    jeq r0, 0, out
use:
    ldxw r1, [r0+0]             # V108: may be NULL
    sub r6, 1
    jne r6, 0, again
out:
    mov r0, 0
    exit

-- stale_packet_after_resize
    mov r6, r1
    ldxdw r7, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r7
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    mov r2, 64
    call 0x102
    ldxb r0, [r7+0]             # V110: r7 is used before it has a value
    exit

-- stale_packet_after_copying_in
    mov r6, r1
    ldxdw r7, [r1+0]
    ldxdw r8, [r1+8]
    mov r4, r7
    add r4, 16
    mov r0, 0
    jgt r4, r8, exit
    mov r5, 8
    mov r4, 0
    mov r3, 0
    lddw r2, map 5
    call 0x104
    stb [r7+0], 1               # V110: r7
    mov r0, 0
    exit

-- stale_packet_spilled
    stxdw [r10-8], r1
    ldxdw r7, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r7
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    stxdw [r10-16], r7
    mov r2, 64
    call 0x102
    ldxdw r7, [r10-16]
    ldxb r0, [r7+0]             # V110: where cham_resize is called
    exit

-- stale_packet_resized_by_a_subprogram
    mov r6, r1
    ldxdw r7, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r7
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    call local shrink
    ldxb r0, [r7+0]             # V110: r7
    exit
shrink:
    mov r2, 0
    call 0x102
    mov r0, 0
    exit

-- stale_proof_after_resize
    mov r6, r1
    ldxdw r7, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r7
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    mov r2, 64
    call 0x102
    ldxdw r7, [r6+0]
    ldxb r0, [r7+0]             # V102: not within the proven [0, 0)
    exit

-- stale_end_after_resize
    mov r6, r1
    ldxdw r8, [r1+8]
    mov r2, 0
    call 0x102
    ldxdw r7, [r6+0]
    mov r4, r7
    add r4, 16
    mov r0, 0
    jgt r4, r8, exit            # V110: r8
    ldxb r0, [r7+0]
    exit

-- stale_packet_after_resize_on_one_path
    mov r6, r1
    ldxdw r7, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r8, [r1+44]
    mov r4, r7
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    jeq r8, 0, use
    mov r2, 64
    call 0x102
use:
    ldxb r0, [r7+0]             # V110: r7
    exit

-- no_memory_but_a_length (xdp)
    stdw [r10-64], 0
    stdw [r10-56], 0
    mov r1, 0
    mov r2, 4
    mov r3, r10
    add r3, -64
    mov r4, 16
    mov r5, 0
    call 28                     # V120: argument 1 (from) is NULL, but has 4 bytes
    mov r0, 0
    exit

-- an_address_not_below_a_proven_one
    mov r9, r1
    ldxdw r2, [r9+0]
    ldxdw r3, [r9+8]
    ldxw r4, [r9+44]
    and r4, 60
    ldxw r5, [r9+44]
    and r5, 31
    mov r0, 0
    mov r6, r2
    add r6, r4
    mov r7, r6
    add r7, 4
    jgt r7, r3, exit
    mov r8, r2
    add r8, r5
    mov r1, r8
    add r1, 1
    jlt r1, r7, exit
    ldxb r0, [r8+0]             # V102: never compared
exit:
    exit

-- an_address_below_one_that_is_not_proven
    mov r9, r1
    ldxdw r2, [r9+0]
    ldxdw r3, [r9+8]
    ldxw r4, [r9+44]
    and r4, 60
    ldxw r5, [r9+44]
    and r5, 31
    mov r0, 0
    mov r6, r2
    add r6, r4
    mov r7, r6
    add r7, 4
    jgt r6, r3, exit
    mov r8, r2
    add r8, r5
    mov r1, r8
    add r1, 1
    jgt r1, r7, exit
    ldxb r0, [r8+0]             # V102: never compared
exit:
    exit

-- a_table_with_a_place_too_many
    ldxw r2, [r1+44]
    and r2, 7
    lddw r3, map_value 9+0
    add r3, r2
    ldxb r4, [r3+2]
    lddw r5, map_value 8+0
    add r5, r4
    ldxdw r0, [r5+0]            # V106: at offset 2..9
    exit

-- a_shifted_number_says_nothing_of_the_low_bits
    ldxw r2, [r1+44]
    mov32 r1, r2
    rsh32 r1, 4
    mov r0, 0
    jne32 r1, 0, out
    lddw r5, map_value 8+0
    add r5, r2
    ldxh r0, [r5+0]             # V106: at offset 0..15
out:
    exit

-- stack_address_by_or_of_too_much
    stdw [r10-8], 0
    stdw [r10-16], 0
    ldxw r2, [r1+44]
    and r2, 15
    mov r3, r10
    add r3, -16
    or r3, r2                   # V114: an operation on a stack address
    stb [r3+0], 1
    mov r0, 0
    exit
