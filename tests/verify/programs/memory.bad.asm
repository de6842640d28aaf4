# Accesses outside of each kind of memory, or through what is no address.

-- stack_above_frame
    stdw [r10+0], 1             # V101: access of 8 bytes at r10+0
    mov r0, 0
    exit

-- stack_across_the_top
    stdw [r10-4], 1             # V101: r10-4
    mov r0, 0
    exit

-- stack_below_frame
    stb [r10-513], 1            # V101: the frame is r10-512 to r10-1
    mov r0, 0
    exit

-- stack_below_by_arithmetic
    mov r1, r10
    add r1, -512
    stb [r1-1], 1               # V101: r10-513
    mov r0, 0
    exit

-- stack_above_by_subtraction
    mov r1, r10
    sub r1, -8
    ldxb r0, [r1-1]             # V101: r10+7
    exit

-- stack_variable_offset_beyond_the_frame
    ldxw r2, [r1+44]
    and r2, 7
    mov r3, r10
    add r3, -7
    add r3, r2
    stb [r3+0], 1               # V101: r10-7..r10+0
    mov r0, 0
    exit

-- stack_variable_offset_partly_unwritten
    ldxw r2, [r1+44]
    and r2, 7
    stw [r10-8], 0
    mov r3, r10
    add r3, -8
    add r3, r2
    ldxb r0, [r3+0]             # V111: 8 bytes at r10-8..r10-1
    exit

-- stack_variable_store_initialises_nothing
    ldxw r2, [r1+44]
    and r2, 7
    mov r3, r10
    add r3, -8
    add r3, r2
    stb [r3+0], 1
    ldxb r0, [r10-8]            # V111: are read
    exit

-- stack_variable_store_over_a_spilled_pointer
    stdw [r10-16], 0
    stxdw [r10-8], r1
    ldxw r2, [r1+44]
    and r2, 7
    mov r3, r10
    add r3, -12
    add r3, r2
    stb [r3+0], 1
    ldxdw r4, [r10-8]           # V111: are read
    mov r0, 0
    exit

-- stack_of_the_caller_above
    mov r1, r10
    call local callee
    mov r0, 0
    exit
callee:
    stdw [r1+0], 1              # V101: r10+0
    mov r0, 0
    exit

-- stack_read_unwritten
    ldxdw r0, [r10-8]           # V111: 8 bytes at r10-8
    exit

-- stack_read_padding
    stw [r10-8], 1
    stb [r10-4], 1
    ldxdw r0, [r10-8]           # V111: not all of them were written
    exit

-- stack_read_one_byte_more
    stw [r10-4], 1
    ldxh r0, [r10-5]            # V111: 2 bytes at r10-5
    exit

-- stack_written_on_one_path_only
    ldxw r2, [r1+44]
    jeq r2, 0, skip
    stdw [r10-8], 1
skip:
    ldxdw r0, [r10-8]           # V111: written before on this path
    exit

-- stack_of_a_callee_is_blank_each_time
    stdw [r10-8], 7
    call local callee
    mov r0, 0
    exit
callee:
    ldxdw r0, [r10-8]           # V111: 8 bytes at r10-8
    exit

-- stack_of_a_callee_is_blank_the_second_time
    mov r1, 1
    call local callee
    mov r1, 0
    call local callee
    mov r0, 0
    exit
callee:
    jeq r1, 0, read
    stdw [r10-8], 7
    mov r0, 0
    exit
read:
    ldxdw r0, [r10-8]           # V111: not all of them were written
    exit

-- ctx_past_its_end
    ldxw r0, [r1+56]            # V105: offset 56 of the context
    exit

-- ctx_before_its_start
    ldxdw r0, [r1-8]            # V105: offset -8
    exit

-- ctx_half_a_field
    ldxw r0, [r1+32]            # V105: no field of that size
    exit

-- ctx_across_two_fields
    ldxdw r0, [r1+40]           # V105: 8 bytes at offset 40
    exit

-- ctx_written
    stw [r1+40], 1              # V113: read-only
    mov r0, 0
    exit

-- ctx_atomic
    mov r2, 1
    lock add [r1+32], r2        # V115: an atomic operation on the context
    mov r0, 0
    exit

-- ctx_arithmetic
    ldxw r2, [r1+44]
    and r2, 8
    add r1, r2                  # V114: arithmetic on the context
    ldxdw r0, [r1+0]
    exit

-- ctx_moved_between_fields
    add r1, 2
    ldxdw r0, [r1+0]            # V105: no field of that size begins there
    exit

