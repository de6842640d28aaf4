# Registers without a value, endless loops, calls, jumps, helpers' arguments, and what cannot run here.

-- register_never_written
    mov r0, r3                  # V110: r3 is used before it has a value
    exit

-- register_used_as_its_own_operand
    add r3, 1                   # V110: r3
    mov r0, 0
    exit

-- register_stored
    stxdw [r10-8], r9           # V110: r9
    mov r0, 0
    exit

-- register_compared
    jeq r5, 0, exit             # V110: r5
    mov r0, 0
    exit

-- register_written_on_one_path_only
    ldxw r2, [r1+44]
    jeq r2, 0, use
    mov r3, 1
use:
    mov r0, r3                  # V110: no path to here has written r3
    exit

-- argument_clobbered_by_a_helper
    mov r2, 0
    mov r6, r1
    call 0x102
    mov r0, r2                  # V110: r2
    exit

-- argument_clobbered_by_a_function
    call local callee
    ldxw r0, [r1+44]            # V110: r1
    exit
callee:
    mov r0, 0
    exit

-- function_does_not_see_saved_registers
    mov r6, 1
    call local callee
    exit
callee:
    mov r0, r6                  # V110: r6
    exit

-- function_without_result
    call local callee
    add r0, 1                   # V110: r0
    exit
callee:
    exit

-- function_without_result_on_one_path
    call local callee
    add r0, 1                   # V110: r0
    exit
callee:
    ldxw r2, [r1+44]
    jeq r2, 0, out
    mov r0, 1
out:
    exit

-- function_does_not_see_its_callers_result
    mov r0, 1
    call local callee
    mov r0, 0
    exit
callee:
    mov r1, r0                  # V110: r0
    exit

-- frame_pointer_moved
    mov r10, r1                 # V113: r10 is written
    mov r0, 0
    exit

-- frame_pointer_added_to
    add r10, -8                 # V113: r10 is written
    mov r0, 0
    exit

-- frame_pointer_loaded
    ldxdw r10, [r1+32]          # V113: r10 is written
    mov r0, 0
    exit

-- frame_pointer_loaded_wide
    lddw r10, 5                 # V113: r10 is written
    mov r0, 0
    exit

-- frame_pointer_fetched_into
    stdw [r10-8], 0
    lock fetch add [r10-8], r10 # V114: needs a number
    mov r0, 0
    exit

-- loop_forever
again:
    ja again                    # V130: may never end

-- loop_forever_over_a_call
    mov r6, r1
again:
    mov r1, r6                  # V130: nothing has changed
    mov r2, 64
    call 0x102
    ja again

-- loop_until_a_value_changes
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
wait:
    ldxw r1, [r0+0]             # V130: nothing has changed
    jeq r1, 0, wait
    mov r0, 0
    exit

-- loop_counter_of_8_bits_wraps
    mov r1, 0
again:
    add r1, 1                   # V130: may never end
    and r1, 0xff
    jlt r1, 300, again
    mov r0, 0
    exit

-- loop_counter_of_32_bits_is_reset
    mov32 r1, 0
again:
    add32 r1, 1                 # V130: may never end
    and32 r1, 15
    jne32 r1, 16, again
    mov r0, 0
    exit

-- loop_counter_moves_away_from_its_limit
    mov r1, 0
again:
    add r1, 2
    jne r1, 7, again            # V160: more than any other
    mov r0, 0
    exit

-- loop_counter_without_a_bound
    ldxdw r2, [r1+32]
again:
    sub r2, 1
    jne r2, 0, again            # V160: not everything was explored
    mov r0, 0
    exit

-- loop_counter_does_not_move
    ldxw r2, [r1+44]
    and r2, 15
again:
    add r2, 0                   # V130: may never end
    jne r2, 0, again
    mov r0, 0
    exit

-- loop_that_swaps
    mov r1, 1
    mov r2, 2
again:
    mov r3, r1                  # V130: may never end
    mov r1, r2
    mov r2, r3
    jne r1, 3, again
    mov r0, 0
    exit

