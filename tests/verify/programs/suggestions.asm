# Pairs that C does not make: the hook, the verdict, control flow.

-- V116_before
    ldxw r2, [r1+44]
    jeq r2, 0, out
    mov r0, 0
out:
    exit                        # V116: without a verdict

-- V116_after
    ldxw r2, [r1+44]
    mov r0, 1
    jeq r2, 0, out
    mov r0, 0
out:
    exit

-- V133_before
    mov r0, 0
    ja +1                       # V133: to where no instruction
    exit

-- V133_after
    mov r0, 0
    ja +0
    exit

-- V134_before
    ldxw r0, [r1+44]
    jeq r0, 0, out
    mov r0, 1
out:
    mov r0, 0                   # V134: runs off the end

-- V134_after
    ldxw r0, [r1+44]
    jeq r0, 0, out
    mov r0, 1
out:
    mov r0, 0
    exit

-- V141_before (tick)
    mov r0, 0                   # V141: No context for this section
    exit

-- V141_after (timer)
    mov r0, 0
    exit
