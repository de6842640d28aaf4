# Programs that are safe in ways a verifier must understand.

-- return_a_constant
    mov r0, 0
    exit

-- context_fields
    ldxdw r2, [r1+32]
    ldxw r3, [r1+40]
    ldxw r4, [r1+44]
    ldxw r0, [r1+48]
    add r0, r2
    add r0, r3
    add r0, r4
    exit

-- context_field_sign_extended
    ldxsw r0, [r1+44]
    exit

-- whole_stack
    stb [r10-512], 1
    stdw [r10-8], 1
    ldxb r0, [r10-512]
    exit

-- stack_bytes_gathered
    stb [r10-8], 1
    sth [r10-7], 2
    stw [r10-5], 3
    stb [r10-1], 4
    ldxdw r0, [r10-8]
    exit

-- packet_first_byte_by_a_strict_comparison
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r0, 0
    jge r2, r3, exit
    ldxb r0, [r2+0]
    exit

-- packet_checked_from_the_other_side
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    mov r0, 0
    jlt r3, r4, exit
    ldxh r0, [r2+12]
    exit

-- packet_checked_by_what_is_not_taken
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    jle r4, r3, read
    mov r0, 0
    exit
read:
    ldxh r0, [r2+12]
    exit

-- packet_read_behind_the_compared_pointer
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    add r2, 14
    mov r0, 0
    jgt r2, r3, exit
    ldxb r0, [r2-14]
    exit

-- packet_ip_options
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 20
    mov r0, 0
    jgt r4, r3, exit
    ldxb r5, [r2+0]
    and r5, 15
    lsh r5, 2
    add r2, r5
    mov r4, r2
    add r4, 8
    jgt r4, r3, exit
    ldxh r0, [r2+6]
    exit

-- packet_two_variable_offsets
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 20
    mov r0, 0
    jgt r4, r3, exit
    ldxb r5, [r2+0]
    add r2, r5
    mov r4, r2
    add r4, 1
    jgt r4, r3, exit
    ldxb r5, [r2+0]
    add r2, r5
    mov r4, r2
    add r4, 4
    jgt r4, r3, exit
    ldxw r0, [r2+0]
    exit

-- packet_before_a_checked_variable_base
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    and r5, 0xff
    add r5, 4
    add r2, r5
    mov r0, 0
    jgt r2, r3, exit
    ldxw r0, [r2-4]
    exit

-- packet_length_by_subtraction
    ldxdw r2, [r1+0]
    ldxdw r0, [r1+8]
    sub r0, r2
    stw [r10-4], 0
    mov r6, r0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, out
    mov r1, r6
    rsh r1, 7
    add r0, r1
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- packet_pointers_of_one_base_subtracted
    ldxdw r2, [r1+0]
    mov r3, r2
    add r3, 40
    sub r3, r2
    mov r0, r3
    exit

-- packet_pointer_may_be_null
    ldxdw r2, [r1+0]
    mov r0, 0
    jeq r2, 0, exit
    mov r0, 1
    exit

-- packet_proof_survives_a_spill
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    mov r0, 0
    jgt r4, r3, exit
    stxdw [r10-8], r2
    mov r2, 0
    ldxdw r5, [r10-8]
    ldxb r0, [r5+13]
    exit

-- packet_proof_survives_a_call
    mov r6, r1
    ldxdw r7, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r7
    add r4, 20
    mov r0, 0
    jgt r4, r3, exit
    stw [r10-4], 1
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    ldxb r0, [r7+19]
    exit

-- packet_proof_in_a_function
    ldxdw r2, [r1+8]
    ldxdw r1, [r1+0]
    call local first_byte
    exit
first_byte:
    mov r0, 0
    mov r3, r1
    add r3, 1
    jgt r3, r2, out
    ldxb r0, [r1+0]
out:
    exit

-- packet_loaded_again_after_resize
    mov r6, r1
    mov r2, 64
    call 0x102
    ldxdw r2, [r6+0]
    ldxdw r3, [r6+8]
    mov r4, r2
    add r4, 64
    mov r0, 0
    jgt r4, r3, exit
    stdw [r2+56], 0
    mov r0, 1
    exit

-- packet_as_a_key
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 20
    mov r0, 0
    jgt r4, r3, exit
    add r2, 12
    lddw r1, map 1
    call 1
    jeq r0, 0, exit
    ldxw r0, [r0+28]
    exit

-- entry_whole (ring)
    ldxdw r2, [r1+16]
    ldxdw r0, [r2+0]
    ldxdw r3, [r2+8]
    add r0, r3
    stdw [r2+0], 0
    exit

-- entry_compared_with_its_end (ring)
    ldxdw r2, [r1+16]
    ldxdw r3, [r1+24]
    mov r4, r2
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    ldxb r0, [r2+15]
    exit