-- loop_through_a_function
    mov r6, r1
again:
    mov r1, r6                  # V130: may never end
    call local callee
    jne r0, 9, again
    exit
callee:
    ldxw r0, [r1+44]
    exit

-- loop_inside_a_function
    call local callee
    exit
callee:
    mov r0, 0
again:
    xor r0, 1                   # V130: may never end
    jle r0, 1, again
    exit

-- loop_counter_in_memory_that_others_write
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, exit
    stw [r0+0], 0
again:
    ldxw r1, [r0+0]             # V130: may never end
    add r1, 1
    stxw [r0+0], r1
    jlt r1, 10, again
    mov r0, 0
    exit

-- too_many_paths
    ldxdw r2, [r1+32]
    mov r3, 0
again:
    add r3, 1
    jne r3, 1000000, again      # V160: the loop that ends here was followed
    mov r0, 0
    exit

-- recursion
    call local self
    exit
self:
    call local self             # V131: a function calls itself
    exit

-- recursion_of_the_handler
main:
    mov r6, r1
    mov r0, 0
    call local main             # V131: a function calls itself
    exit

-- recursion_through_another
    call local one
    exit
one:
    call local two
    exit
two:
    call local one              # V131: directly or through others
    exit

-- calls_too_deep
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
    call local f8               # V132: frame 9
    exit
f8:
    mov r0, 0
    exit

-- jump_out_of_the_program
    mov r0, 0
    ja +5                       # V133: slot 7
    exit

-- jump_before_the_program
    mov r0, 0
    jeq r0, 0, -9               # V133: slot -7
    exit

-- jump_into_a_wide_load
    ldxw r2, [r1+44]
    jeq r2, 0, +1               # V133: a jump to where no instruction begins
    lddw r0, 1
    exit

-- jump_into_another_function
    call local callee
    ja inside                   # V133: not one of this function's
    exit
callee:
    mov r0, 0
inside:
    exit

-- long_jump_out
    mov r0, 0
    ja32 +100                   # V133: slot 102
    exit

-- falls_off_the_end
    mov r0, 0                   # V134: runs off the end

-- falls_off_after_a_branch
    mov r0, 0
    jeq r0, 0, -2               # V134: the last instruction is no return

-- falls_into_the_next_function
    call local second
    exit
first:
    mov r0, 1
second:
    mov r0, 0                   # V134: runs off the end

-- call_through_a_register
    mov r2, 1
    call r2                     # V140: a call through a register
    exit

-- kernel_function
    call kfunc 7                # V140: a kernel function
    exit

-- function_address
    lddw r2, code 3             # V140: the address of a function
    mov r0, 0
    exit
callee:
    mov r0, 0
    exit

-- wide_load_of_a_variable
    lddw r2, variable 1         # V140: pseudo source 3
    mov r0, 0
    exit

-- helper_unknown
    call 6                      # V121: helper 6
    mov r0, 0
    exit

-- helper_of_the_kernel
    mov r6, r1
    call 14                     # V121: helper 14
    exit

-- helper_argument_missing
    lddw r1, map 0
    call 1                      # V110: r2
    mov r0, 0
    exit

-- helper_map_is_a_number
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    mov r1, 0
    call 1                      # V120: argument 1 (map) is the number 0
    mov r0, 0
    exit

-- helper_map_is_the_context
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    call 1                      # V120: argument 1 (map) is the context
    mov r0, 0
    exit

-- helper_map_of_another_kind
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 3
    call 1                      # V120: map ring is of another kind
    mov r0, 0
    exit

-- helper_delete_in_an_array
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 3                      # V120: map table is of another kind
    mov r0, 0
    exit

-- helper_push_to_an_inbound_ring
    stdw [r10-8], 0
    stdw [r10-16], 0
    mov r3, r10
    add r3, -16
    mov r2, 0
    lddw r1, map 4
    call 0x101                  # V120: of another kind
    mov r0, 0
    exit

-- helper_key_is_a_number
    mov r2, 4
    lddw r1, map 0
    call 1                      # V120: argument 2 (key) is the number 4
    mov r0, 0
    exit