-- packet_unchecked
    ldxdw r2, [r1+0]
    ldxb r0, [r2+0]             # V102: packet offset 0..1 is not within the proven [0, 0)
    exit

-- packet_one_byte_too_many
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    mov r0, 0
    jgt r4, r3, exit
    ldxb r0, [r2+14]            # V102: packet offset 14..15 is not within the proven [0, 14)
    exit

-- packet_word_across_the_proof
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    mov r0, 0
    jgt r4, r3, exit
    ldxw r0, [r2+11]            # V102: 11..15
    exit

-- packet_before_its_start
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    mov r0, 0
    jgt r4, r3, exit
    ldxb r0, [r2-1]             # V102: read before the packet
    exit

-- packet_checked_the_wrong_way
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    mov r0, 0
    jle r4, r3, exit
    ldxb r0, [r2+0]             # V102: read past
    exit

-- packet_equal_to_the_end_proves_nothing
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 14
    mov r0, 0
    jne r4, r3, exit
    ldxb r0, [r2+0]             # V102: read past
    exit

-- packet_strict_comparison_gives_one_byte_only
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r0, 0
    jge r2, r3, exit
    ldxh r0, [r2+0]             # V102: packet offset 0..2 is not within the proven [0, 1)
    exit

-- packet_checked_on_one_path_only
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    mov r0, 0
    jeq r5, 7, read
    mov r4, r2
    add r4, 14
    jgt r4, r3, exit
read:
    ldxb r0, [r2+0]             # V102: read past
    exit

-- packet_write_unchecked
    ldxdw r2, [r1+0]
    stb [r2+0], 1               # V102: write past
    mov r0, 0
    exit

-- packet_variable_offset_unchecked
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 20
    mov r0, 0
    jgt r4, r3, exit
    ldxb r5, [r2+0]
    add r2, r5
    ldxb r0, [r2+0]             # V102: never compared
    exit

-- packet_before_an_unchecked_variable_base
    ldxdw r2, [r1+0]
    ldxw r5, [r1+44]
    and r5, 0xffff
    jlt r5, 4, out
    add r2, r5
    ldxw r0, [r2-4]             # V102: never compared
    exit
out:
    mov r0, 0
    exit

-- packet_proof_that_ends_before_the_variable_base
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    and r5, 0xff
    add r5, 16
    add r2, r5
    mov r4, r2
    add r4, -8
    mov r0, 0
    jgt r4, r3, exit
    ldxw r0, [r2-4]             # V102: from a variable base
    exit

-- packet_negative_variable_offset
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    and r5, 7
    sub r2, r5
    mov r4, r2
    add r4, 20
    mov r0, 0
    jgt r4, r3, exit
    ldxb r0, [r2+0]             # V102: 7 bytes before the packet
    exit

-- packet_proof_of_another_variable_base
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    and r5, 7
    mov r4, r2
    add r4, r5
    add r2, r5
    add r4, 8
    mov r0, 0
    jgt r4, r3, exit
    ldxb r0, [r2+0]             # V102: never compared
    exit

-- packet_base_moved_again_after_the_check
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    and r5, 7
    add r2, r5
    mov r4, r2
    add r4, 8
    mov r0, 0
    jgt r4, r3, exit
    add r2, r5
    ldxb r0, [r2+1]             # V102: packet offset 1..2 from a variable base is not within the proven [0, 1)
    exit

-- packet_unbounded_offset
    ldxdw r2, [r1+0]
    ldxdw r5, [r1+32]
    add r2, r5                  # V114: unbounded
    ldxb r0, [r2+0]
    exit

-- packet_offset_signed_from_a_byte
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    ldxw r5, [r1+44]
    movsx864 r5, r5
    add r2, r5
    mov r4, r2
    add r4, 8
    mov r0, 0
    jgt r4, r3, exit
    ldxb r0, [r2+0]             # V102: 128 bytes before the packet
    exit

-- packet_end_read
    ldxdw r3, [r1+8]
    ldxb r0, [r3-1]             # V107: the packet's end
    exit

-- packet_end_arithmetic
    ldxdw r3, [r1+8]
    sub r3, 8                   # V114: arithmetic on the packet's end
    mov r0, 0
    exit

-- entry_past_its_end (ring)
    ldxdw r2, [r1+16]
    ldxb r0, [r2+16]            # V104: bytes 16 are not within [0, 16)
    exit

-- entry_before_its_start (ring)
    ldxdw r2, [r1+16]
    ldxb r0, [r2-1]             # V104: bytes -1
    exit

-- entry_variable_offset (ring)
    ldxdw r2, [r1+16]
    ldxw r3, [r1+44]
    and r3, 15
    add r2, r3
    ldxh r0, [r2+0]             # V104: bytes 0..16
    exit