-- entry_by_index (ring)
    ldxdw r2, [r1+16]
    ldxw r3, [r1+40]
    and r3, 3
    lsh r3, 2
    add r2, r3
    ldxw r0, [r2+0]
    exit

-- entry_as_a_key (ring)
    ldxdw r2, [r1+16]
    add r2, 8
    lddw r1, map 1
    call 1
    jeq r0, 0, exit
    mov r0, 1
    exit

-- value_after_a_check
    stw [r10-4], 3
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jne r0, 0, found
    mov r0, 0
    exit
found:
    ldxdw r1, [r0+8]
    add r1, 1
    stxdw [r0+8], r1
    mov r0, 1
    exit

-- value_null_register_compared
    stw [r10-4], 3
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r6, 0
    jeq r0, r6, exit
    ldxw r0, [r0+0]
    exit

-- value_copies_are_checked_together
    stw [r10-4], 3
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r6, r0
    stxdw [r10-16], r0
    jeq r0, 0, exit
    ldxw r1, [r6+0]
    ldxdw r7, [r10-16]
    ldxw r0, [r7+4]
    add r0, r1
    exit

-- value_by_masked_index
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    and r6, 15
    add r0, r6
    ldxb r0, [r0+0]
    exit

-- value_by_compared_index
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jgt r6, 15, out
    add r0, r6
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- value_by_an_index_compared_in_32_bits
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jge32 r6, 16, out
    add r0, r6
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- value_by_an_index_compared_signed_both_ways
    ldxsw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jslt r6, 0, out
    jsgt r6, 15, out
    add r0, r6
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- value_by_a_negative_index_from_its_middle
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    and r6, 7
    sub r0, r6
    ldxb r0, [r0+7]
    exit

-- value_by_the_copy_of_a_compared_index
    ldxw r6, [r1+44]
    mov r7, r6
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jgt r7, 15, out
    add r0, r6
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- value_by_a_spilled_index
    ldxw r6, [r1+44]
    stxdw [r10-16], r6
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    ldxdw r7, [r10-16]
    jgt r7, 15, out
    ldxdw r8, [r10-16]
    add r0, r8
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- value_by_a_narrow_spilled_index
    ldxw r6, [r1+44]
    and r6, 15
    stxb [r10-16], r6
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    ldxb r7, [r10-16]
    add r0, r7
    ldxb r0, [r0+0]
    exit

-- value_by_a_remainder
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    mod r6, 13
    add r0, r6
    ldxb r0, [r0+3]
    exit

-- value_by_a_quotient
    ldxw r6, [r1+44]
    and r6, 0xff
    div r6, 17
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    stxdw [r10-24], r6
    call 1
    jeq r0, 0, exit
    ldxdw r6, [r10-24]
    add r0, r6
    ldxb r0, [r0+0]
    exit

-- value_by_the_top_bits
    ldxdw r6, [r1+32]
    rsh r6, 60
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    add r0, r6
    ldxb r0, [r0+0]
    exit

-- value_by_bits_of_a_swapped_word
    ldxw r6, [r1+44]
    be16 r6
    and r6, 12
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    add r0, r6
    ldxw r0, [r0+0]
    exit

-- value_by_ored_bits
    ldxw r6, [r1+44]
    and r6, 8
    or r6, 4
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    add r0, r6
    ldxw r0, [r0+0]
    exit

-- value_by_an_index_in_32_bit_arithmetic
    ldxdw r6, [r1+32]
    and32 r6, 3
    lsh32 r6, 2
    add32 r6, 3
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    add r0, r6
    ldxb r0, [r0+0]
    exit

-- value_by_tested_bits
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jset r6, -16, out
    add r0, r6
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- value_number_plus_pointer
    ldxw r6, [r1+44]
    and r6, 15
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    add r6, r0
    ldxb r0, [r6+0]
    exit

-- value_in_one_of_two_maps
    ldxw r6, [r1+44]
    stdw [r10-8], 0
    mov r2, r10
    add r2, -8
    jeq r6, 0, other
    lddw r1, map 0
    call 1
    ja use
other:
    lddw r1, map 1
    call 1
use:
    jeq r0, 0, exit
    ldxw r0, [r0+4]
    exit

-- shared_value
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, exit
    ldxdw r1, [r0+8]
    add r1, 1
    stxdw [r0+8], r1
    ldxw r0, [r0+4]
    exit

-- shared_value_indexed_in_whole_words
    ldxw r6, [r1+44]
    and r6, 3
    lsh r6, 2
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, exit
    add r0, r6
    ldxw r0, [r0+0]
    exit

