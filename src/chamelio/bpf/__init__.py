"""BPF as data: instructions, type information, objects, assembler, disassembler and the reference interpreter."""