-- entry_in_another_hook
    ldxdw r2, [r1+16]
    ldxb r0, [r2+0]             # V104: not within [0, 0)
    exit

-- entry_end_read (ring)
    ldxdw r2, [r1+24]
    ldxb r0, [r2-1]             # V107: the entry's end
    exit

-- value_past_its_end
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    ldxdw r0, [r0+12]           # V103: map table: access of 8 bytes at offset 12
    exit

-- value_before_its_start
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    ldxw r0, [r0-4]             # V103: bytes -4..-1
    exit

-- value_variable_offset
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    and r6, 15
    add r0, r6
    ldxh r0, [r0+0]             # V103: bytes 0..16 are not within [0, 16)
    exit

-- value_variable_offset_below
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    and r6, 15
    sub r0, r6
    ldxb r0, [r0+8]             # V103: bytes -7..8
    exit

-- value_compared_signed_only
    ldxw r6, [r1+44]
    lsh r6, 32
    arsh r6, 32
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jsgt r6, 15, exit
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit

-- value_bounded_in_32_bits_only
    ldxdw r6, [r1+32]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jgt32 r6, 15, exit
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit

-- value_bounded_in_32_bits_signed
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jsgt32 r6, 15, exit
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit

-- value_index_off_by_one
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jgt r6, 16, exit
    add r0, r6
    ldxb r0, [r0+0]             # V103: bytes 0..16
    exit

-- value_index_wraps_in_32_bits
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jgt r6, 15, exit
    sub32 r6, 1
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit

-- value_index_checked_before_it_grows
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    jgt r6, 15, exit
    lsh r6, 1
    add r0, r6
    ldxb r0, [r0+0]             # V103: bytes 0..30
    exit

-- value_index_by_arithmetic_shift
    ldxw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    lsh r6, 32
    arsh r6, 60
    add r0, r6
    ldxb r0, [r0+0]             # V103: bytes -8..7
    exit

-- value_index_sign_extended_load
    ldxsw r6, [r1+44]
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    rsh r6, 60
    add r0, r6
    ldxh r0, [r0+0]             # V103: bytes 0..16
    exit

-- value_index_through_a_narrow_spill
    ldxw r6, [r1+44]
    jgt r6, 15, out
    stxb [r10-16], r6
    ldxw r7, [r1+48]
    stxb [r10-16], r7
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, out
    ldxb r6, [r10-16]
    add r0, r6
    ldxb r0, [r0+0]             # V103: bytes 0..255
    exit
out:
    mov r0, 0
    exit

-- value_index_spill_partly_overwritten
    ldxdw r6, [r1+32]
    and r6, 15
    stxdw [r10-16], r6
    stb [r10-15], 1
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    ldxdw r6, [r10-16]
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit

-- value_index_wider_than_its_spill
    ldxw r6, [r1+44]
    stw [r10-16], 3
    stxw [r10-12], r6
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    ldxdw r6, [r10-16]
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit

-- value_index_truncated_by_a_spill
    ldxdw r6, [r1+32]
    stxw [r10-16], r6
    jgt r6, 15, out
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, out
    ldxw r7, [r10-16]
    add r0, r7                  # V114: unbounded
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- value_index_linked_on_one_path_only
    # on the second path the spilled copy and the register are different numbers
    ldxdw r6, [r1+32]
    ldxw r8, [r1+44]
    ldxdw r9, [r1+32]
    mov r7, r9
    jne r8, 0, other
    stxdw [r10-16], r6
    ja join
other:
    mov r7, r6
    stxdw [r10-16], r6
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

-- value_index_unlinked_unknown_bytes
    # the first path links r7 with the stack slot; the second fills the slot byte by byte, then r7 links with r8 only
    mov r9, r1
    ldxdw r6, [r9+32]
    ldxw r2, [r9+44]
    jeq r2, 0, bytewise
    mov r7, r6
    mov r8, r6
    stxdw [r10-16], r6
    ja join
bytewise:
    mov r7, r6
    mov r8, r6
    ldxdw r3, [r9+32]
    stxdw [r10-16], r3
join:
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, out
    jgt r7, 15, out
    jgt r8, 15, out
    ldxdw r6, [r10-16]
    add r0, r6                  # V114: unbounded
    ldxb r0, [r0+0]
    exit
out:
    mov r0, 0
    exit

-- data_past_its_end
    lddw r2, map_value 8+0
    ldxb r0, [r2+16]            # V106: .data
    exit

