"""The joint compiler: object -> verified instructions -> LLVM IR -> linked with the provider -> one unit of machine code."""