-- shared_value_indexed_by_bytes
    ldxw r6, [r1+44]
    and r6, 15
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, exit
    add r0, r6
    ldxb r0, [r0+0]
    exit

-- atomics
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    mov r7, r0
    mov r1, 5
    lock add [r7+0], r1
    lock fetch or [r7+8], r1
    lock xchg32 [r7+4], r1
    mov r0, 0
    lock cmpxchg [r7+8], r1
    exit

-- atomic_on_the_stack
    stdw [r10-8], 1
    mov r1, 2
    lock fetch add [r10-8], r1
    ldxdw r0, [r10-8]
    add r0, r1
    exit

-- global_data
    lddw r2, map_value 8+4
    ldxw r0, [r2+0]
    add r0, 1
    stxw [r2+0], r0
    lddw r3, map_value 9+8
    ldxdw r0, [r3+0]
    exit

-- constant_table_by_index
    ldxw r2, [r1+44]
    and r2, 15
    lddw r3, map_value 9+0
    add r3, r2
    ldxb r0, [r3+0]
    exit

-- constant_data_as_a_key
    lddw r2, map_value 9+4
    lddw r1, map 1
    call 1
    mov r1, r0
    mov r0, 0
    jeq r1, 0, exit
    mov r0, 1
    exit

-- pointer_spilled_and_filled
    stxdw [r10-8], r1
    mov r1, 0
    ldxdw r2, [r10-8]
    ldxw r0, [r2+44]
    exit

-- spilled_pointer_overwritten_whole
    stxdw [r10-8], r1
    stdw [r10-8], 7
    ldxw r0, [r10-8]
    exit

-- loop_counted_up
    mov r0, 0
    mov r1, 0
again:
    add r0, r1
    add r1, 1
    jlt r1, 200, again
    exit

-- loop_counted_down
    mov r0, 0
    mov r1, 100
again:
    add r0, r1
    sub r1, 1
    jne r1, 0, again
    exit

-- loop_counted_down_from_an_unknown_byte
    ldxw r1, [r1+44]
    and r1, 0xff
    mov r0, 0
again:
    jeq r1, 0, out
    add r0, r1
    sub r1, 1
    ja again
out:
    exit

-- loop_up_to_an_unknown_bound
    ldxw r3, [r1+44]
    and r3, 31
    mov r0, 0
    mov r1, 0
again:
    jge r1, r3, out
    add r0, r1
    add r1, 1
    ja again
out:
    exit

-- loop_halving
    ldxdw r1, [r1+32]
    mov r0, 0
again:
    rsh r1, 1
    add r0, 1
    jne r1, 0, again
    exit

-- loop_of_a_checksum
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r0, 0
    mov r4, r2
    add r4, 20
    jgt r4, r3, exit
    mov r5, 10
again:
    ldxh r6, [r2+0]
    add r0, r6
    add r2, 2
    sub r5, 1
    jne r5, 0, again
    mov r6, r0
    rsh r6, 16
    and r0, 0xffff
    add r0, r6
    exit

-- loop_with_branches_that_join
    ldxdw r2, [r1+32]
    mov r0, 0
    mov r3, 0
again:
    mov r4, r2
    rsh r2, 1
    and r4, 1
    jeq r4, 0, even
    mov r5, 1
    ja next
even:
    mov r5, 2
next:
    xor r0, r5
    and r0, 3
    add r3, 1
    jlt r3, 64, again
    exit

-- loop_through_options_of_the_packet
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r0, 0
    mov r6, 10
next:
    mov r4, r2
    add r4, 2
    jgt r4, r3, exit
    ldxb r5, [r2+1]
    jlt r5, 2, exit
    add r2, r5
    add r0, 1
    sub r6, 1
    jne r6, 0, next
    exit

-- loop_over_lookups
    mov r6, 0
    mov r7, 0
again:
    stxw [r10-4], r6
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, next
    ldxw r1, [r0+0]
    add r7, r1
next:
    add r6, 1
    jlt r6, 8, again
    mov r0, r7
    exit

-- nested_loops
    mov r0, 0
    mov r1, 0
outer:
    mov r2, 0
inner:
    add r0, 1
    add r2, 1
    jlt r2, 10, inner
    add r1, 1
    jlt r1, 10, outer
    exit

-- functions_keep_saved_registers
    mov r6, 5
    mov r7, r1
    mov r1, 2
    call local double
    add r0, r6
    ldxw r1, [r7+44]
    add r0, r1
    exit
double:
    mov r6, r1
    add r6, r6
    mov r0, r6
    exit

-- function_without_result_called_for_its_effect
    stdw [r10-8], 1
    mov r1, r10
    add r1, -8
    call local bump
    ldxdw r0, [r10-8]
    exit