-- helper_key_is_the_context
    mov r2, r1
    lddw r1, map 0
    call 1                      # V120: it must be the address of 4 bytes
    mov r0, 0
    exit

-- helper_key_is_the_packets_end
    ldxdw r2, [r1+8]
    lddw r1, map 0
    call 1                      # V120: argument 2 (key) is the packet's end
    mov r0, 0
    exit

-- helper_key_not_written
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1                      # V111: 4 bytes at r10-4
    mov r0, 0
    exit

-- helper_key_with_padding
    stw [r10-8], 1
    sth [r10-4], 1
    mov r2, r10
    add r2, -8
    lddw r1, map 1
    call 1                      # V111: 8 bytes at r10-8
    mov r0, 0
    exit

-- helper_key_across_the_top_of_the_stack
    stw [r10-4], 1
    mov r2, r10
    add r2, -4
    lddw r1, map 1
    call 1                      # V101: 8 bytes at r10-4
    mov r0, 0
    exit

-- helper_key_in_the_packet_unchecked
    ldxdw r2, [r1+0]
    lddw r1, map 0
    call 1                      # V102: packet offset 0..4
    mov r0, 0
    exit

-- helper_key_past_a_value
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 0
    call 1
    jeq r0, 0, exit
    mov r2, r0
    add r2, 12
    lddw r1, map 1
    call 1                      # V103: access of 8 bytes at offset 12
    mov r0, 0
    exit

-- helper_key_past_the_entry (ring)
    ldxdw r2, [r1+16]
    add r2, 9
    lddw r1, map 1
    call 1                      # V104: bytes 9..16
    mov r0, 0
    exit

-- helper_key_past_global_data
    lddw r2, map_value 9+12
    lddw r1, map 1
    call 1                      # V106: bytes 12..19
    mov r0, 0
    exit

-- helper_key_in_shared_memory
    stw [r10-4], 0
    mov r2, r10
    add r2, -4
    lddw r1, map 2
    call 1
    jeq r0, 0, exit
    mov r2, r0
    lddw r1, map 0
    call 1                      # V122: argument 2 (key) lies in shared memory
    mov r0, 0
    exit

-- helper_value_too_short
    stw [r10-4], 0
    stdw [r10-16], 0
    mov r2, r10
    add r2, -4
    mov r3, r10
    add r3, -16
    mov r4, 0
    lddw r1, map 0
    call 2                      # V111: 16 bytes at r10-16
    mov r0, 0
    exit

-- helper_entry_too_short
    stdw [r10-8], 0
    mov r3, r10
    add r3, -8
    mov r2, 0
    lddw r1, map 3
    call 0x101                  # V101: 16 bytes at r10-8
    mov r0, 0
    exit

-- helper_context_is_something_else
    mov r1, r10
    mov r2, 64
    call 0x102                  # V120: it must be the context as the handler got it
    mov r0, 0
    exit

-- helper_context_is_missing
    mov r1, 0
    mov r2, 64
    call 0x102                  # V120: argument 1 (ctx) is the number 0
    mov r0, 0
    exit

-- helper_length_is_a_pointer
    mov r2, r10
    call 0x102                  # V120: argument 2 (len) is a stack address
    mov r0, 0
    exit

-- helper_span_is_a_pointer
    mov r5, r1
    mov r4, 0
    mov r3, 0
    lddw r2, map 5
    call 0x103                  # V120: argument 5 (span) is the context
    mov r0, 0
    exit

-- helper_bytes_of_another_kind
    mov r5, 8
    mov r4, 0
    mov r3, 0
    lddw r2, map 0
    call 0x103                  # V120: map table is of another kind
    mov r0, 0
    exit

-- helper_timer_of_another_kind
    mov r2, 0
    lddw r1, map 5
    call 0x107                  # V120: map buffers is of another kind
    mov r0, 0
    exit

-- helper_seed_not_written
    mov r2, 20
    call 0x105                  # V110: r3
    mov r0, 0
    exit