-- data_offset_of_the_load_counts
    lddw r2, map_value 8+12
    ldxdw r0, [r2+0]            # V106: bytes 12..19
    exit

-- data_before_its_start
    lddw r2, map_value 8+4
    ldxdw r0, [r2-8]            # V106: bytes -4..3
    exit

-- data_variable_offset
    ldxw r3, [r1+44]
    and r3, 31
    lddw r2, map_value 8+0
    add r2, r3
    ldxb r0, [r2+0]             # V106: bytes 0..31
    exit

-- constant_data_written
    lddw r2, map_value 9+0
    stb [r2+0], 1               # V113: constant data
    mov r0, 0
    exit

-- constant_data_changed_atomically
    lddw r2, map_value 9+0
    mov r3, 1
    lock add [r2+0], r3         # V113: constant data
    mov r0, 0
    exit

-- constant_data_written_on_one_path
    ldxw r3, [r1+44]
    lddw r2, map_value 8+0
    jeq r3, 0, write
    lddw r2, map_value 9+0
write:
    stb [r2+0], 1               # V113: .rodata is written
    mov r0, 0
    exit

-- a_map_is_not_its_values
    lddw r2, map 0
    ldxdw r0, [r2+0]            # V107: a map
    exit

-- a_map_has_no_arithmetic
    lddw r2, map 0
    add r2, 8                   # V114: arithmetic on a map
    mov r0, 0
    exit

-- a_number_is_no_address
    lddw r2, 0x7f0012345678
    ldxb r0, [r2+0]             # V107: holds a number
    exit

-- a_number_from_the_context_is_no_address
    ldxdw r2, [r1+32]
    stb [r2+0], 1               # V107: r2, which holds a number
    mov r0, 0
    exit

-- null_is_no_address
    mov r2, 0
    ldxb r0, [r2+0]             # V107: r2, which holds a number
    exit

-- different_objects_at_one_instruction
    ldxw r3, [r1+44]
    stdw [r10-8], 0
    mov r2, r10
    add r2, -8
    jeq r3, 0, read
    lddw r2, map_value 8+0
read:
    ldxdw r0, [r2+0]
    ldxw r0, [r2+8]             # V101: r10+0
    exit

-- context_or_stack_at_one_instruction
    ldxw r3, [r1+44]
    stdw [r10-8], 0
    mov r2, r10
    add r2, -40
    jeq r3, 0, read
    mov r2, r1
read:
    stdw [r2+32], 1             # V113: the context is written
    mov r0, 0
    exit

-- pointer_far_away
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    add r0, 0x7fffffff          # V114: moves too far
    ldxb r0, [r0+0]
    exit

-- pointer_far_away_in_steps
    lddw r2, map_value 8+0
    add r2, 0x1fffffff
    add r2, 0x1fffffff          # V114: moves too far
    mov r0, 0
    exit

-- atomic_misaligned_on_the_stack
    stdw [r10-8], 0
    stdw [r10-16], 0
    mov r1, 1
    lock add [r10-12], r1       # V115: 8 bytes
    mov r0, 0
    exit

-- atomic_misaligned_word
    stdw [r10-8], 0
    mov r1, 1
    lock add32 [r10-6], r1      # V115: 4 bytes
    mov r0, 0
    exit

-- atomic_misaligned_in_a_value
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    mov r1, 1
    lock add [r0+4], r1         # V115: aligned
    mov r0, 0
    exit

-- atomic_at_a_variable_offset
    ldxw r6, [r1+44]
    and r6, 7
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    add r0, r6
    mov r1, 1
    lock add [r0+0], r1         # V115: aligned
    mov r0, 0
    exit

-- atomic_in_the_packet
    ldxdw r2, [r1+0]
    ldxdw r3, [r1+8]
    mov r4, r2
    add r4, 16
    mov r0, 0
    jgt r4, r3, exit
    lock add [r2+0], r0         # V115: aligned
    exit

-- atomic_in_the_entry (ring)
    ldxdw r2, [r1+16]
    mov r0, 1
    lock add [r2+0], r0         # V115: aligned
    exit

-- atomic_on_unwritten_stack
    mov r0, 1
    lock add [r10-8], r0        # V111: not all of them were written
    exit

-- atomic_past_a_value
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    mov r1, 1
    lock xchg [r0+16], r1       # V103: bytes 16..23
    mov r0, 0
    exit

-- shared_value_misaligned
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, exit
    ldxw r0, [r0+2]             # V115: aligned
    exit

-- shared_value_at_odd_steps
    ldxw r6, [r1+44]
    and r6, 6
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, exit
    add r0, r6
    ldxw r0, [r0+0]             # V115: aligned
    exit