bump:
    ldxdw r2, [r1+0]
    add r2, 1
    stxdw [r1+0], r2
    exit

-- function_that_fills_its_callers_key
    mov r6, r1
    mov r1, r10
    add r1, -8
    mov r2, r6
    call local fill
    mov r2, r10
    add r2, -8
    lddw r1, map 1
    call 1
    jeq r0, 0, exit
    ldxdw r0, [r0+0]
    exit
fill:
    ldxdw r3, [r2+32]
    stxdw [r1+0], r3
    mov r0, 0
    exit

-- function_returns_a_lookup
    stw [r10-4], 1
    mov r1, r10
    add r1, -4
    call local find
    jeq r0, 0, exit
    ldxw r0, [r0+0]
    exit
find:
    mov r2, r1
    lddw r1, map 0
    call 1
    exit

-- function_called_twice
    mov r1, 3
    call local square
    mov r6, r0
    mov r1, 4
    call local square
    add r0, r6
    exit
square:
    mov r0, r1
    mul r0, r1
    exit

-- eight_frames
    call local f1
    exit
f1:
    call local f2
    exit
f2:
    call local f3
    exit
f3:
    call local f4
    exit
f4:
    call local f5
    exit
f5:
    call local f6
    exit
f6:
    call local f7
    exit
f7:
    mov r0, 0
    exit

-- unreachable_code_is_of_no_matter
    mov r0, 0
    ja out
    ldxdw r0, [r9+8000]
    call 999
    ja +100
out:
    exit

-- impossible_branch_is_of_no_matter
    ldxw r2, [r1+44]
    and r2, 7
    mov r0, 0
    jle r2, 7, exit
    ldxdw r0, [r10-8]
    exit

-- impossible_branch_by_sign
    ldxw r2, [r1+44]
    mov r0, 0
    jsge r2, 0, exit
    ldxdw r0, [r10-8]
    exit

-- every_helper
    mov r6, r1
    stdw [r10-8], 0
    stdw [r10-16], 0
    stdw [r10-24], 0
    stdw [r10-32], 0
    lddw r1, map 1
    mov r2, r10
    add r2, -8
    mov r3, r10
    add r3, -32
    mov r4, 0
    call 2
    lddw r1, map 1
    mov r2, r10
    add r2, -8
    call 3
    lddw r1, map 3
    mov r2, 1
    mov r3, r10
    add r3, -16
    call 0x101
    mov r1, r6
    mov r2, 100
    call 0x102
    mov r1, r6
    lddw r2, map 5
    mov r3, 0
    mov r4, 0
    mov r5, 40
    call 0x103
    mov r1, r6
    lddw r2, map 5
    mov r3, 0
    mov r4, 0
    mov r5, 40
    call 0x104
    mov r1, r6
    mov r2, 20
    mov r3, 0
    call 0x105
    lddw r1, map 6
    mov r2, 1
    ldxdw r3, [r6+32]
    call 0x106
    lddw r1, map 7
    mov r2, 1
    call 0x107
    mov r0, 0
    exit

-- address_of_xdp (xdp)
    ldxw r2, [r1+0]
    ldxw r3, [r1+4]
    mov r4, r2
    add r4, 14
    mov r0, 1
    jgt r4, r3, exit
    ldxh r0, [r2+12]
    exit

-- helper_map_differs_by_path
    ldxw r3, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    jeq r3, 0, find
    lddw r1, map 2
find:
    call 1
    jeq r0, 0, none
    ldxdw r1, [r0+8]
none:
    mov r0, 0
    exit

-- an_address_below_a_proven_one
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
    jgt r1, r7, exit
    ldxb r0, [r8+0]
    exit
exit:
    exit

-- a_sum_folded_until_it_fits
    ldxw r2, [r1+44]
again:
    mov32 r1, r2
    rsh32 r1, 16
    jeq32 r1, 0, out
    and32 r2, 0xffff
    add32 r2, r1
    ja again
out:
    mov r0, r2
    exit

-- a_table_of_places
    ldxw r2, [r1+44]
    and r2, 7
    lddw r3, map_value 9+0
    add r3, r2
    ldxb r4, [r3+1]
    lddw r5, map_value 8+0
    add r5, r4
    ldxdw r0, [r5+0]
    exit

-- address_beside_a_value_before_the_check
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    mov r1, r0
    add r1, 8
    jeq r0, 0, out
    ldxdw r0, [r1+0]
    exit
out:
    exit

-- stack_address_by_or
    stdw [r10-8], 0
    stdw [r10-16], 0
    ldxw r2, [r1+44]
    and r2, 7
    mov r3, r10
    add r3, -16
    or r3, r2
    stb [r3+0], 1
    ldxdw r0, [r10-16]
    exit
